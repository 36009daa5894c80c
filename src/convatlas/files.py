"""The one writer of everything that must survive: temporary file, fsync, rename, fsync of the directory, re-read.

A reader therefore sees the old file or the whole new one, never a part, whatever kills the writer.
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from .errors import ResourceError, explain

PASSING = (errno.EIO, errno.ESTALE, errno.EDQUOT)  # of network file systems and quotas: may soon be over
WAITS = (1, 5, 25)  # seconds before another try
MIB = 1 << 20
T = TypeVar("T")


def write_pieces(path: str | os.PathLike, pieces: Iterable[bytes | memoryview]) -> Path:
    """Create or replace `path` by the bytes of the pieces, which must come out the same as often as they are asked for.

    Raises ResourceError; `path` is then the old file or, if it failed after the rename, the whole new one.
    """
    path = Path(path)
    try:
        patiently(lambda: _write(path, pieces))
    except OSError as error:
        what = f"cannot write {path}: {explain(error)}"
        if error.errno == errno.ENOSPC:
            needed = sum(map(len, pieces))
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(path.parent).free
                what += f" (needs {needed / 1e6:,.1f} MB, free {free / 1e6:,.1f} MB)"
        raise ResourceError("C2", what, "free space or choose a writable place, then run again") from error
    return path


def write_bytes(path: str | os.PathLike, content: bytes) -> Path:
    """`write_pieces` for content at hand."""
    return write_pieces(path, [content])


def write_text(path: str | os.PathLike, content: str) -> Path:
    """`write_pieces` for UTF-8 text."""
    return write_bytes(path, content.encode("utf-8", "surrogateescape"))


def patiently(action: Callable[[], T]) -> T:
    """What `action` returns; an error that may pass is given three more tries in half a minute."""
    for wait in WAITS:
        try:
            return action()
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(wait)
    return action()


def cache_folder() -> Path:
    """`$CONVATLAS_CACHE`, else `convatlas` where the system keeps caches."""
    if os.environ.get("CONVATLAS_CACHE"):
        return Path(os.environ["CONVATLAS_CACHE"]).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "convatlas"


def sweep(folder: Path) -> None:
    """Remove the temporary files that writers of dead processes left in `folder` and below."""
    for part in folder.rglob(".*.part"):
        name = re.fullmatch(r"\..+\.(\d+)-[0-9a-f]{8}\.part", part.name)
        if name and (int(name[1]) == os.getpid() or not alive(int(name[1]))):  # containers give the same ids again
            part.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether a process of this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        _reach("open")
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            _reach("write")
            for piece in pieces:
                file.write(piece)
            _reach("flush")
            file.flush()
            _reach("fsync")
            os.fsync(file.fileno())
        _reach("rename")
        part.replace(path)
        _reach("dirsync")
        _sync_directory(path.parent)
        _reach("reread")
        _reread(path, pieces)
        _reach("done")
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _sync_directory(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reread(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise OSError(errno.ESTALE, "the new file has not appeared under its name") from None
    with file:
        for piece in map(memoryview, pieces):
            for start in range(0, len(piece), MIB):
                expected = piece[start : start + MIB].tobytes()
                if file.read(len(expected)) != expected:
                    raise OSError(errno.EIO, "the new file does not hold what was written")
        if file.read(1):
            raise OSError(errno.EIO, "the new file holds more than was written")


_reached: Counter[str] = Counter()


def _reach(point: str) -> None:
    """For tests: `CONVATLAS_FAULT=ENOSPC@write:3` fails the third write, `EIO@fsync:2+` all from the second on.

    `kill` in place of the error's name kills the process there.
    """
    fault, _, place = os.environ.get("CONVATLAS_FAULT", "").partition("@")
    wanted, _, number = place.partition(":")
    if wanted != point:
        return
    _reached[point] += 1
    first = int(number.removesuffix("+"))
    if _reached[point] == first or (_reached[point] > first and number.endswith("+")):
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, fault)
        raise OSError(code, os.strerror(code))
