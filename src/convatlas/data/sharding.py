"""Writing images into shards, WebDataset or Parquet: the bytes of each file unchanged, in their order."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import files
from ..errors import ConfigError, DataError, library
from .decode import detect, shown
from .images import Images, Progress
from .splits import Source

Kind = Literal["webdataset", "parquet"]

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WebP": "webp", "BMP": "bmp", "TIFF": "tif", "PNM": "ppm"}
_GROUP_BYTES = 1 << 20  # of images in a row group: what a reader must hold to read one


def write_shards(
    source: Source, folder: Path, kind: Kind, *, per_shard: int = 10_000, progress: Progress | None = None
) -> list[Path]:
    """Write the images of `source` into `folder`, so many a shard, and return the shards.

    `folder` read as data gives the same images, classes and parts in the same order.  Shards that are there already
    are kept, so that a call that was stopped can be made again.
    Raises ConfigError L2 for what has no files to copy, L4 if the folder holds other shards, DataError D3 for a file
    that is no image, ResourceError C2 where the folder can't be written.
    """
    images = source.images
    if images.content is None:
        raise ConfigError("L2", f"{source.name} is stored as pixels, not as files", "give a folder, Parquet or shards")
    if per_shard < 1:
        raise ConfigError("L2", f"--per-shard is {per_shard}", "give 1 or more")
    files.sweep(folder)
    _claim(source, folder, kind, per_shard)
    shards, end = [], 0
    for part, count in _parts(source).items():
        start, end = end, end + count
        spans = [range(first, min(first + per_shard, end)) for first in range(start, end, per_shard)]
        for number, span in enumerate(spans):
            ending = "tar" if kind == "webdataset" else kind
            path = folder / f"{part}-{number:05}-of-{len(spans):05}.{ending}"
            if not path.exists():
                files.write_pieces(path, _Tar(images, span) if kind == "webdataset" else _Parquet(images, span))
            shards.append(path)
            if progress is not None:
                progress(span.stop, len(images))
    return shards


def _parts(source: Source) -> dict[str, int]:
    """Images by part, which lie one after another."""
    if source.parts is None:
        return {"images": len(source.images)}
    return {part: len(names) for part, names in source.parts.items()}


def _claim(source: Source, folder: Path, kind: Kind, per_shard: int) -> None:
    """Note in the folder what it is to hold, or see that it is the same as before."""
    digest = hashlib.sha256()
    for name in source.images.names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(source.images.labels.numpy().tobytes())
    classes = list(source.images.classes)
    about = {"to": kind, "per_shard": per_shard, "parts": _parts(source), "classes": classes, "of": digest.hexdigest()}
    note = folder / "shards.json"
    if note.exists():
        if note.read_text("utf-8") != json.dumps(about):
            raise ConfigError(
                "L4", f"{shown(folder)} holds shards of other images or of another form", "give another --out"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise ConfigError("L4", f"{shown(folder)} is not empty", "give another --out")
    else:
        files.write_text(note, json.dumps(about))
    if kind == "webdataset":
        files.write_text(folder / "classes.json", json.dumps(classes))


def _encoded(images: Images, index: int) -> tuple[bytes, str]:
    """The file of an image, and the extension that its content asks for."""
    assert images.content is not None
    content = images.content(index)
    format = detect(content) if content else "nothing"
    if format not in _EXTENSIONS:
        what = f"{shown(images.names[index])}: not an image that can be read, but {format}"
        raise DataError("D3", what, "remove it; `convatlas check-data` lists all such files")
    return content, _EXTENSIONS[format]


@dataclass(frozen=True)
class _Tar(Iterable[bytes]):
    """A WebDataset shard in pieces: for each image `NUMBER.jpg` (or the like), `.cls` and `.json`."""

    images: Images
    span: range

    def __iter__(self) -> Iterator[bytes]:
        length = 0
        for index in self.span:
            for name, content in self._members(index):
                header = tarfile.TarInfo(name)
                header.size = len(content)
                for piece in (header.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % tarfile.BLOCKSIZE)):
                    length += len(piece)
                    yield piece
        yield bytes(2 * tarfile.BLOCKSIZE + -(length + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)

    def _members(self, index: int) -> Iterator[tuple[str, bytes]]:
        content, extension = _encoded(self.images, index)
        label = int(self.images.labels[index])
        about = {"label": label, "class": self.images.classes[label], "name": self.images.names[index]}
        yield f"{index:09}.{extension}", content
        yield f"{index:09}.cls", str(label).encode()
        yield f"{index:09}.json", json.dumps(about).encode()


@dataclass(frozen=True)
class _Parquet(Iterable[bytes]):
    """A Parquet file in pieces, with the columns and the metadata of Hugging Face's image data sets."""

    images: Images
    span: range

    def __iter__(self) -> Iterator[bytes]:
        pa, pq = library("pyarrow", "parquet"), library("pyarrow.parquet", "parquet")
        label = {"_type": "ClassLabel", "names": list(self.images.classes)}
        features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        schema = pa.schema({"image": image, "label": pa.int64()}, metadata={"huggingface": json.dumps(features)})
        sink = Sink()
        with pq.ParquetWriter(sink, schema, compression="none", use_dictionary=False) as writer:
            for rows in self._groups():
                writer.write_table(pa.Table.from_pylist(rows, schema))
                yield sink.take()
        yield sink.take()

    def _groups(self) -> Iterator[list[dict]]:
        rows, held = [], 0
        for index in self.span:
            content, _ = _encoded(self.images, index)
            path = self.images.names[index].encode("utf-8", "backslashreplace").decode()
            rows.append({"image": {"bytes": content, "path": path}, "label": int(self.images.labels[index])})
            held += len(content)
            if held >= _GROUP_BYTES or index == self.span[-1]:
                yield rows
                rows, held = [], 0


class Sink(io.RawIOBase):
    """What has been written since it was last taken."""

    def __init__(self):
        self._written, self._length = bytearray(), 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, content) -> int:
        """Put it behind the rest."""
        self._written += content
        self._length += len(content)
        return len(content)

    def tell(self) -> int:
        """How much has been written in all, bytes."""
        return self._length

    def take(self) -> bytes:
        """It, once."""
        written, self._written = bytes(self._written), bytearray()
        return written
