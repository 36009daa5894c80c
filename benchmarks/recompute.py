"""Memory and time of a training step with recomputation against the plain one, on this machine's CPU.

    python benchmarks/recompute.py [--network densenet_bc100_k12] [--batch 64] [--rounds 5]

Kept is what a forward pass leaves for the backward pass, as `cost` computes it.  The peak is the most bytes of tensors
born in one step that are alive at once, and, for the process, the growth of its resident set over two steps.  Time is
the median over the rounds of the ratio of neighbouring steps in one process.  Prints a Markdown table.
"""

import argparse
import multiprocessing
import os
import re
import statistics
import weakref
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from convatlas import cost, create, recompute, spec

from step import stepper

MIB = 2**20


def stepper_of(network: str, where: str, batch: int):
    """The step of a network, recomputing what the pattern `where` names; "" is the plain network."""
    torch.manual_seed(0)
    net, arch = create(network), spec(network)
    images = torch.randn(batch, arch.in_channels, arch.size, arch.size)
    return stepper(recompute(net, where) if where else net, images, torch.randint(0, arch.classes, (batch,)))


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

    def drop(self, key, size):
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
    stepper_of("resnet20", "", 2)()  # what torch sets up once
    step = stepper_of(network, where, batch)
    before = high_water()
    for _ in range(2):
        step()
    return high_water() - before


def high_water() -> float:
    """MiB of this process's largest resident set, as Linux tells it."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def in_a_process(*arguments) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(growth, arguments)


def saved(network: str, where: str) -> int:
    net, arch = spec(network).skeleton(), spec(network)
    return cost(recompute(net, where) if where else net, arch.size, arch.in_channels).saved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="densenet_bc100_k12")
    parser.add_argument("--where", nargs="+", default=["block*", "*"], help="patterns of what is recomputed")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    o = parser.parse_args()
    print(f"{o.network}, batch {o.batch}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{o.rounds} rounds after 1 of warm-up\n")  # fmt: skip
    choices = ["", *o.where]
    kept = [o.batch * saved(o.network, where) / MIB for where in choices]
    peaks = [peak(o.network, where, o.batch) for where in choices]
    processes = [in_a_process(o.network, where, o.batch) for where in choices]
    steps = [stepper_of(o.network, where, o.batch) for where in choices]
    rounds = [[step() for step in steps] for _ in range(o.rounds + 1)][1:]
    print("| recomputed | kept for the backward pass | peak of tensors | peak of the process | time |")
    print("|---|---:|---:|---:|---:|")
    for i, where in enumerate(choices):
        ratios = sorted(seconds[i] / seconds[0] for seconds in rounds)
        memory = [f"{m[i]:,.0f} MiB (1/{m[0] / m[i]:.1f})" for m in (kept, peaks, processes)]
        seconds = f"x {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print("|", " | ".join([f"`{where}`" if where else "nothing", *memory, seconds]), "|")


if __name__ == "__main__":
    main()
