"""Rows for many inputs in one file that appears when it is whole; whatever ends the work, the same command goes on.

Until then they lie beside it in pieces, `results.csv.partial/FIRST-END-ERRORS.SHA256`, each written by the one artefact
writer.  A piece whose content is not that of its name is as good as none.
"""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..data.decode import shown
from ..errors import ConfigError, ResourceError, explain
from ..weights.bundle import model_file
from ..weights.store import read_bytes
from .inputs import Inputs
from .model import Model
from .predict import Prediction, predict_inputs
from .rows import Table

SECONDS, ROWS = 2.0, 4096  # after which a piece is complete
LOCK, ABOUT = "lock", "about.json"
AGAIN = "the same command goes on"

Span = range
Made = tuple[Span, int, bytes]
"""The inputs of a piece, how many of them have an error, and its bytes."""


@dataclass(frozen=True, order=True)
class Piece:
    """A file of rows: of inputs `start` to `stop`, of which so many have an error, with this sha256."""

    start: int
    stop: int
    failed: int
    sha256: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.start:010}-{self.stop:010}-{self.failed}.{self.sha256}"

    @staticmethod
    def of(name: str) -> "Piece | None":
        """The piece of a file's name, if it is the name of one."""
        found = re.fullmatch(r"(\d+)-(\d+)-(\d+)\.([0-9a-f]{64})", name)
        return found and Piece(int(found[1]), int(found[2]), int(found[3]), found[4])


@dataclass(frozen=True)
class Partial:
    """The pieces of `out`, of `count` rows, that are there.  Who uses it must hold `lock`."""

    out: Path
    table: Table
    count: int

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def lock(self) -> Path:
        """The file that says who writes here."""
        return self.folder / LOCK

    def claim(self, about: dict[str, Any]) -> None:
        """Note what the rows are of, JSON-able, or see that it is the same as before, and tidy up.

        Raises ConfigError L4 if the folder holds rows of something else, L2 if `out` is a folder.
        """
        if self.out.is_dir():
            raise ConfigError("L2", f"{shown(self.out)} is a folder", "give another --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        files.sweep(self.folder)
        note = self.folder / ABOUT
        content = json.dumps(about, indent=1)
        if note.exists():
            before = note.read_text("utf-8")
            if before != content:
                what = f"{shown(self.folder)} holds rows of {_difference(before, about)}"
                raise ConfigError("L4", what, "give the command that began it or another --out, or remove the folder")
        elif others := [path.name for path in self.folder.iterdir() if path.name != LOCK]:
            what = f"{shown(self.folder)} is not of convatlas: it holds {shown(others[0])}"
            raise ConfigError("L4", what, "give another --out, or move the folder away")
        else:
            files.write_text(note, content)

    def pieces(self) -> list[Piece]:
        """The whole ones, in order; others are removed, and of two for the same input one."""
        found, end = [], 0
        for piece in sorted(piece for path in self.folder.iterdir() if (piece := Piece.of(path.name))):
            if piece.start >= end and self._is_whole(piece):
                found.append(piece)
                end = piece.stop
            else:
                (self.folder / piece.name).unlink()
        return found

    def write(self, made: Made) -> Piece:
        """Keep a piece.  Raises ResourceError C2 if it cannot be written."""
        span, failed, content = made
        piece = Piece(span.start, span.stop, failed, hashlib.sha256(content).hexdigest())
        files.write_bytes(self.folder / piece.name, content)
        return piece

    def read(self, piece: Piece) -> bytes:
        """Raises ResourceError C4 if it is no longer what was written."""
        path = self.folder / piece.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ResourceError("C4", f"cannot read {shown(path)}: {explain(error)}", AGAIN) from error
        if hashlib.sha256(content).hexdigest() != piece.sha256:
            raise ResourceError("C4", f"{shown(path)} has changed", AGAIN)
        return content

    def finish(self, pieces: Sequence[Piece]) -> None:
        """Make `out` of all pieces, and leave nothing but the lock.  Raises ResourceError C2."""
        whole = self.folder / "whole"  # here, where what a killed writer leaves is swept
        files.write_pieces(whole, self.table.join([lambda piece=piece: self.read(piece) for piece in pieces]))
        try:
            whole.replace(self.out)
            for name in (*(piece.name for piece in pieces), ABOUT):  # the note last: without it they are strangers'
                (self.folder / name).unlink()
        except OSError as error:
            what = f"cannot write {shown(self.out)}: {explain(error)}"
            raise ResourceError("C2", what, f"make it writable; {AGAIN}") from error

    def _is_whole(self, piece: Piece) -> bool:
        try:
            self.read(piece)
        except ResourceError:
            return False
        return True


def write_rows(partial: Partial, make: Callable[[list[Span]], Iterable[Made]]) -> Generator[tuple[int, int]]:
    """Have `make` make the rows that are not there yet, and in the end the file.

    Yields how many rows, and errors among them, there are so far: at once and after each piece.  To stop, ask no more.
    """
    pieces = partial.pieces()
    done, failed = sum(piece.stop - piece.start for piece in pieces), sum(piece.failed for piece in pieces)
    yield done, failed
    spans = gaps(pieces, partial.count)
    for made in make(spans) if spans else ():
        piece = partial.write(made)
        pieces.append(piece)
        done, failed = done + piece.stop - piece.start, failed + piece.failed
        yield done, failed
    partial.finish(sorted(pieces))


def gaps(pieces: Sequence[Piece], count: int) -> list[Span]:
    """What pieces in order leave of 0..count-1."""
    ends = [0, *(piece.stop for piece in pieces)]
    starts = [*(piece.start for piece in pieces), count]
    return [Span(end, start) for end, start in zip(ends, starts, strict=True) if end < start]


def make_here(
    spans: Iterable[Span], *, model: Model, inputs: Inputs, table: Table, batch: int, workers: int | None
) -> Iterator[Made]:
    """The pieces of these spans, made by this process; a piece is of whole batches and of about `SECONDS`."""
    for span in spans:
        rows = predict_inputs(
            model, inputs, span, top=table.top, probabilities=table.probabilities, batch=batch, workers=workers
        )
        with contextlib.closing(rows):
            start = span.start
            for group in in_time(rows, batch):
                yield encoded(table, start, group)
                start += len(group)


def in_time(rows: Iterable[Prediction], batch: int) -> Iterator[list[Prediction]]:
    """The rows in groups of whole batches, as many as come within `SECONDS`."""
    held, began = [], time.monotonic()
    for row in rows:
        held.append(row)
        if len(held) % batch == 0 and (len(held) >= ROWS or time.monotonic() - began > SECONDS):
            yield held
            held, began = [], time.monotonic()
    if held:
        yield held


def encoded(table: Table, start: int, rows: Sequence[Prediction]) -> Made:
    """A piece of rows, the first of which is of input `start`."""
    failed = sum(row.error is not None for row in rows)
    return Span(start, start + len(rows)), failed, table.encode(rows)


def about(model_path: str, inputs: Inputs, table: Table, features: str | None) -> dict[str, Any]:
    """What decides on the content of every row."""
    return {
        "model": hashlib.sha256(read_bytes(model_file(model_path))).hexdigest(),
        "inputs": inputs.digest(),
        "count": len(inputs),
        "top": table.top,
        "probabilities": table.probabilities,
        "features": features,
        "csv_safe": table.safe,
    }


def _difference(before: str, now: dict[str, Any]) -> str:
    try:
        was = json.loads(before)
        return "other " + ", ".join(key for key in now if was.get(key) != now[key])
    except (ValueError, AttributeError):
        return "who knows what"
