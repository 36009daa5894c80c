"""Which image is being read, and for how long: so that a read that never ends is noticed and its file named (T5)."""

import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import ResourceError

LOOKS = 10  # within the time a read may take; the time for which the processes were suspended counts as one

REMEDY = "check the disk or network that holds it, or give a longer --read-timeout"


class Mark:
    """The image a reader is at, in memory that processes forked later share."""

    def __init__(self):
        self._cells = memoryview(mmap.mmap(-1, 16)).cast("q")
        self.leave()

    def at(self, index: int) -> None:
        """Reading image `index` begins."""
        self._cells[1] += 1
        self._cells[0] = index

    def leave(self) -> None:
        """Nothing is being read."""
        self._cells[0] = -1

    @property
    def index(self) -> int | None:
        """The image being read, if any."""
        return None if self._cells[0] < 0 else self._cells[0]

    @property
    def begun(self) -> int:
        """How many reads have begun so far."""
        return self._cells[1]


class Watchdog:
    """Looks at a mark every `pause` seconds, and finds the read hung once it has been the same for `timeout`."""

    def __init__(self, mark: Mark, timeout: float):
        self.mark, self.timeout, self.pause = mark, timeout, timeout / LOOKS
        self._seen, self._times = -1, 0

    def finds_it_hung(self) -> bool:
        """Look once."""
        same = self.mark.index is not None and self.mark.begun == self._seen
        self._seen, self._times = self.mark.begun, self._times + 1 if same else 0
        return self._times >= LOOKS


@contextmanager
def watched(mark: Mark, name_of: Callable[[int], str], timeout: float) -> Iterator[None]:
    """Within it, this process ends with exit code 6 and the error T5 if it reads one image for `timeout` seconds.

    It ends at once, since what waits in the kernel cannot be called back.
    """
    over, dog = threading.Event(), Watchdog(mark, timeout)

    def watch() -> None:
        while not over.wait(dog.pause):
            if dog.finds_it_hung() and mark.index is not None:
                what = f"{name_of(mark.index)} has been read for more than {timeout:g} s"
                error = ResourceError("T5", what, REMEDY)
                print(error, file=sys.stderr, flush=True)
                os._exit(error.exit_code)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
