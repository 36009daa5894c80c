"""The bar and TensorBoard: what they show, and that a lost log never costs the training (T10)."""

import io
import shutil
import warnings
from contextlib import nullcontext

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convatlas.train.loop import train
from convatlas.train.progress import Bar, Reading, noted_warnings
from convatlas.train.run import Run

from tiny import same, task


class Disturbed(Bar):
    """A bar during whose run something happens after an epoch."""

    def __init__(self, console, folder, after, disturb):
        super().__init__(console, folder)
        self.after, self.disturb = after, disturb

    def epoch(self, row, best):
        super().epoch(row, best)
        if row["epoch"] == self.after:
            self.disturb()


def run(folder, after=0, disturb=lambda: None):
    """A training with a bar; its bundle and all that was printed."""
    output = io.StringIO()
    bar = Disturbed(Console(file=output, width=200), folder, after, disturb)
    try:
        bundle, _, _ = train(task(), Run(folder), bar)
    finally:
        bar.end()
    return bundle, output.getvalue()


def test_every_epoch_has_a_line_and_its_scalars(tmp_path):
    bundle, printed = run(tmp_path)
    assert [line.split()[:2] for line in printed.strip().splitlines()] == [
        ["epoch", "1"],
        ["epoch", "2"],
        ["epoch", "3"],
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"lr", "train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    assert [event.step for event in events.Scalars("val/accuracy")] == [1, 2, 3]
    last = events.Scalars("val/accuracy")[-1].value
    assert last == pytest.approx(bundle.metrics["val"]["val_accuracy"])


def test_a_run_that_goes_on_says_so_and_notes_what_it_passed_over(tmp_path):
    run(tmp_path)
    newest = sorted(tmp_path.glob("checkpoint-*"))[-1]
    newest.write_bytes(b"")
    _, printed = run(tmp_path)
    assert f"{newest} is not a whole safetensors file" in printed.replace("\n", " ")
    assert "going on at step 10 of 15" in printed
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val/loss")] == [1, 2, 3]  # the third of the second time


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_tensorboard_folder_that_is_blocked_costs_a_warning_and_nothing_else(tmp_path, after):
    board = tmp_path / "run/tensorboard"

    def block():
        shutil.rmtree(board, ignore_errors=True)
        board.parent.mkdir(exist_ok=True)
        board.write_text("in the way")

    if after == 0:
        block()
    lost = pytest.warns(UserWarning, match="TensorBoard's log is given up: ") if after < 3 else nullcontext()
    with lost as warned:
        bundle, printed = run(tmp_path / "run", after, block)
    assert warned is None or len(warned) == 1
    assert same(bundle.weights, run(tmp_path / "undisturbed")[0].weights)
    assert printed.count("epoch ") == 3
    assert board.read_text() == "in the way"


def test_warnings_are_noted_and_shown():
    with pytest.warns(UserWarning, match="what is wrong") as shown, noted_warnings() as noted:
        warnings.warn("what is wrong", UserWarning, stacklevel=1)
    assert noted == [str(warning.message) for warning in shown] == ["what is wrong"]


def test_reading_shows_and_clears_itself():
    output = io.StringIO()
    reading = Reading(Console(file=output, force_terminal=True, width=80))
    for done in (64, 128):
        reading(done, 128)
    assert "reading" in output.getvalue()
    assert not reading.progress.live.is_started
