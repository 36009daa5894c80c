"""WebDataset shards: listed once, then every image is read where it lies in its tar file."""

import json
import os
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import DataError, explain
from .blocks import Blocks
from .decode import MAX_PIXELS, REMEDY, most_bytes, one_line, shown
from .folder import natural
from .images import Decoder, Images, Progress
from .index import LARGE, Index, load, save
from .labels import Labels, file_parts
from .names import Gathered, unpack
from .samples import Shard, members, samples
from .splits import Source

CLASS_FILES = ("classes.json", "classes.txt")

_BLOCK_BYTES = 1 << 20  # read at once
_WINDOW_BYTES = 256 << 20  # shuffled together


def shard_files(spec: str | Path) -> list[Path]:
    """The shards that `spec` means, in natural order: a .tar file, a folder of them, or `name-{000..099}.tar`.

    A single .tar without .cls or .json among its first files is none, but an archive.
    Raises DataError D3 for compressed ones.
    """
    path = Path(spec).expanduser()
    numbers = re.search(r"\{(\d+)\.\.(\d+)\}", path.name)
    if numbers and path.suffix == ".tar":
        first, last = numbers.groups()
        names = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
        return [path.with_name(path.name.replace(numbers[0], name)) for name in names]
    if not path.is_dir():
        return [path] if path.suffix == ".tar" and path.is_file() and _states_labels(path) else []
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    if any(entry.is_dir() for entry in entries):  # a tar beside class folders is no shard
        return []
    files = sorted((entry for entry in entries if ".tar" in entry.suffixes), key=lambda file: natural(file.name))
    for file in files:
        if file.suffix != ".tar":
            raise DataError("D3", f"{shown(file)}: a compressed tar has no random access", "decompress it to a .tar")
    return files


def read_shards(spec: str | Path, *, max_pixels: int = MAX_PIXELS, progress: Progress | None = None) -> Source:
    """The images of WebDataset shards: train*, val* and test* are the given parts.

    A sample's label is its .cls (a number or a name), else the `label` or `class` of its .json, else the folder of its
    key.  The class names are those of `classes.json` (a list) or `classes.txt` (a line each) beside the shards;
    without, they are the labels of train themselves, in natural order.
    Many images are listed once; what was found is kept in the cache for as long as no shard changes.
    Raises DataError D1 for a damaged shard, D2 for a sample without image, D11 for labels that are no class, D15 for a
    shard that is not there, D16 for members that are no plain files or come twice.
    """
    path = Path(spec).expanduser()
    shards = {part: [Shard.at(file) for file in files] for part, files in file_parts(path, shard_files(path)).items()}
    key = {"shards": {part: [shard.state() for shard in of_part] for part, of_part in shards.items()}}
    index = load(key)
    if index is None:
        index = _list(shards, progress)
        if len(index.arrays["labels"]) > LARGE:
            save(key, index)
    arrays = index.arrays
    names = unpack(arrays["text"], arrays["ends"])
    labels = Labels(index.record["labels"], array("q", arrays["labels"].tobytes()))
    every_shard = [shard for of_part in shards.values() for shard in of_part]
    spans = index.record["parts"]
    known = next(iter(spans.values()))[1]
    classes, numbers = labels.resolve(_class_names(every_shard[0].path.parent), known, lambda i: shown(names[i]))
    content = Members(every_shard, names, arrays["shard"], arrays["offset"], arrays["size"], max_pixels)
    images = Images(
        classes=classes,
        labels=numbers,
        names=names,
        read=Decoder(content, names, "", max_pixels),
        content=content,
        blocks=_blocks(arrays["shard"], arrays["offset"], arrays["size"]),
    )
    parts = {part: names[start:stop] for part, (start, stop) in spans.items()}
    return Source(re.sub(r"[-_.]*\{.*\}", "", path.stem), images, parts if len(parts) > 1 else None)


def _states_labels(path: Path) -> bool:
    try:
        return any(Path(member.name).suffix in (".cls", ".json") for member, _ in islice(members(Shard.at(path)), 8))
    except DataError:
        return False


def _list(shards: dict[str, list[Shard]], progress: Progress | None) -> Index:
    """Name, label and place of every image, shard by shard."""
    found, labels, number, spans = Gathered(), Labels(), 0, {}
    place = {"shard": array("i"), "offset": array("q"), "size": array("q")}
    for part, of_part in shards.items():
        start = len(found)
        for shard in of_part:
            for image, label in samples(shard):
                found.add([f"{shard.path.name}/{image.name}"])
                labels.add([label])
                for column, value in zip(place.values(), (number, image.offset_data, image.size), strict=True):
                    column.append(value)
            number += 1
            if progress is not None:
                progress(number, sum(map(len, shards.values())))
        spans[part] = (start, len(found))
    columns = {name: np.array(column) for name, column in place.items()}
    record = {"labels": list(labels.numbers), "parts": spans}
    return Index(record, {**found.arrays(), **columns, "labels": np.array(labels.of)})


def _class_names(folder: Path) -> tuple[str, ...] | None:
    for name in CLASS_FILES:
        file = folder / name
        if file.is_file():
            try:
                text = file.read_text("utf-8")
                names = json.loads(text) if file.suffix == ".json" else text.splitlines()
            except (OSError, ValueError) as error:
                raise DataError("D11", f"{shown(file)}: {one_line(error)}", "correct or remove it") from None
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise DataError("D11", f"{shown(file)} is not a list of names", "correct or remove it")
            if len(set(names)) < len(names) or not all(names):
                raise DataError("D11", f"{shown(file)} names a class twice, or one without a name", "correct it")
            return tuple(names)
    return None


def _blocks(shard: np.ndarray, offset: np.ndarray, size: np.ndarray) -> Blocks | None:
    """A block is what lies within about `_BLOCK_BYTES` of a shard."""
    starts = np.stack([shard, offset // _BLOCK_BYTES])
    first = np.flatnonzero(np.diff(starts, prepend=-1).any(0))
    images = np.diff(first, append=len(shard))
    sizes = np.add.reduceat(size, first)
    return Blocks.of_sizes(np.stack([images, sizes], 1).tolist(), _WINDOW_BYTES)


@dataclass(frozen=True, eq=False)
class Members:
    """The bytes of any image, read where it lies."""

    shards: Sequence[Shard]
    names: Sequence[str]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    max_pixels: int

    def __call__(self, index: int) -> bytes:
        """Of image `index`.  Raises DataError: D5 too long, D14 not readable, D15 a shard that is gone or changed."""
        shard, offset, size = self.shards[self.shard[index]], int(self.offset[index]), int(self.size[index])
        name = shown(self.names[index])
        if size > most_bytes(self.max_pixels):
            what = f"{name}: {size:,} bytes are more than an image of {self.max_pixels:,} px takes"
            raise DataError("D5", what, REMEDY)
        try:
            with shard.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != (shard.size, shard.modified):
                    raise DataError("D15", f"{name}: the shard has changed since it was listed", "start again")
                if hasattr(os, "posix_fadvise"):  # what lies around it is read soon
                    start = offset // _BLOCK_BYTES * _BLOCK_BYTES
                    os.posix_fadvise(file.fileno(), start, _BLOCK_BYTES, os.POSIX_FADV_WILLNEED)
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError as error:
            raise DataError("D15", f"{name}: the shard is gone", "restore it, and start again") from error
        except OSError as error:
            raise DataError("D14", f"{name}: {explain(error)}", REMEDY) from error
