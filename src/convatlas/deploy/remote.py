"""Images in object stores, through the file systems of pyarrow: `s3://`, `gs://`, `hdfs://`, `file://`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..data.decode import MAX_PIXELS, REMEDY, most_bytes, one_line, shown
from ..data.samples import IMAGE_EXTENSIONS
from ..errors import DataError, library


def is_remote(place: str | Path) -> bool:
    """Whether it is the address of an object store."""
    return isinstance(place, str) and "://" in place


def remote_images(address: str) -> tuple[Sequence[str], "RemoteFiles"]:
    """The images below an address, sorted, or the one that is there: their addresses, and what reads each.

    Raises DataError D10 if there is none, D14 if the store cannot be listed, ResourceError without pyarrow.
    """
    fs = library("pyarrow.fs", "parquet")
    try:
        system, path = _store(address)
        if system.get_file_info(path).type == fs.FileType.Directory:
            found = system.get_file_info(fs.FileSelector(path, recursive=True))
            paths = sorted(info.path for info in found if info.type == fs.FileType.File and _is_image(info.path))
        else:
            paths = [path]
    except (OSError, ValueError) as error:
        raise DataError("D14", f"{shown(address)}: {one_line(error)}", "correct the address or the access") from error
    if not paths:
        raise DataError("D10", f"{shown(address)}: no images there", "give images, or a folder of them")
    scheme = address.partition("://")[0]
    names = tuple(f"{scheme}://{path}" for path in paths)
    return names, RemoteFiles(address, tuple(paths))


@dataclass(frozen=True)
class RemoteFiles:
    """Reads files of the store of `address`."""

    address: str
    paths: Sequence[str]

    def __call__(self, index: int) -> bytes:
        """The bytes of file i.  Raises DataError: D15 not there, D14 not readable, D5 longer than any image."""
        path = self.paths[index]
        try:
            with _store(self.address)[0].open_input_file(path) as file:
                if file.size() > most_bytes(MAX_PIXELS):
                    raise DataError("D5", f"{shown(path)}: {file.size():,} bytes are more than an image takes", REMEDY)
                return file.read()
        except FileNotFoundError as error:
            raise DataError("D15", f"{shown(path)}: no such file", "restore it, or list the store again") from error
        except OSError as error:
            raise DataError("D14", f"{shown(path)}: {one_line(error)}", REMEDY) from error


@lru_cache(4)
def _store(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    return library("pyarrow.fs", "parquet").FileSystem.from_uri(address)


def _is_image(path: str) -> bool:
    name = path.rpartition("/")[2]
    return not name.startswith(".") and name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS
