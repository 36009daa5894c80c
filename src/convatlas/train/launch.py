"""Starting the processes of a job on this machine, and starting them again if one of them is lost."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..errors import DistributedError

RESTARTS = 3
STOPS = (signal.SIGINT, signal.SIGTERM)


def launch(rank: Callable[[Any], int], args: Any, processes: int, *, fork: bool) -> int:
    """Call `rank(args)` in as many processes, each with the environment that torchrun would give it; the exit code.

    All start again, at most three times, when one was killed or hung, but not after an error that would come again.
    With `fork` they need not import anything; torch must not have computed in this process before, nor used a GPU.

    Raises DistributedError R1 if the restarts do not help.
    """
    os.environ["CONVATLAS_LAUNCHER"] = str(os.getpid())
    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes themselves tell what is wrong
    lost = ""
    for attempt in range(1 + RESTARTS):
        if attempt:
            print(f"warning: {lost}; all start again ({attempt} of {RESTARTS})", file=sys.stderr, flush=True)
        code, lost = launch_once(rank, args, processes, fork)
        if not lost:
            return code
    raise DistributedError("R1", f"{lost}, after {RESTARTS} restarts", "look for what kills it (memory?)")


def launch_once(rank: Callable[[Any], int], args: Any, processes: int, fork: bool) -> tuple[int, str]:
    """The exit code, and who was lost, if that is why it ended."""
    try:
        elastic_launch(configuration(processes, fork), begin)(rank, args)
    except SignalException as stop:
        return 128 + stop.sigval, ""
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        code = failure.exitcode
        if -code in STOPS:
            return 128 - code, ""
        if code < 0:
            return code, f"rank {number} was killed by signal {-code}"
        return code, "a process was lost" if code == DistributedError.exit_code else ""
    return 0, ""


def configuration(processes: int, fork: bool) -> LaunchConfig:
    """One machine, any free port; restarts are decided here, since torch's agent would repeat any error."""
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"convatlas-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork" if fork else "spawn",
    )


def begin(rank: Callable[[Any], int], args: Any) -> None:
    """What a process does first: leave the terminal's group, for the launcher passes Ctrl-C on, and its handlers."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    try:
        code = rank(args)
    except Exception:  # a fault of ours; torch would keep it to itself
        traceback.print_exc()
        code = 1
    sys.exit(code)
