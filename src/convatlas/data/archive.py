"""Archives of a data folder (zip, tar, tar.gz, ...): looked through first, then unpacked once into the cache.

Nothing is written before every member is known to be a regular file or folder inside.  What is unpacked gets its final
name when it is whole.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from .. import files
from ..errors import DataError, ResourceError, explain
from .decode import one_line, shown

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FORKS = "__MACOSX/"  # what macOS puts beside the files of a zip
UNPACK = "unpack it where you trust it, and give the folder"
HEADER = 1 << 20  # bytes of a header that tarfile reads at once; a long name takes 4 KiB

Archive = tarfile.TarFile | zipfile.ZipFile


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold: members, bytes, and bytes for each byte of the archive beyond the first 100 MiB."""

    members: int = 200_000
    bytes: int = 200 << 30
    ratio: int = 100
    free_of_ratio: int = 100 << 20


def is_archive(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpacked(path: Path, limits: Limits = Limits()) -> Path:
    """The folder with what is in the archive, named after it; unpacked if the cache has it not.

    Raises DataError D16 for an archive that is damaged or not safe, ResourceError C2 if the cache can't hold it.
    """
    try:
        with path.open("rb") as file:
            parent = files.cache_folder() / "archives"
            target = parent / hashlib.file_digest(file, "sha256").hexdigest()[:32]
            if not target.exists():
                sweep(parent)
                with _open(path, file) as archive:
                    _check(path, archive, limits)
                    _unpack(path, archive, target)
    except OSError as error:
        what = f"cannot unpack {shown(path)} into {shown(files.cache_folder())}: {explain(error)}"
        raise ResourceError("C2", what, "free space there, or set $CONVATLAS_CACHE to another folder") from error
    return _inner(target / _stem(path))


def sweep(parent: Path) -> None:
    """Remove what unpackers that have died left behind."""
    for part in parent.glob(".*.part"):
        pid = part.name.split("-")[0][1:]
        if pid.isdecimal() and not files.alive(int(pid)):
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _open(path: Path, file: BinaryIO) -> Iterator[Archive]:
    """The archive; whatever is wrong with it while it is open becomes a D16."""
    file.seek(0)
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(file) as archive:
                yield archive
        else:
            with tarfile.open(fileobj=file, tarinfo=_Member) as archive:
                yield archive
    except (OSError, DataError) as error:
        if isinstance(error, DataError) or error.errno is not None:
            raise
        raise _damaged(path, error) from error  # gzip's BadGzipFile has no number
    except Exception as error:  # of hostile bytes these libraries may raise anything
        raise _damaged(path, error) from error


class _Member(tarfile.TarInfo):
    """A member whose names and other headers are of a sane length: they are read into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str):
        member = super().frombuf(buf, encoding, errors)
        if not (member.isreg() or member.isdir()) and member.size > HEADER:
            what = f"archive member {member.name!a} has a header of {member.size:,} bytes"
            raise DataError("D16", what, UNPACK)
        return member


def _check(path: Path, archive: Archive, limits: Limits) -> None:
    """Refuse what leaves the folder, is neither file nor folder, is there twice, or is too much."""
    size = path.stat().st_size
    most = min(limits.bytes, max(limits.free_of_ratio, limits.ratio * size))
    found: set[str] = set()
    folders: set[str] = set()
    total = 0
    for count, (name, octets, kind) in enumerate(_members(archive), 1):
        pieces = [piece for piece in name.split("/") if piece not in ("", ".")]
        plain = "/".join(pieces)
        total += octets
        if name.startswith("/") or ".." in pieces:
            raise _unsafe(path, name, "leaves the target folder")
        if "\\" in name or "\0" in name:
            raise _unsafe(path, name, "has a name that means different things to different systems")
        if kind not in ("file", "folder"):
            raise _unsafe(path, name, f"is {kind}")
        if count > limits.members:
            raise DataError("D16", f"{shown(path)}: more than {limits.members:,} members", UNPACK)
        if total > most:
            what = f"{shown(path)}: {size:,} bytes that would become more than {most:,}"
            raise DataError("D16", what, UNPACK)
        if kind == "file":
            if plain in found:
                raise _unsafe(path, name, "is there twice")
            found.add(plain)
            pieces.pop()
        folders.update(accumulate(pieces, "{}/{}".format))
    if both := found & folders:
        raise _unsafe(path, min(both), "is both a file and a folder")


def _members(archive: Archive) -> Iterator[tuple[str, int, str]]:
    """Name, size in bytes and kind: file, folder, or what else it is."""
    if isinstance(archive, zipfile.ZipFile):
        for entry in archive.infolist():
            kind = "folder" if entry.is_dir() else "file"
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link or device"
            yield entry.filename, entry.file_size, "encrypted" if entry.flag_bits & 1 else kind
    else:
        for member in archive:
            kind = "a link" if member.issym() or member.islnk() else "a pipe or device"
            yield member.name, member.size, "file" if member.isreg() else "folder" if member.isdir() else kind


def _unpack(path: Path, archive: Archive, target: Path) -> None:
    part = target.with_name(f".{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        folder = part / _stem(path)
        folder.mkdir(parents=True)
        if isinstance(archive, zipfile.ZipFile):
            archive.extractall(folder, [name for name in archive.namelist() if not name.startswith(FORKS)])
        else:
            archive.extractall(folder, filter="data")
        os.sync()  # whole on the disk before it gets its name
        with contextlib.suppress(FileExistsError):  # another process was quicker
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _stem(path: Path) -> str:
    return path.name[: -max(len(suffix) for suffix in SUFFIXES if path.name.lower().endswith(suffix))]


def _inner(folder: Path) -> Path:
    """Past the one folder that many archives wrap everything in."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    wrapped = len(inside) == 1 and inside[0].is_dir() and any(path.is_dir() for path in inside[0].iterdir())
    return _inner(inside[0]) if wrapped else folder


def _unsafe(path: Path, name: str, why: str) -> DataError:
    return DataError("D16", f"{shown(path)}: archive member {name!a} {why}", UNPACK)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError("D16", f"{shown(path)}: damaged, or no such archive ({one_line(error)})", "fetch or make it again")
