"""The one writer of everything that must survive: temporary file, flush, fsync, rename, fsync of the directory.

A reader therefore sees the old file or the whole new one, never a part, whatever kills the writer.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from .errors import ResourceError, explain


def write_with(path: str | os.PathLike, fill: Callable[[BinaryIO], object]) -> Path:
    """Create or replace `path` by what `fill(file)` writes.  Raises ResourceError; the old file is then untouched."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise ResourceError(
            "C2", f"cannot write {path}: {explain(error)}", "free space or choose a writable place, then run again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def write_bytes(path: str | os.PathLike, content: bytes) -> Path:
    """`write_with` for content at hand."""
    return write_with(path, lambda file: file.write(content))


def write_text(path: str | os.PathLike, content: str) -> Path:
    """`write_with` for UTF-8 text."""
    return write_bytes(path, content.encode("utf-8", "surrogateescape"))


def sweep(folder: Path) -> None:
    """Remove the temporary files that writers of dead processes left in `folder`."""
    for part in folder.glob(".*.part"):
        name = re.fullmatch(r"\..+\.(\d+)-[0-9a-f]{8}\.part", part.name)
        if name and not _alive(int(name[1])):
            part.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _sync_directory(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
