"""Rows as CSV, JSON lines or Parquet: some of them as the bytes of a piece, and pieces joined to a whole file."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.sharding import Sink
from ..errors import ConfigError, library
from .predict import Prediction

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a cell of a spreadsheet begins to compute
GROUP_BYTES = 32 << 20  # of a row group

Pieces = Sequence[Callable[[], bytes]]
"""Each gives the bytes of a piece, whenever asked."""


@dataclass(frozen=True)
class Table:
    """Which columns there are.

    form: csv, jsonl or parquet
    classes: all of the model's
    top: how many of them a row tells
    probabilities: whether it tells the probability of every class
    features: how many features it tells
    safe: whether cells that a spreadsheet would compute get an apostrophe before them
    """

    form: str
    classes: tuple[str, ...]
    top: int
    probabilities: bool = False
    features: int = 0
    safe: bool = False

    def encode(self, rows: Sequence[Prediction]) -> bytes:
        """Some rows as the bytes of a piece."""
        return ENCODERS[self.form](self, rows)

    def join(self, pieces: Pieces) -> Iterable[bytes | memoryview]:
        """The bytes of the whole file, which can be asked for more than once."""
        return JOINERS[self.form](self, pieces)


def form_of(path: str) -> str:
    """The form that a file's name asks for.  Raises ConfigError L2 for another, ResourceError without pyarrow."""
    form = path.rpartition(".")[2].lower()
    if form not in ENCODERS:
        raise ConfigError(
            "L2", f"--out {path}", f"give a name that ends in {', '.join(f'.{name}' for name in ENCODERS)}"
        )
    if form == "parquet":
        library("pyarrow", "parquet")
    return form


def to_jsonl(table: Table, rows: Sequence[Prediction]) -> bytes:
    """A JSON object a line, as `Prediction.to_dict`."""
    return "".join(json.dumps(row.to_dict()) + "\n" for row in rows).encode()


def to_csv(table: Table, rows: Sequence[Prediction]) -> bytes:
    """Lines of CSV without a header."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for row in rows:
        cells: list[Any] = [row.path]
        for place in range(table.top):
            cells += row.top[place] if row.top else ("", "")
        cells += ("", "") if row.error is None else (row.error.id, str(row.error))
        for values, count in _vectors(table, row):
            cells += [""] * count if values is None else values.tolist()
        writer.writerow(_safe(cells) if table.safe else cells)
    return file.getvalue().encode("utf-8", "backslashreplace")


def _header(table: Table) -> bytes:
    names = ["path", "class", "probability"]
    for place in range(2, table.top + 1):
        names += [f"class_{place}", f"probability_{place}"]
    names += ["error", "message"]
    names += [f"p({name})" for name in table.classes] if table.probabilities else []
    names += [f"feature_{number}" for number in range(table.features)]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(names)
    return file.getvalue().encode("utf-8", "backslashreplace")


def _safe(cells: list[Any]) -> list[Any]:
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in cells]


def _vectors(table: Table, row: Prediction) -> Iterator[tuple[Any, int]]:
    if table.probabilities:
        yield row.probabilities, len(table.classes)
    if table.features:
        yield row.features, table.features


def to_parquet(table: Table, rows: Sequence[Prediction]) -> bytes:
    """A Parquet file."""
    pa, pq = library("pyarrow", "parquet"), library("pyarrow.parquet", "parquet")
    records = []
    for row in rows:
        name, probability = row.top[0] if row.top else (None, None)
        record: dict[str, Any] = {"path": row.path, "class": name, "probability": probability}
        if row.top:
            record |= {"top_classes": [name for name, _ in row.top], "top_probabilities": [p for _, p in row.top]}
        if row.error is not None:
            record |= {"error": row.error.id, "message": str(row.error)}
        records.append(record | {"probabilities": row.probabilities, "features": row.features})
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records, _schema(table)), sink)
    return sink.getvalue()


def _schema(table: Table) -> Any:
    pa = library("pyarrow", "parquet")
    fields = {
        "path": pa.string(),
        "class": pa.string(),
        "probability": pa.float32(),
        "top_classes": pa.list_(pa.string()),
        "top_probabilities": pa.list_(pa.float32()),
        "error": pa.string(),
        "message": pa.string(),
    }
    if table.probabilities:
        fields["probabilities"] = pa.list_(pa.float32(), len(table.classes))
    if table.features:
        fields["features"] = pa.list_(pa.float32(), table.features)
    return pa.schema(fields, metadata={"classes": json.dumps(table.classes)})


@dataclass(frozen=True)
class JoinedText:
    """A header, and the pieces one after another."""

    header: bytes
    pieces: Pieces

    def __iter__(self) -> Iterator[bytes]:
        yield self.header
        for piece in self.pieces:
            yield piece()


@dataclass(frozen=True)
class JoinedParquet:
    """A Parquet file of the rows of others, in larger row groups."""

    table: Table
    pieces: Pieces

    def __iter__(self) -> Iterator[bytes]:
        pq = library("pyarrow.parquet", "parquet")
        sink = Sink()
        with pq.ParquetWriter(sink, _schema(self.table)) as writer:
            for group in self._groups():
                writer.write_table(group)
                yield sink.take()
        yield sink.take()

    def _groups(self) -> Iterator[Any]:
        pa, pq = library("pyarrow", "parquet"), library("pyarrow.parquet", "parquet")
        held: list[Any] = []
        for piece in self.pieces:
            held.append(pq.read_table(pa.BufferReader(piece())))
            if sum(rows.nbytes for rows in held) > GROUP_BYTES:
                yield pa.concat_tables(held)
                held = []
        if held:
            yield pa.concat_tables(held)


ENCODERS: dict[str, Callable[[Table, Sequence[Prediction]], bytes]] = {
    "parquet": to_parquet,
    "csv": to_csv,
    "jsonl": to_jsonl,
}
JOINERS: dict[str, Callable[[Table, Pieces], Iterable[bytes | memoryview]]] = {
    "parquet": JoinedParquet,
    "csv": lambda table, pieces: JoinedText(_header(table), pieces),
    "jsonl": lambda table, pieces: JoinedText(b"", pieces),
}
