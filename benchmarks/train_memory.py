"""Peak memory and time of a training step with recomputation against the plain one, on this machine's CPU.

    python benchmarks/train_memory.py [--network densenet121 --where 'block*' --batch 16] [--rounds 5] [--out FILE]

The peak is the most bytes of tensors born in one step that are alive at once.  That of the process is the growth of
its resident set over two steps, in a process of its own.  Time is the median over the rounds of the ratio of
neighbouring steps in one process, in seconds that the processor worked for it, with one thread.
"""

import argparse
import json
import multiprocessing
import re
import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from convatlas import cost, create, recompute, spec
from convatlas.train.memory import keep_freed_memory
from convatlas.train.run import environment

from step import stepper

MIB = 2**20
CASES = [
    ("densenet121", "block*", 16),
    ("densenet_bc100_k12", "block*", 64),
    ("preact_resnet1001", "stage[12].*", 32),
    ("resnet1001", "stage[12].*", 32),
]


def stepper_of(network: str, where: str, batch: int) -> Callable[[], float]:
    """The step of a network, recomputing what the pattern `where` names; "" is the plain network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arch, net = spec(network), create(network).to(memory_format=torch.channels_last)
    images = torch.randn(batch, arch.in_channels, arch.size, arch.size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, arch.classes, (batch,))
    return stepper(recompute(net, where) if where else net, images, labels, time.process_time)


class Watch(TorchDispatchMode):
    """The most bytes of tensors born in this mode that were alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.alive = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in self.alive | given:
                storage = t.untyped_storage()
                self.alive.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.drop, storage._cdata, storage.nbytes())
        return out

    def drop(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def peak(network: str, where: str, batch: int) -> float:
    """MiB of tensors at the peak of a training step."""
    step = stepper_of(network, where, batch)
    with Watch() as watch:
        step()
    return watch.peak / MIB


def growth(network: str, where: str, batch: int) -> float:
    """MiB by which two training steps raise the peak of this process."""
    keep_freed_memory()
    stepper_of("resnet20", "", 2)()  # what torch sets up once
    step = stepper_of(network, where, batch)
    before = high_water()
    for _ in range(2):
        step()
    return high_water() - before


def high_water() -> float:
    """MiB of this process's largest resident set, as Linux tells it."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def time_ratios(network: str, where: str, batch: int, rounds: int) -> list[float]:
    """Seconds with recomputation / seconds without, of neighbouring steps, in rising order."""
    keep_freed_memory()
    plain, recomputed = stepper_of(network, "", batch), stepper_of(network, where, batch)
    ratios = [recomputed() / plain() for _ in range(rounds + 1)]
    return sorted(ratios[1:])


def in_a_process(function: Callable, *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def kept(network: str, where: str, batch: int) -> float:
    """MiB that a forward pass leaves for the backward pass, as `cost` computes it."""
    net, arch = spec(network).skeleton(), spec(network)
    return batch * cost(recompute(net, where) if where else net, arch.size, arch.in_channels).saved / MIB


def measure(network: str, where: str, batch: int, rounds: int) -> dict[str, Any]:
    """The row of one case."""
    row: dict[str, Any] = {"network": network, "input": spec(network).size, "batch": batch, "recomputed": where}
    for name, function in (("kept", kept), ("peak", peak), ("process", growth)):
        plain, recomputed = (in_a_process(function, network, w, batch) for w in ("", where))
        row |= {f"{name}_plain_mb": round(plain), f"{name}_mb": round(recomputed),
                f"{name}_ratio": round(recomputed / plain, 3)}  # fmt: skip
    ratios = in_a_process(time_ratios, network, where, batch, rounds)
    spread = [round(ratios[0], 3), round(ratios[-1], 3)]
    return row | {"time_ratio": round(statistics.median(ratios), 3), "spread": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network")
    parser.add_argument("--where")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    rows = []
    for case in [(o.network, o.where, o.batch)] if o.network else CASES:
        rows.append(measure(*case, o.rounds))
        print(json.dumps(rows[-1]), flush=True)
    if o.out:
        what = {"command": f"python benchmarks/train_memory.py --rounds {o.rounds}", "environment": environment()}
        o.out.write_text(json.dumps(what | {"rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
