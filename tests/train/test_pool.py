"""Workers that are killed, crash, hang and run out of room: found out at once, named, replaced once (T4, T5, T6)."""

import ctypes
import faulthandler
import itertools
import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from convatlas.data import Images
from convatlas.errors import ResourceError
from convatlas.train.augment import build_augment
from convatlas.train.loader import train_batches
from convatlas.train.order import Order
from convatlas.train.recipe import Recipe
from convatlas.train.watchdog import Mark, Watchdog

from tiny import PRE, SIDE, images

ORDER = Order(60, 6, 0, 3, 23)
PICTURES = images(60, 0)


class Disturbed:
    """Reads the pictures; `disturb` is called before image 17 is read, the first `times` times, in any process."""

    def __init__(self, folder: Path, disturb, times: int):
        self.folder, self.disturb, self.times = folder, disturb, times

    def __call__(self, index: int) -> torch.Tensor:
        if index == 17 and (happened := len(list(self.folder.iterdir()))) < self.times:
            (self.folder / str(happened)).touch()
            self.disturb()
        return PICTURES.read(index)


def crash():
    faulthandler.disable()
    ctypes.string_at(0)  # SIGSEGV


def hang():
    os.read(os.pipe()[0], 1)  # nobody will ever write to it


class Slow:
    """Takes `seconds` for each of the first `count` pictures."""

    def __init__(self, seconds: float, count: int):
        self.seconds, self.left = seconds, count

    def __call__(self, index: int) -> torch.Tensor:
        self.left -= 1
        time.sleep(self.seconds if self.left >= 0 else 0)
        return PICTURES.read(index)


def batches(read=PICTURES.read, workers=2, timeout=120.0):
    given = Images(PICTURES.classes, PICTURES.labels, PICTURES.names, read)
    return train_batches(given, build_augment(Recipe(augment="small"), PRE), SIDE, ORDER, workers, timeout)


def read_all(*args) -> list[bytes]:
    return [b"".join(t.numpy().tobytes() for t in batch) for batch in batches(*args)]


@pytest.fixture(scope="module")
def undisturbed() -> list[bytes]:
    return read_all(PICTURES.read, 0)


def children() -> list[int]:
    """Of the pool: other tests' fork server is a child of this process too."""
    return sorted(process.pid for process in multiprocessing.active_children())


@pytest.mark.parametrize(
    ("disturb", "timeout", "told"),
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            120,
            "killed by signal 9 while reading 0/17.png (out of memory?)",
        ),
        (crash, 120, "killed by signal 11 while reading 0/17.png"),
        (lambda: os._exit(7), 120, "ended with exit code 7 while reading 0/17.png"),
        (hang, 0.5, "has been reading 0/17.png for more than 0.5 s"),
        (lambda: time.sleep(60), 0.5, "has been reading 0/17.png for more than 0.5 s"),
    ],
    ids=["kill", "crash", "exit", "pipe", "sleep"],
)
def test_a_lost_worker_is_named_and_replaced_once(tmp_path, undisturbed, disturb, timeout, told):
    with pytest.warns(UserWarning, match="data worker") as warned:
        assert read_all(Disturbed(tmp_path, disturb, 1), 2, timeout) == undisturbed
    assert len(warned) == 1
    message = str(warned[0].message)
    assert told in message
    assert message.startswith(("data worker 0 ", "data worker 1 "))
    assert "new ones go on at step " in message
    again = tmp_path / "again"
    again.mkdir()
    with pytest.warns(UserWarning, match="data worker"), pytest.raises(ResourceError) as caught:
        read_all(Disturbed(again, disturb, 2), 2, timeout)
    assert told in caught.value.what
    assert caught.value.id == ("T5" if timeout < 1 else "T4")
    assert ("--read-timeout" if timeout < 1 else "fewer --workers or smaller --max-pixels") in caught.value.remedy
    assert caught.value.exit_code == 6
    assert children() == []


