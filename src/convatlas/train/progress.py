"""What a person sees while a network trains: a bar with rate and remaining time, and a line for each epoch."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .checkpoint import State


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """The warnings that are given within it; they are shown as ever."""
    noted, show = [], warnings.showwarning

    def note(message: Warning | str, *where: Any, **more: Any) -> None:
        noted.append(str(message))
        show(message, *where, **more)

    warnings.showwarning = note
    try:
        yield noted
    finally:
        warnings.showwarning = show


class Rate(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        """The mean since training started or went on."""
        seconds = task.elapsed or 0
        return Text(f"{task.fields['images'] / seconds:,.0f} images/s" if seconds else "")


class Reading:
    """Shows how much has been read so far, for whoever opens data."""

    def __init__(self, console: Console):
        self.progress = Progress(TextColumn("reading"), BarColumn(), MofNCompleteColumn(), console=console,
                                 transient=True)  # fmt: skip
        self.task: Any = None

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` folders or files, and later images, have been read."""
        if self.task is None:
            self.task = self.progress.add_task("", total=total)
            self.progress.start()
        self.progress.update(self.task, completed=done)
        if done == total:
            self.progress.stop()
            self.progress.remove_task(self.task)
            self.task = None


class Bar:
    """A `Watcher` that writes to a console, and scalars to TensorBoard if it is installed."""

    def __init__(self, console: Console, folder: Any = None):
        self.console, self.folder = console, folder
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            Rate(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.task: Any = None
        self.images = 0
        self.board: Any = None
        self.shown = 0.0

    def begin(self, state: State, total: int, notes: list[str]) -> None:
        """Training starts, or goes on, at `state.step` of `total`."""
        for note in notes:
            self.console.print(f"[yellow]warning:[/] {note}", highlight=False)
        if state.step:
            self.console.print(f"going on at step {state.step} of {total}")
        self.task = self.progress.add_task("", total=total, completed=state.step, epoch=1, loss=0.0, images=0)
        self.progress.start()
        self._open_board(len(state.history) + 1)

    def step(self, state: State, total: int, images: int) -> None:
        """A step is done."""
        self.images += images
        if time.monotonic() - self.shown > 0.2:
            self.shown = time.monotonic()
            loss = state.sums["loss"] / max(1, state.sums["seen"])
            epoch = len(state.history) + 1
            self.progress.update(self.task, completed=state.step, epoch=epoch, loss=loss, images=self.images)

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """An epoch is done and validated."""
        self.console.print(
            f"epoch {row['epoch']:3}  lr {row['lr']:.4f}  train loss {row['train_loss']:.4f} "
            f"accuracy {row['train_accuracy']:7.2%}  val loss {row['val_loss']:.4f} "
            f"accuracy {row['val_accuracy']:7.2%}{'  best' if best else ''}",
            highlight=False,
        )
        scalars = {name.replace("_", "/", 1): value for name, value in row.items() if name != "epoch"}
        with self._losing_only_the_log():
            if self.board is not None:
                self.board.add(row["epoch"], scalars)

    def end(self) -> None:
        """Take the bar away."""
        self.progress.stop()

    def _open_board(self, epoch: int) -> None:
        with self._losing_only_the_log(), suppress(ImportError):  # TensorBoard is optional
            from .board import Board

            self.board = Board(self.folder / "tensorboard", epoch) if self.folder else None

    @contextmanager
    def _losing_only_the_log(self) -> Iterator[None]:
        """A log that can't be written is given up with a warning: that is no reason to lose the training."""
        try:
            yield
        except OSError as error:
            self.board = None
            warnings.warn(f"TensorBoard's log is given up: {error}", stacklevel=2)
