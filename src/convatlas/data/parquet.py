"""Images in Parquet files: a column of encoded images and a column of labels."""

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..errors import DataError, library
from .blocks import Blocks
from .decode import MAX_PIXELS, REMEDY, one_line, shown
from .folder import natural
from .images import Decoder, Images
from .labels import Labels, file_parts
from .names import Gathered, unpack
from .splits import Source

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")

_HELD_BYTES = 256 << 20  # encoded images held: a small file whole, of a large one the row groups read last
_OPEN = 16  # files open at the same time


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files that `path` is or directly holds, in natural order."""
    if path.is_dir():
        return sorted((file for file in path.iterdir() if _is_parquet(file)), key=lambda file: natural(file.name))
    return [path] if _is_parquet(path) else []


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet" and not path.name.startswith(".") and path.is_file()


def read_parquet(path: Path, *, max_pixels: int = MAX_PIXELS) -> Source:
    """The images of a Parquet file, or of those in a folder: train*, val* and test* are the given parts.

    The image column is `image` or `img`: encoded images, or the {bytes, path} structs of Hugging Face.
    The label column is `label`, `labels` or `fine_label`: integers or strings.
    The class names are those of the schema's metadata: `classes`, separated by commas, or the ClassLabel of Hugging
    Face.  Without, they are the labels of train themselves, in natural order.
    Raises DataError D3 for what is no Parquet file, D11 for missing columns and for labels that are no class.
    """
    files: list[_File] = []
    labels, found, spans = Labels(), Gathered(), {}
    for part, paths in file_parts(path, parquet_files(path)).items():
        start = len(found)
        for file in paths:
            reader = _open(file)
            files.append(_describe(file, reader))
            labels.add(_labels(files[-1], reader))
            found.add(f"{part}/{row}" for row in range(len(found) - start, len(labels) - start))
        spans[part] = (start, len(found))
    names = unpack(**found.arrays())
    known = next(iter(spans.values()))[1]
    classes, numbers = labels.resolve(files[0].classes, known, lambda index: f"{shown(path)}: {names[index]}")
    prefix = f"{path}: "
    content = _Rows(files, prefix, names)
    images = Images(
        classes=classes,
        labels=numbers,
        names=names,
        read=Decoder(content, names, prefix, max_pixels),
        content=content,
        blocks=Blocks.of_sizes([group for file in files for group in file.groups], _HELD_BYTES),
    )
    parts = {part: names[start:stop] for part, (start, stop) in spans.items()}
    return Source(path.stem, images, parts if len(parts) > 1 else None)


def encoded_images(path: Path) -> tuple[int, Callable[[int], bytes]]:
    """How many rows a Parquet file has, and the encoded image of each, called `path/row`; it needs no labels.

    Raises DataError D3 for what is no Parquet file, D11 for a missing column; and what is asked for a row, D1 and D2.
    """
    reader = _open(path)
    count = reader.metadata.num_rows
    file = _File(path, _column(path, reader, IMAGE_COLUMNS), "", None, _groups(reader))
    return count, _Rows([file], f"{path}/", range(count))


@dataclass(frozen=True)
class _File:
    """A Parquet file: which of its columns matter, its class names, and (rows, bytes) of its row groups."""

    path: Path
    image: str
    label: str
    classes: tuple[str, ...] | None
    groups: tuple[tuple[int, int], ...]


def _open(path: Path) -> Any:
    """What pyarrow makes of the file."""
    pa, pq = library("pyarrow", "parquet"), library("pyarrow.parquet", "parquet")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "D3", f"{shown(path)}: not a readable Parquet file ({one_line(error)})", "fetch or write it again"
        ) from error


def _describe(path: Path, reader: Any) -> _File:
    label = _column(path, reader, LABEL_COLUMNS)
    classes = _class_names(reader.schema_arrow.metadata or {}, label)
    return _File(path, _column(path, reader, IMAGE_COLUMNS), label, classes, _groups(reader))


def _column(path: Path, reader: Any, names: tuple[str, ...]) -> str:
    """The first of these columns that there is."""
    columns = reader.schema_arrow.names
    for name in names:
        if name in columns:
            return name
    what = f"{shown(path)}: the columns are {', '.join(columns)}"
    raise DataError("D11", what, f"call one of them {' or '.join(names)}")


def _groups(reader: Any) -> tuple[tuple[int, int], ...]:
    groups = (reader.metadata.row_group(number) for number in range(reader.num_row_groups))
    return tuple((group.num_rows, group.total_byte_size) for group in groups)


def _labels(file: _File, reader: Any) -> Iterator[int | str]:
    row = 0
    for batch in reader.iter_batches(columns=[file.label], use_threads=False):
        for label in batch.column(0).to_pylist():
            if not isinstance(label, int | str):
                what = f"{shown(file.path)}: row {row} has the label {label!r}"
                raise DataError("D11", what, "make every label an integer or a string")
            yield label
            row += 1


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...] | None:
    if b"classes" in metadata:
        return tuple(metadata[b"classes"].decode().split(","))
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(label, {}).get("names")
    return names and tuple(names)


class _Rows:
    """The encoded image of any row.  Row groups are read whole and the last ones held, up to `_HELD_BYTES`."""

    def __init__(self, files: Sequence[_File], prefix: str, names: Sequence[object]):
        self.files, self.prefix, self.names = files, prefix, names
        self.groups = [(file, group) for file in files for group in range(len(file.groups))]
        self.ends = list(accumulate(rows for file in files for rows, _ in file.groups))
        self.held: OrderedDict[int, Any] = OrderedDict()
        self.reader = lru_cache(_OPEN)(_open)
        self.lock = threading.Lock()

    def __reduce__(self):  # another process opens the files itself
        return _Rows, (self.files, self.prefix, self.names)

    def __call__(self, row: int) -> bytes:
        number = bisect_right(self.ends, row)
        with self.lock:
            images = self._row_group(number, row)
        image = images[row - self.ends[number]].as_py()  # counted from the group's end
        if isinstance(image, dict):
            image = image["bytes"]
        if image is None:
            raise DataError("D2", f"{self.prefix}{self.names[row]}: no image in this row", REMEDY)
        return image

    def _row_group(self, number: int, row: int) -> Any:
        if number in self.held:
            self.held.move_to_end(number)
            return self.held[number]
        import pyarrow as pa

        file, group = self.groups[number]
        try:
            images = self.reader(file.path).read_row_group(group, columns=[file.image], use_threads=False)[file.image]
        except (pa.ArrowException, OSError) as error:
            place = f"row group {group} of {shown(file.path)}"
            what = f"{self.prefix}{self.names[row]}: {place} is damaged ({one_line(error)})"
            raise DataError("D1", what, REMEDY) from error
        self.held[number] = images
        while len(self.held) > 1 and sum(held.nbytes for held in self.held.values()) > _HELD_BYTES:
            self.held.popitem(last=False)
        return images