def test_a_worker_that_is_killed_between_steps_disturbs_no_step(undisturbed):  # torch's raises in the middle of one
    def step(number, batch) -> bytes:
        if number == 4:
            os.kill(children()[0], signal.SIGKILL)
            deadline = time.monotonic() + 0.3
            while time.monotonic() < deadline:  # the signal of its death comes meanwhile
                pass
        return b"".join(t.numpy().tobytes() for t in batch)

    with pytest.warns(UserWarning, match="killed by signal 9 while "):
        assert [step(number, batch) for number, batch in enumerate(batches())] == undisturbed


def test_workers_leave_it_to_their_parent_to_stop(undisturbed):  # T2
    def step(number, batch) -> bytes:
        if number == 4:
            for pid in children():
                os.kill(pid, signal.SIGINT)
                os.kill(pid, signal.SIGTERM)
        return b"".join(t.numpy().tobytes() for t in batch)

    assert [step(number, batch) for number, batch in enumerate(batches())] == undisturbed  # and no warning


def test_a_slow_worker_is_not_taken_for_a_hung_one(undisturbed):
    assert read_all(Slow(0.06, 12), 2, 0.3) == undisturbed  # a batch takes 0.36 s


def start_child(function) -> tuple[int, int]:
    """A forked process that calls `function`: its id, and the end of a pipe from its standard error."""
    ours, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(its, 2)
        sys.stderr = os.fdopen(2, "w")
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    os.close(its)
    return pid, ours


def wait_for_child(pid: int, pipe: int) -> tuple[int, str]:
    """What it ends with and prints."""
    with os.fdopen(pipe) as file:
        printed = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), printed


def in_a_child(function) -> tuple[int, str]:
    return wait_for_child(*start_child(function))


def test_a_hung_read_is_noticed_in_time():
    mark = Mark()
    dog = Watchdog(mark, 10)
    assert not any(dog.finds_it_hung() for _ in range(50))  # nothing is being read
    mark.at(3)
    looks = next(look for look in itertools.count(1) if dog.finds_it_hung())
    assert 10 <= looks * dog.pause < 12  # seconds
    mark.at(3)  # the same image again, in the next epoch
    assert not dog.finds_it_hung()


def test_a_process_that_was_suspended_is_not_taken_for_a_hung_one():
    child = start_child(lambda: read_all(Slow(0.4, 1), 0, 0.6))
    time.sleep(0.2)
    os.kill(child[0], signal.SIGSTOP)
    time.sleep(0.8)
    os.kill(child[0], signal.SIGCONT)
    assert wait_for_child(*child) == (0, "")


def test_without_workers_a_read_that_hangs_ends_the_process_and_names_the_file(tmp_path):  # T5
    code, printed = in_a_child(lambda: read_all(Disturbed(tmp_path, hang, 1), 0, 0.5))
    assert code == 6
    assert printed == (
        "error[T5]: 0/17.png has been read for more than 0.5 s. "
        "Remedy: check the disk or network that holds it, or give a longer --read-timeout\n"
    )


def test_batches_need_no_room_in_shared_memory_files(undisturbed):  # T6
    def without_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # what a full /dev/shm does, to all file systems
        with pytest.raises(OSError, match="File too large"):
            Path("/dev/shm/convatlas-test").write_bytes(b"x")
        Path("/dev/shm/convatlas-test").unlink()
        assert read_all(PICTURES.read, 2) == undisturbed

    assert in_a_child(without_files) == (0, "")


def test_workers_end_with_their_parent(tmp_path):
    def orphaned():
        reading = batches()
        next(reading)
        (tmp_path / "pids").write_text(" ".join(map(str, children())))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(orphaned)[0] == -signal.SIGKILL
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_those_who_stop_early_leave_no_workers():
    reading = batches()
    next(reading)
    assert len(children()) == 2
    reading.close()
    assert children() == []
