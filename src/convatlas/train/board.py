"""Scalars for TensorBoard, in the files that it reads.  ImportError if it is not installed.

torch's SummaryWriter writes from a thread of its own, which prints a traceback when it fails, and says so only later.
"""

import os
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]  # made at run time
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboard.summary.writer.record_writer import RecordWriter


class Board:
    """Writes scalars as they come.  Raises OSError if the folder can't be written."""

    def __init__(self, folder: Path, epoch: int):
        """What other files of the folder hold of `epoch` and later ones is void."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{epoch:010}.{os.getpid()}"  # read in the order of their names
        self._write(file_version="brain.Event:2")
        self._write(step=epoch, session_log=SessionLog(status=SessionLog.START))

    def add(self, epoch: int, scalars: dict[str, float]) -> None:
        """The scalars of an epoch, by tag."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step=epoch, summary=Summary(value=values))

    def _write(self, **content: Any) -> None:
        with self.path.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time.time(), **content).SerializeToString())
