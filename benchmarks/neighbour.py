"""What one competing busy process costs a training run, by how OpenMP's threads wait and how many there are.

    python benchmarks/neighbour.py [--rounds 5] [--out results/neighbour.json]

Training steps of ResNet-20, timed by the clock, alone and beside a process that never rests, turn by turn.  The fair
slow-down is what an even share of the processor costs: on 2 cores, 3 threads on 2 cores, so 1.5 for 2 threads.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

BUSY = "while True: pass"
SETTINGS: dict[str, dict[str, str]] = {
    "torch's default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OURS = "OMP_WAIT_POLICY=PASSIVE"  # what the `convatlas` command sets
STEPS, BATCH = 4, 64


def work() -> None:
    """Makes `STEPS` steps for each line that comes in, and prints the seconds of one."""
    import torch

    from convatlas import create

    from step import stepper

    net = create("resnet20").to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    step = stepper(net, images, torch.randint(0, 10, (BATCH,)))
    for _ in range(2 * STEPS):
        step()
    for _ in sys.stdin:
        print(sum(step() for _ in range(STEPS)) / STEPS, flush=True)


class Training:
    """A process that makes steps when asked."""

    def __init__(self, setting: dict[str, str]):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
        program = [sys.executable, __file__, "--work"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(program, env=inherited | setting, stdin=pipe, stdout=pipe, text=True)

    def seconds(self) -> float:
        """Of one step."""
        assert self.process.stdin
        assert self.process.stdout
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def measure(setting: str, rounds: int) -> dict[str, Any]:
    """The row of one setting."""
    training, alone, beside = Training(SETTINGS[setting]), [], []
    training.seconds()
    for _ in range(rounds):
        alone.append(training.seconds())
        neighbour = subprocess.Popen([sys.executable, "-c", BUSY])
        beside.append(training.seconds())
        neighbour.kill()
        neighbour.wait()
    training.process.kill()
    training.process.wait()
    ratios = sorted(b / a for a, b in zip(alone, beside, strict=True))
    return {
        "setting": setting,
        "alone_ms": round(1000 * statistics.median(alone), 1),
        "beside_ms": round(1000 * statistics.median(beside), 1),
        "slow_down": round(statistics.median(ratios), 2),
        "spread": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.work:
        return work()
    rows = []
    for setting in SETTINGS:
        rows.append(measure(setting, o.rounds))
        print(json.dumps(rows[-1]), flush=True)
    if o.out:
        from convatlas.train.run import environment

        what = {"command": f"python benchmarks/neighbour.py --rounds {o.rounds}", "environment": environment()}
        o.out.write_text(json.dumps(what | {"rows": rows}, indent=1) + "\n", "utf-8")
    return None


if __name__ == "__main__":
    main()
