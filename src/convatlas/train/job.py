"""One process of a job: it joins the others, and if one fails, its error is shown once and is everyone's exit code."""

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ..errors import ConfigError, ConvatlasError, DataError, DistributedError, ResourceError, StoppedError, WeightsError
from ..machine import processors
from .beats import Beats, first_cause
from .distributed import ALONE, Ranks, World
from .fsdp import Shards

PATIENCE = timedelta(minutes=30)  # in which all must have started; also the most that a collective takes
PR_SET_PDEATHSIG = 1


@contextmanager
def join(device: str, timeout: float, *, shard: bool = False) -> Iterator[World]:
    """The job that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT speak of, as torchrun sets them; else `ALONE`.

    With `shard` each process keeps a part of the weights.  An error inside is raised by the process where it came
    first, and as SystemExit with its exit code by the others.  Raises DistributedError R1 if a process is lost or does
    not come, ResourceError R5 if the port is taken, ConfigError if the environment cannot be right.  Silence of a
    process for `timeout` seconds ends the others, exit code 7 (R2).
    """
    if "RANK" not in os.environ:
        if shard:
            raise ConfigError("L4", "--shard is for several processes", "add --processes, or start it by torchrun")
        yield ALONE
        return
    end_with_launcher()
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    store = meet("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    world = Shards(device) if shard else Ranks()
    beats = Beats(store, world, timeout)
    beats.start()
    try:
        yield world
        world.wait()  # all have come to the end
        beats.end()
        world.wait()  # the store may go: nobody asks it any more
    except BaseException as error:
        beats.end()
        leave(error, store, world)
    dist.destroy_process_group()


def own_device(device: str) -> str:
    """The GPU that this process of a job has for itself.  Raises ConfigError L5 if there is none left."""
    rank = os.environ.get("LOCAL_RANK")
    if device != "cuda" or rank is None:
        return device
    if int(rank) >= torch.cuda.device_count():
        what = f"process {rank} on this machine finds {torch.cuda.device_count()} GPUs"
        raise ConfigError("L5", what, "start one process a GPU")
    return f"cuda:{rank}"


def own_threads() -> int | None:
    """The processors of this machine shared out to a job's processes on it; None in a process of no job."""
    if "RANK" not in os.environ:
        return None
    return max(1, processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def end_with_launcher() -> None:
    """Let the kernel kill this process when its parent ends (R4)."""
    if sys.platform == "linux":
        parent = os.environ.get("CONVATLAS_LAUNCHER", str(os.getppid()))
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if str(os.getppid()) != parent:  # it was quicker
            os._exit(128 + signal.SIGKILL)


def meet(backend: str) -> Store:
    """Wait for the others and make the process group with them; the store that they share."""
    attempt = attempt_of_torchrun()
    said = {name: os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")}
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=PATIENCE)))
        store = PrefixStore(attempt, store)
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        port = said["MASTER_PORT"]
        if "EADDRINUSE" in str(error):
            raise ResourceError("R5", f"port {port} is in use{by(int(port))}", "give another MASTER_PORT") from None
        where = " ".join(f"{name}={value}" for name, value in said.items())
        what = f"with {where} the other processes were not met: {' '.join(str(error).split())}"
        raise DistributedError("R1", what, "start all of them, where they can reach that address") from None
    return store


def attempt_of_torchrun() -> str:
    """Which start this is, if torchrun keeps its store, with all that is in it, from one to the next.

    Raises ConfigError L5 on several hosts: each counts its own restarts only, so the processes would wait in vain.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return ""
    if int(os.environ["GROUP_WORLD_SIZE"]) > 1 and int(os.environ["TORCHELASTIC_MAX_RESTARTS"]) > 0:
        what = "torchrun on several hosts could not start this job again, since it keeps its store"
        raise ConfigError("L5", what, "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on each host before torchrun")
    return os.environ["TORCHELASTIC_RESTART_COUNT"]


def leave(error: BaseException, store: Store, world: World) -> NoReturn:
    """Raise the error if it is the job's first, else SystemExit with the exit code of the first."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends anyway, but not before it has said why
    if isinstance(error, StoppedError):
        try:
            world.wait()  # so that the leading process has saved before a launcher ends all
        except RuntimeError as failure:
            error = failure
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        time.sleep(1)  # a launcher looks every 0.1 s who has ended, and is to see the lost one first
        reason = re.sub(r"^\[\S+\] ", "", str(error)).split(". ")[0]
        what = f"another process of the job was lost at step {world.step}: {reason}"
        error = DistributedError("R1", what, "the same command goes on from the newest checkpoint")
    code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
    first, its_code = first_cause(store, world.rank, code)
    if first != world.rank:
        raise SystemExit(its_code)
    if world.leads and "TORCHELASTIC_RUN_ID" not in os.environ:
        time.sleep(3)  # the store ends with this process, and the others are to read the cause
    if isinstance(error, (DataError, WeightsError, ResourceError)):  # others befall all processes alike
        told = ConvatlasError("R3", f"rank {world.rank}: error[{error.id}]: {error.what}", error.remedy)
        told.exit_code = error.exit_code
        raise told from error
    raise error


def by(port: int) -> str:
    """` by pid N`: the process that listens at a port of this machine, if that can be seen."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in sockets:
                return f" by pid {link.parts[2]}"
        except OSError:  # gone, or somebody else's
            continue
    return ""
