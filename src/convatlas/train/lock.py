"""One run, one writer: a file says who writes into a folder, and the kernel guards it with `flock`.

The kernel lets go when the holder ends, however it ends.  Where a file system has no `flock`, whoever creates the file
holds it and touches it every few seconds; it is taken from a holder who no longer does.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ResourceError

WITHOUT_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
BEAT = 5.0  # seconds between two touches; a holder who misses two is gone

_held: dict[Path, int] = {}  # the lock files that this process holds, and their descriptors


def acquire(path: Path) -> None:
    """Hold the lock until `release` or the end of this process; to take it twice is to take it once.

    Raises ResourceError C11 if another process holds it, OSError if the file can't be written.
    """
    path = real(path)
    while path not in _held:
        descriptor, created = _open(path)
        try:
            guarded = _flock(path, descriptor)
            if not created and not guarded:
                _remove_if_abandoned(path, descriptor)
            elif _is_at(path, descriptor):
                _sign(descriptor)
                _held[path] = descriptor
                if not guarded:
                    threading.Thread(target=_beat, args=(path,), daemon=True).start()
        finally:
            if path not in _held:
                os.close(descriptor)


def release(path: Path) -> None:
    """Let go of the lock, if this process holds it."""
    path = real(path)
    descriptor = _held.pop(path, None)
    if descriptor is not None:
        path.unlink(missing_ok=True)  # first, so that it is not the next holder's
        os.close(descriptor)


def real(path: Path) -> Path:
    """The one name of a file that may have several."""
    return Path(os.path.realpath(path))  # `Path.resolve` raises on a loop of links; here opening it will


def _open(path: Path) -> tuple[int, bool]:
    """The file's descriptor, and whether the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        with contextlib.suppress(FileNotFoundError):  # removed in between
            return os.open(path, os.O_RDWR), False


def _flock(path: Path, descriptor: int) -> bool:
    """Whether the kernel guards the lock from now on.  Raises ResourceError C11 if it does so for another process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path) from None
    except OSError as error:
        if error.errno not in WITHOUT_FLOCK:
            raise
        what = f"the file system of {path.parent} has no locks; whoever touches {path.name} every {BEAT:g} s holds it"
        warnings.warn(what, RuntimeWarning, stacklevel=3)
        return False
    return True


def _remove_if_abandoned(path: Path, descriptor: int) -> None:
    """Raises ResourceError C11 if the holder still touches the file."""
    if _beats(path):
        raise _in_use(path)
    if _is_at(path, descriptor):  # and not that of somebody who was quicker
        path.unlink(missing_ok=True)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of that name: its holder may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)


def _holder(path: Path) -> dict[str, Any]:
    """What `_sign` wrote; empty if it has not yet."""
    try:
        holder = json.loads(path.read_bytes())
        return {"pid": int(holder["pid"]), "host": str(holder["host"]), "since": str(holder["since"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _in_use(path: Path) -> ResourceError:
    holder = _holder(path)
    who = "pid {pid} on host {host} since {since}".format(**holder) if holder else "another process"
    return ResourceError("C11", f"{path.parent} is in use by {who}", "give another --out, or stop that process")


def _beat(path: Path) -> None:
    """Touch the file for as long as it is held."""
    while path in _held:
        with contextlib.suppress(OSError):
            os.utime(path)
        time.sleep(BEAT)


def _beats(path: Path) -> bool:
    """Whether the file is touched within the time of two beats."""
    holder = _holder(path)
    if holder and holder["host"] == socket.gethostname() and not files.alive(holder["pid"]):
        return False
    touches = set()
    for _ in range(10):
        try:
            with path.open("rb") as file:  # NFS asks the server when a file is opened, not when it is looked at
                touches.add(os.fstat(file.fileno()).st_mtime_ns)
        except FileNotFoundError:
            return False
        if len(touches) > 1:
            return True
        time.sleep(BEAT / 4)
    return False


def _forget() -> None:
    """A fork is not the holder; and while its copy of a descriptor is open, the lock outlives the holder."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
