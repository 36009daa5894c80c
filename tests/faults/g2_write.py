"""Faults at every point of the artefact writer: a verified state is always left, and no success is claimed in vain.

Most trials save a small state by itself; one in twelve is the command `convatlas train` on a folder of pictures.
"""

import itertools
import json
import multiprocessing
import os
import random
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import sklearn.model_selection
import torch
import torch.utils.tensorboard.writer

import convatlas.report.page
from convatlas import files
from convatlas.cli import main
from convatlas.errors import ConvatlasError
from convatlas.train import checkpoint
from convatlas.train.checkpoint import Saver
from convatlas.train.loop import begin
from convatlas.train.run import Run, png
from convatlas.train.task import Machine
from convatlas.weights import read_tensors

from tiny import Tiny, images, task

GOAL = "G2: a fault at every point of the artefact writer leaves a verified state and is never taken for success"
POINTS = ("open", "write", "flush", "fsync", "rename", "dirsync", "reread", "done")
FAULTS = [("kill", ""), *itertools.product(("ENOSPC", "EIO", "EDQUOT", "EACCES"), ("", "+"))]
CASES = [(point, *fault) for point in POINTS for fault in FAULTS]
random.Random(0).shuffle(CASES)
WHOLE = 12  # trials, one of which is a whole command
SHORT, FULL = 24, WHOLE * len(CASES)  # so that each case is once a whole command
PRELOADED = (matplotlib.figure, sklearn.model_selection, torch.utils.tensorboard.writer, convatlas.report.page)
SAVES = 5
WRITES = 2 + 4 * SAVES  # of a small run: probe, run.json, and for each save best, two logs, checkpoint
COMMAND = ["train", "--network", "resnet20", "--recipe", "small", "--epochs", "2", "--batch", "16", "--threads", "1"]
COMMAND_WRITES = 20  # at least: of a command; half of them while it trains


