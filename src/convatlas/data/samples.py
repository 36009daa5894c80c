"""The samples of one WebDataset shard: a plain tar file whose members `key.ext` belong together by their key.

Nothing is ever extracted: tarfile lists the members, and only labels are read.
"""

import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, explain
from .decode import one_line, shown

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "pbm", "pgm", "ppm", "pnm")

_TEXT_BYTES = 1 << 20  # of a label, or of a header's text
_PADDING_BYTES = 16 << 20  # of zeros at the end


@dataclass(frozen=True)
class Shard:
    """A tar file as it was when it was found."""

    path: Path
    size: int
    modified: int  # ns

    @classmethod
    def at(cls, path: Path) -> "Shard":
        """The file as it is now.  Raises DataError D15 if it is not there, D3 if it is none."""
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(
                "D15", f"shard {shown(path)}: {explain(error)}", "restore it, or name other shards"
            ) from None
        if not stat.S_ISREG(status.st_mode):
            raise DataError("D3", f"shard {shown(path)}: not a regular file", "name other shards")
        return cls(path, status.st_size, status.st_mtime_ns)

    def state(self) -> list[Any]:
        """What tells this shard, as it is now, from any other."""
        return [os.path.realpath(self.path), self.size, self.modified]


@dataclass
class _Sample:
    """What the members of one key say."""

    key: str
    image: tarfile.TarInfo | None = None
    labels: dict[str, int | str] = field(default_factory=dict)
    """By extension: cls or json."""

    def whole(self, shard: Shard) -> tuple[tarfile.TarInfo, int | str]:
        """The image and its label: as .cls, else .json, else the folder of the key says."""
        where = f"shard {shown(shard.path)}: {shown(self.key)}"
        if self.image is None:
            raise DataError("D2", f"{where} has no image", "write the shard again without it")
        stated = [self.labels[kind] for kind in ("cls", "json") if kind in self.labels]
        label = stated[0] if stated else Path(self.key).parent.name
        if label == "":
            raise DataError("D11", f"{where} has no label", "give it a .cls, a .json or a folder")
        return self.image, label


def samples(shard: Shard) -> Iterator[tuple[tarfile.TarInfo, int | str]]:
    """The image and the label of each sample of a shard, in their order.

    Raises DataError D2 for a sample without image, D11 for one without label, D16 for keys and kinds that come twice,
    and what `members` raises.
    """
    seen: set[str] = set()
    sample = None
    for member, file in members(shard):
        folder, name = os.path.split(member.name)
        stem, _, extension = name.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        extension = extension.lower().rpartition(".")[2]
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample.whole(shard)
            if key in seen:
                raise _refused(shard, member, "its key came before")
            seen.add(key)
            sample = _Sample(key)
        if extension in IMAGE_EXTENSIONS:
            if sample.image is not None:
                raise _refused(shard, member, "the second image of its key")
            sample.image = member
        elif extension in ("cls", "json"):
            if extension in sample.labels:
                raise _refused(shard, member, "the second of its kind under its key")
            label = _label(shard, member, extension, file)
            if label is not None:
                sample.labels[extension] = label
    if sample is not None:
        yield sample.whole(shard)
    else:
        raise DataError("D2", f"shard {shown(shard.path)} has no samples", "write it again, or remove it")


def _label(shard: Shard, member: tarfile.TarInfo, extension: str, file: BinaryIO) -> int | str | None:
    """The label that a .cls or .json states; None if the .json states none."""
    if member.size > _TEXT_BYTES:
        raise _refused(shard, member, f"{member.size:,} bytes are more than a label takes")
    file.seek(member.offset_data)
    try:
        text = file.read(member.size).decode()
        if extension == "cls":
            label = text.strip()
            return int(label) if re.fullmatch(r"-?\d+", label, re.ASCII) else label
        stated = json.loads(text)
        label = stated.get("label", stated.get("class")) if isinstance(stated, dict) else None
    except (ValueError, RecursionError) as error:
        raise DataError("D11", f"{_where(shard, member)}: not a label ({one_line(error)})", "correct it") from None
    if isinstance(label, bool) or not isinstance(label, int | str | None):
        raise DataError("D11", f"{_where(shard, member)}: the label is {label!r}", "make it an integer or a string")
    return label


def members(shard: Shard) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    """The files in a tar, each with the open shard; folders and hidden files are passed over.

    Raises DataError D1 if the tar is damaged or does not end as one, D16 for links, devices and the like.
    """
    end = 0
    with _opened(shard) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    if member.offset_data < end or member.size < 0:
                        raise _refused(shard, member, "it overlaps what is before it")
                    end = member.offset_data + member.size
                    if end > shard.size:
                        raise tarfile.ReadError(f"{member.name!a} is cut off")
                    if member.isdir() or Path(member.name).name.startswith("."):
                        continue
                    if not member.isreg() or member.issparse():
                        raise _refused(shard, member, "a link, a device or a sparse file")
                    yield member, file
                _refuse_ragged_end(shard, file, tar.offset)
        except (tarfile.TarError, OverflowError, ValueError, RecursionError) as error:
            what = f"shard {shown(shard.path)}: not a whole tar file ({one_line(error)})"
            raise DataError("D1", what, "fetch or write it again; decompress a .tar.gz") from error


def _opened(shard: Shard) -> BinaryIO:
    try:
        return shard.path.open("rb")
    except OSError as error:
        raise DataError("D14", f"shard {shown(shard.path)}: {explain(error)}", "make it readable") from error


def _refuse_ragged_end(shard: Shard, file: BinaryIO, offset: int) -> None:
    """A tar ends in zeros; tarfile takes any damaged header for the end."""
    file.seek(offset)
    rest = file.read(_PADDING_BYTES + 1)
    if not 512 <= len(rest) <= _PADDING_BYTES or rest.count(0) < len(rest):
        what = f"shard {shown(shard.path)}: the tar is damaged or cut off at byte {offset:,} of {shard.size:,}"
        raise DataError("D1", what, "fetch or write it again")


class _Header(tarfile.TarInfo):
    """A header whose text, which tarfile reads whole, is bounded."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.size > _TEXT_BYTES and header.type in b"LKxgX"):
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def _where(shard: Shard, member: tarfile.TarInfo) -> str:
    return f"shard {shown(shard.path)}: member {shown(member.name)}"


def _refused(shard: Shard, member: tarfile.TarInfo, reason: str) -> DataError:
    return DataError("D16", f"{_where(shard, member)}: {reason}", "write the shard again without it")
