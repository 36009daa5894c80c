"""Where a training process gets its memory from."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Make this process keep the memory that it frees, for the next step will want as much again.

    By default glibc gives large blocks back to the system, and of every page that comes again the system first makes
    zeros: in a step of MobileNet v2 that is a quarter of the time or more.  The price is some memory, a tenth or so,
    and that it comes back only at the end.  Holds for the whole process, so it is for programs to call, early.
    False where the C library has no such setting: then nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