def run(trials: int, seed: int, folder: Path) -> list[str]:
    """A line for each trial that lost or tore something, or ended well when it should not have."""
    torch.set_num_threads(1)  # forked processes can't start OpenMP's threads again
    data, undisturbed, failures = folder / "pictures", folder / "undisturbed", []
    for trial in range(trials):
        draw = random.Random(f"{seed} {trial}")
        point, error, lasting = CASES[trial % len(CASES)]
        whole = (trial + trial // len(CASES)) % WHOLE == 0
        if whole and not data.exists():
            draw_pictures(data)
            assert process(lambda: train(data, undisturbed), "", folder / "output") == 0
        number = draw.randint(1, COMMAND_WRITES if whole else WRITES)
        fault, place = f"{error}@{point}:{number}{lasting}", folder / f"{trial}"
        wrong = disturbed_command(data, place, undisturbed, fault) if whole else disturbed_saves(place, fault)
        failures += [f"seed {seed}, trial {trial}, {fault}{', whole command' * whole}: {what}" for what in wrong]
    return failures


def disturbed_saves(folder: Path, fault: str) -> list[str]:
    """What is wrong after a run with the fault, and after its next start without."""
    folder.mkdir()
    done, run = folder / "done", folder / "run"
    code = process(lambda: save_all(run, done), fault, folder / "output")
    acknowledged = int(done.read_text() or 0) if done.exists() else 0
    wrong = misjudged(code, fault) + torn(run)
    states = {path.name: read_tensors(path) for path in checkpoint.saved(run)} if not wrong else {}
    if not wrong and max((record["step"] for _, record in states.values()), default=0) < acknowledged:
        wrong.append(f"step {acknowledged} was acknowledged, but there is {list(states)}")
    if any((tensors["net.head.fc.bias"] != record["step"]).any() for tensors, record in states.values()):
        wrong.append("a state holds the numbers of another step")
    if code == 0 and acknowledged < SAVES:
        wrong.append(f"success, but {acknowledged} of {SAVES} saved")
    if process(lambda: save_all(run, done), "", folder / "output") != 0:
        return [*wrong, f"the next start fails: {(folder / 'output').read_text()}"]
    older = [path.name for path in checkpoint.saved(run)[1:]]
    names = {path.name for path in run.rglob("*")} - {*older}
    expected = {"best.safetensors", f"checkpoint-{SAVES:08}.safetensors", "log.csv", "log.jsonl", "run.json"}
    if names != expected or len(older) > 1:
        wrong.append(f"left over or missing: {older} and {sorted(names ^ expected)}")
    return wrong + torn(run)


def save_all(folder: Path, done: Path) -> int:
    """A run that saves five states, or goes on to; it notes in `done` which save has returned."""
    files.WAITS = (0, 0, 0)
    warnings.simplefilter("ignore")
    run, state = Run(folder), begin(task(arch=Tiny()), Machine())
    run.open({}, {})
    checkpoint.restore(state, folder)
    saver = Saver(run)
    while state.step < SAVES:
        state.step += 1
        with torch.no_grad():
            for tensor in state.net.parameters():
                tensor.fill_(state.step)
        saver.keep(state.net.state_dict(), {"epoch": state.step})
        saver.save(state, last=state.step == SAVES)
        if not saver.failed:
            done.write_text(str(state.step))
    run.close()
    return 0


def disturbed_command(data: Path, folder: Path, undisturbed: Path, fault: str) -> list[str]:
    """What is wrong after the command with the fault, and after the same command without."""
    folder.mkdir()
    run, output = folder / "run", folder / "output"
    code = process(lambda: train(data, run), fault, output)
    wrong = misjudged(code, fault) + torn(run)
    if "Traceback" in output.read_text():
        wrong.append(output.read_text())
    if process(lambda: train(data, run), "", output) != 0:
        return [*wrong, f"the next start fails: {output.read_text()}"]
    names, expected = ({str(path.relative_to(f)) for path in f.rglob("*[!0-9]")} for f in (run, undisturbed))
    before_last = {path.name for path in checkpoint.saved(undisturbed)[1:]}  # its save may have failed, with a warning
    if not expected - before_last <= names <= expected:
        wrong.append(f"left over or missing: {sorted(names ^ expected)}")
    for name in ("model.safetensors", "best.safetensors", "log.csv", "test.jsonl"):
        if (run / name).read_bytes() != (undisturbed / name).read_bytes():
            wrong.append(f"{name} is another")
    return wrong


def train(data: Path, out: Path) -> int:
    """The command."""
    files.WAITS = (0, 0, 0)
    return main([*COMMAND, "--data", str(data), "--out", str(out)])


def misjudged(code: int | None, fault: str) -> list[str]:
    """Whether a process ended as it must not: killed ones by the signal, lasting errors with exit code 6."""
    allowed = {-9} if fault.startswith("kill") else {6} if fault.endswith("+") else {0, 6}
    return [] if code in allowed else [f"exit code {code}"]


def torn(folder: Path) -> list[str]:
    """Files under a final name that are not whole."""
    lines = []
    for path in (p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".part") and p.name != "lock"):
        try:
            if path.suffix == ".safetensors":
                read_tensors(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".jsonl":
                [json.loads(line) for line in path.read_text().splitlines()]
        except (ConvatlasError, ValueError) as error:
            lines.append(f"{path.name} is torn: {error}")
    return lines


def draw_pictures(folder: Path) -> None:
    """48 of them, in three classes."""
    pictures = images(48, 0)
    for index in range(len(pictures)):
        pixels, label = pictures[index]
        files.write_bytes(folder / pictures.classes[label] / f"{index}.png", png(pixels))


def process(action: Callable[[], int], fault: str, output: Path) -> int | None:
    """The exit code of `action` in a process with the fault; minus the signal that killed it; None if it hangs."""

    def child() -> None:
        os.environ["CONVATLAS_FAULT"] = fault
        with output.open("w") as sys.stdout:
            sys.stderr = sys.stdout
            try:
                code = action()
            except ConvatlasError as error:
                print(error)
                code = error.exit_code
            except BaseException:
                traceback.print_exc()
                code = 1
        os._exit(code)

    forked = multiprocessing.get_context("fork").Process(target=child)
    forked.start()
    forked.join(120)
    code = forked.exitcode
    forked.kill()
    return code
