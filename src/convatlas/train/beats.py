"""Signs of life: each process of a job leaves one at regular times and looks for those of the next, in the job's store.

So one that was stopped or whose machine is gone is found and named, and one that is only slow is left alone.
"""

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from ..errors import DistributedError
from .distributed import World

LOOKS = 8  # within the time after which a silent process counts as hung
ANSWER = timedelta(seconds=30)  # for the store


class Beats(threading.Thread):
    """Beats until `end`; a next process that is silent for `timeout` seconds ends this one, exit code 7 (R2)."""

    def __init__(self, store: Store, world: World, timeout: float):
        super().__init__(daemon=True)
        self.store, self.world, self.timeout = store.clone(), world, timeout
        self.store.set_timeout(ANSWER)
        self.over = threading.Event()
        self.beat(0)

    def beat(self, number: int) -> None:
        """Leave a sign of life."""
        self.store.set(f"beat/{self.world.rank}", f"{number} {os.getpid()} {socket.gethostname()}")

    def run(self) -> None:
        """Silence is counted in own looks, so that nobody is blamed when all were suspended together."""
        following = (self.world.rank + 1) % self.world.size
        number, silent, heard = 0, 0, b""
        while not self.over.wait(self.timeout / LOOKS):
            number, before = number + 1, heard
            try:
                self.beat(number)
                heard = self.store.get(f"beat/{following}")
            except RuntimeError:
                self.leave("the process that keeps the job's store does not answer")
                return
            silent = silent + 1 if heard == before else 0
            if silent >= LOOKS:
                _, pid, host = heard.decode().split(" ", 2)
                if host == socket.gethostname():
                    with suppress(OSError):
                        os.kill(int(pid), signal.SIGCONT)  # if it was only stopped, it sees that the others have gone
                silence = f"silent for {self.timeout:g} s, at step {self.world.step}"
                self.leave(f"rank {following} (pid {pid} on {host}) has been {silence}")

    def leave(self, what: str) -> None:
        """End this process at once, since its main thread waits for one that does not answer."""
        if self.over.is_set():
            return
        error = DistributedError("R2", what, "the same command goes on from the newest checkpoint")
        if first_cause(self.store, self.world.rank, error.exit_code)[0] == self.world.rank:
            print(error, file=sys.stderr, flush=True)
        os._exit(error.exit_code)

    def end(self) -> None:
        """Beat no more."""
        self.over.set()
        self.join()


def first_cause(store: Store, rank: int, code: int) -> tuple[int, int]:
    """The rank that was first to give a cause for the end of the job, and the exit code; `rank` gives `code` now."""
    try:
        cause = store.compare_set("cause", "", f"{rank} {code}")
    except RuntimeError:  # the store is lost too
        return rank, code
    first, its_code = cause.split()
    return int(first), int(its_code)
