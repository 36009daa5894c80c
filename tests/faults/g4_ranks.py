"""G4: a job of four processes, one of which is killed or stopped at any moment, starts again and ends as if not."""

import contextlib
import os
import random
import shlex
import shutil
import signal
import time
from pathlib import Path

import torch

from convatlas.train.checkpoint import saved
from convatlas.weights import read_tensors

from commands import Server, differences, serving, write_pictures
from tiny import images

GOAL = "G4: a rank of four is killed (each 5th: stopped) at a random moment: all start again, bitwise the same end"
FULL = 25
SHORT = 1
STOPPED = 5  # every 5th trial
SILENCE = 5  # seconds, then a stopped process counts as lost
RESTART = 15  # seconds that a restart may take

TRAINING = shlex.split(
    "--network tiny --size 12 --recipe small --epochs 6 --batch 16 --lr 0.02 --augment small --label-smoothing 0.1 "
    f"--ema 0.9 --threads 1 --save-every 0.2 --processes 4 --timeout {SILENCE}"
)


def run(trials: int, seed: int, folder: Path) -> list[str]:
    """A line for each trial that did not end like the undisturbed run, took too long or left a process."""
    pictures, moments, failures = write_pictures(folder / "pictures", images(120, 0)), random.Random(seed), []
    with serving() as server:
        expected, started = folder / "undisturbed", time.monotonic()
        assert server.run(command(pictures, expected), folder / "output") == 0, (folder / "output").read_text()
        seconds = time.monotonic() - started
        last, before = (read_tensors(path)[0] for path in saved(expected))
        if any(torch.equal(last[name], before[name]) for name in last if name.startswith("net.") and "fc" in name):
            failures.append("the weights stand still, so this test can't fail")
        for number in range(trials):
            how = signal.SIGSTOP if number % STOPPED == STOPPED - 1 else signal.SIGKILL
            rank, wait = moments.randrange(4), moments.uniform(0, 0.6) * seconds
            wrong = trial(server, command(pictures, folder / "run"), folder / "output", how, rank, wait)
            if not wrong:
                wrong = differences(folder / "run", expected)
            if wrong:
                failures.append(f"seed {seed} trial {number} ({how.name} of rank {rank} at {wait:.2f} s): {wrong}")
            shutil.rmtree(folder / "run", ignore_errors=True)
    return failures


def command(pictures: Path, out: Path) -> list[object]:
    return ["train", "--data", pictures, "--out", out, *TRAINING]


def trial(server: Server, argv: list[object], output: Path, how: signal.Signals, rank: int, wait: float) -> list[str]:
    """What went wrong in one run, one of whose processes got a signal."""
    launcher = server.start(argv, output)
    ranks = wait_for_ranks(launcher)
    time.sleep(wait)
    sent = time.monotonic()
    os.kill(ranks[rank], how)
    restarted = None
    while restarted is None and alive(launcher):
        time.sleep(0.02)
        if "batches of " in output.read_text().partition("all start again")[2]:
            restarted = time.monotonic() - sent
            ranks += wait_for_ranks(launcher)
    code, printed = server.wait(), output.read_text()
    wrong = [] if code == 0 else [f"exit code {code}: {printed}"]
    if restarted is None:
        wrong.append(f"no restart: {printed}")
    elif restarted > RESTART + (SILENCE + 5 if how == signal.SIGSTOP else 0):
        wrong.append(f"the restart took {restarted:.1f} s")
    if how == signal.SIGSTOP and f"error[R2]: rank {rank} (pid {ranks[rank]} on " not in printed:
        wrong.append(f"rank {rank} is not named: {printed}")
    return wrong + [f"process {pid} is left" for pid in ranks if alive(pid)]


def wait_for_ranks(launcher: int) -> list[int]:
    """The ids of its four processes, in the order of their ranks."""
    while True:
        ranks = sorted(map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()))
        if len(ranks) == 4:
            return ranks
        time.sleep(0.01)


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
