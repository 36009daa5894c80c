"""Scalars for TensorBoard, in the files that it reads."""

import os
import time
from pathlib import Path
from typing import Any


class Board:
    """Writes scalars as they come, from this thread.  (torch's SummaryWriter does so from another, which prints a
    traceback when it fails, and says so only later.)

    Raises ImportError without TensorBoard, OSError if the folder can't be written.
    """

    def __init__(self, folder: Path, epoch: int):
        """What other files of the folder hold of `epoch` and later ones is void."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{epoch:010}.{os.getpid()}"  # read in the order of their names
        self._write(file_version="brain.Event:2")
        self._write(step=epoch, session_log=SessionLog(status=SessionLog.START))

    def add(self, epoch: int, scalars: dict[str, float]) -> None:
        """The scalars of an epoch, by tag."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step=epoch, summary=Summary(value=values))

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self.path.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time.time(), **content).SerializeToString())
