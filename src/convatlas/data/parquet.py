"""Images in Parquet files: a column of encoded images and a column of labels."""

import json
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError, ResourceError
from .decode import MAX_PIXELS, REMEDY, one_line, shown
from .folder import PART_OF, natural
from .images import Decoder, Images
from .splits import PARTS, Source

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")

_HELD_BYTES = 256 << 20  # encoded images held: a small file whole, of a large one the row groups read last


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
    parts = {part: [_open(file) for file in files] for part, files in _parts(path).items()}
    labels = {part: [label for file in files for label in _labels(file)] for part, files in parts.items()}
    names = {part: [f"{part}/{row}" for row in range(len(labels[part]))] for part in parts}
    first = next(iter(parts))
    classes = _class_names(parts[first][0])
    if classes is None:
        classes = tuple(sorted({str(label) for label in labels[first]}, key=natural))
        labels = {part: [str(label) for label in labels[part]] for part in parts}
    number = {name: index for index, name in enumerate(classes)} | {index: index for index in range(len(classes))}
    every_label = [label for part in parts for label in labels[part]]
    every_name = [name for part in parts for name in names[part]]
    for label, name in zip(every_label, every_name, strict=True):
        if label not in number:
            what = f"{shown(path)}: {name} has the label {label!r}, which is none of the {len(classes)} classes"
            raise DataError("D11", what, "correct the label or the class names")
    prefix = f"{path}: "
    content = _Rows([file for files in parts.values() for file in files], prefix, every_name)
    images = Images(
        classes=classes,
        labels=torch.tensor([number[label] for label in every_label], dtype=torch.int64),
        names=tuple(every_name),
        read=Decoder(content, every_name, prefix, max_pixels),
        content=content,
    )
    return Source(path.stem, images, names if len(parts) > 1 else None)


@dataclass(frozen=True)
class _File:
    """A Parquet file: where it is, what pyarrow makes of it and which of its columns matter."""

    path: Path
    reader: Any
    image: str
    label: str


def _open(path: Path) -> _File:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ResourceError("L5", "pyarrow is not installed", "pip install 'convatlas[parquet]'") from error
    try:
        reader = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "D3", f"{shown(path)}: not a readable Parquet file ({one_line(error)})", "fetch or write it again"
        ) from error
    columns = reader.schema_arrow.names
    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    if image is None or label is None:
        wanted = f"{' or '.join(IMAGE_COLUMNS)} and of {', '.join(LABEL_COLUMNS)}"
        what = f"{shown(path)}: the columns are {', '.join(columns)}"
        raise DataError("D11", what, f"name the columns {wanted}")
    return _File(path, reader, image, label)


def _parts(path: Path) -> dict[str, list[Path]]:
    """By part its files, train first; all files under the name of `path` unless they say train and another part."""
    files = parquet_files(path)
    parts: dict[str, list[Path]] = {part: [] for part in PARTS}
    for file in files:
        part = PART_OF.get(re.split("[^a-z]", file.stem)[0])
        if part:
            parts[part].append(file)
    given = {part: parts[part] for part in PARTS if parts[part]}
    if "train" not in given or len(given) == 1:
        return {path.stem: files}
    if others := [file.name for file in files if not any(file in part for part in given.values())]:
        what = f"{shown(path)}: {shown(others[0])} lies beside {shown(given['train'][0].name)} but is of no part"
        raise DataError("D11", what, "let its name begin with train, val or test, or move it away")
    return given


def _labels(file: _File) -> list[int | str]:
    column = file.reader.read(columns=[file.label], use_threads=False)[file.label].to_pylist()
    for row, label in enumerate(column):
        if not isinstance(label, int | str):
            what = f"{shown(file.path)}: row {row} has the label {label!r}"
            raise DataError("D11", what, "make every label an integer or a string")
    return column


def _class_names(file: _File) -> tuple[str, ...] | None:
    metadata = file.reader.schema_arrow.metadata or {}
    if b"classes" in metadata:
        return tuple(metadata[b"classes"].decode().split(","))
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(file.label, {}).get("names")
    return names and tuple(names)


class _Rows:
    """The encoded image of any row.  Row groups are read whole and the last ones held, up to `_HELD_BYTES`."""

    def __init__(self, files: Sequence[_File], prefix: str, names: Sequence[str]):
        self.files, self.prefix, self.names = files, prefix, names
        self.groups = [(file, group) for file in files for group in range(file.reader.num_row_groups)]
        self.ends = list(accumulate(file.reader.metadata.row_group(group).num_rows for file, group in self.groups))
        self.held: OrderedDict[int, Any] = OrderedDict()
        self.lock = threading.Lock()

    def __reduce__(self):  # another process opens the files itself
        return _reopen, ([file.path for file in self.files], self.prefix, self.names)

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
            images = file.reader.read_row_group(group, columns=[file.image], use_threads=False)[file.image]
        except (pa.ArrowException, OSError) as error:
            place = f"row group {group} of {shown(file.path)}"
            what = f"{self.prefix}{self.names[row]}: {place} is damaged ({one_line(error)})"
            raise DataError("D1", what, REMEDY) from error
        self.held[number] = images
        while len(self.held) > 1 and sum(held.nbytes for held in self.held.values()) > _HELD_BYTES:
            self.held.popitem(last=False)
        return images


def _reopen(paths: Sequence[Path], prefix: str, names: Sequence[str]) -> _Rows:
    return _Rows([_open(path) for path in paths], prefix, names)
