"""C11, C12: two processes never write into one folder, and a dead one keeps nobody out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from convatlas.errors import ResourceError
from convatlas.train import lock
from convatlas.train.run import Run

CONFIG = {"seed": 0}
HOLD = """
import errno, fcntl, os, socket, sys, time, warnings
from pathlib import Path
from convatlas.errors import ResourceError
from convatlas.train import lock

warnings.simplefilter("ignore")
lock.BEAT = 0.05
path = Path(sys.argv[1]) / "lock"

def no_locks(descriptor, how):
    raise OSError(errno.ENOLCK, "No locks available")

"""
WITHOUT_FLOCK = "fcntl.flock = no_locks\n"
SLOW_BEAT = "lock.BEAT = 1\n"  # so that a busy machine does not make a holder seem dead
ELSEWHERE = "socket.gethostname = lambda: 'elsewhere'\n"
WAIT = "lock.acquire(path); print(flush=True); sys.stdin.read()"


@contextmanager
def process(folder, *script):
    """A process that runs the script and has printed its first line."""
    command = [sys.executable, "-c", HOLD + "".join(script), folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        yield holder
        holder.kill()


@pytest.fixture
def without_flock(monkeypatch):
    def no_locks(descriptor, how):
        raise OSError(lock.errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    monkeypatch.setattr(lock, "BEAT", 0.4)  # so that a holder may be slow eight times in a row


@pytest.fixture(autouse=True)
def let_go():
    yield
    for path in list(lock._held):
        lock.release(path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_is_refused_at_once_and_told_who_has_it(tmp_path):
    with process(tmp_path, WAIT) as holder:
        started = time.monotonic()
        with pytest.raises(ResourceError) as caught:
            Run(tmp_path).open(CONFIG, {})
        assert time.monotonic() - started < 0.5
        assert caught.value.id == "C11"
        assert caught.value.exit_code == 6
        since = json.loads((tmp_path / "lock").read_text())["since"]
        assert caught.value.what == (
            f"{tmp_path} is in use by pid {holder.pid} on host {socket.gethostname()} since {since}"
        )
        assert names(tmp_path) == ["lock"]


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path):
    with process(tmp_path, WAIT) as holder:
        holder.kill()
        holder.wait()
        assert not Run(tmp_path).open(CONFIG, {})
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_process_may_open_its_run_again_by_any_name_and_close_it(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    run = Run(tmp_path / "run")
    run.open(CONFIG, {})
    Run(tmp_path / "link").open(CONFIG, {})
    assert names(run.folder) == ["lock", "run.json"]
    run.close()
    run.close()
    assert names(run.folder) == ["run.json"]
    with process(run.folder, WAIT), pytest.raises(ResourceError, match="C11"):
        run.open(CONFIG, {})


def test_a_run_that_is_refused_is_not_held(tmp_path):
    run = Run(tmp_path)
    run.open(CONFIG, {})
    run.close()
    with pytest.raises(Exception, match="L4"):
        run.open({"seed": 1}, {})
    assert names(tmp_path) == ["run.json"]


def test_its_own_workers_do_not_keep_the_lock_of_a_killed_process(tmp_path):
    fork = "lock.acquire(path)\nif os.fork() == 0: print(flush=True)\ntime.sleep(60)"
    with process(tmp_path, fork) as holder:
        with open(f"/proc/{holder.pid}/task/{holder.pid}/children") as file:  # noqa: PTH123
            worker = int(file.read())
        holder.kill()
        holder.wait()
        os.kill(worker, 0)
        try:
            assert not Run(tmp_path).open(CONFIG, {})
        finally:
            os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("how", ["", WITHOUT_FLOCK + SLOW_BEAT], ids=["flock", "without"])
def test_never_two_at_a_time(tmp_path, how):
    again = """
inside, rounds = path.with_name("inside"), 0
while rounds < 100 and time.monotonic() < END:
    try:
        lock.acquire(path)
    except ResourceError:
        time.sleep(0.0002)
        continue
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is inside
    inside.unlink()
    lock.release(path)
    rounds += 1
print(rounds)
"""
    command = [sys.executable, "-c", HOLD + how + again.replace("END", str(time.monotonic() + 3)), tmp_path]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    rounds = [int(process.communicate()[0] or -1) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(rounds) > 10
    assert names(tmp_path) == []


# --- where the file system has no flock (C12; a shim) ---


@pytest.mark.filterwarnings("ignore:the file system of")
@pytest.mark.parametrize("host", ["", ELSEWHERE], ids=["here", "elsewhere"])
def test_without_flock_a_living_holder_keeps_others_out(tmp_path, without_flock, host):
    with process(tmp_path, WITHOUT_FLOCK, host, WAIT) as holder:
        with pytest.raises(ResourceError, match=rf"C11.* is in use by pid {holder.pid} on host"):
            Run(tmp_path).open(CONFIG, {})
        assert names(tmp_path) == ["lock"]
        holder.kill()
        holder.wait()
        started = time.monotonic()
        assert not Run(tmp_path).open(CONFIG, {})
        assert host or time.monotonic() - started < 2 * lock.BEAT  # here one sees that it is dead


def test_without_flock_a_warning_says_so(tmp_path, without_flock):
    with pytest.warns(RuntimeWarning, match=rf"file system of {tmp_path} has no locks"):
        Run(tmp_path).open(CONFIG, {})
    touched = (tmp_path / "lock").stat().st_mtime_ns
    deadline = time.monotonic() + 10
    while (tmp_path / "lock").stat().st_mtime_ns == touched:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore:the file system of")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_a_lock_file_that_nobody_touches_is_taken_over_whatever_it_holds(tmp_path, without_flock, monkeypatch, content):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    (tmp_path / "lock").write_bytes(content)
    assert not Run(tmp_path).open(CONFIG, {})


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": 3}'])
def test_a_holder_that_has_not_signed_yet_is_another_process(tmp_path, content):
    with process(tmp_path, WAIT):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(ResourceError, match=r"C11.* is in use by another process\. Remedy"):
            Run(tmp_path).open(CONFIG, {})
