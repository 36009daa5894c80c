"""Experiments in processes of their own: results in order, errors as they are, none left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convatlas.errors import ResourceError
from convatlas.lab.side_by_side import side_by_side

SLOW = "__import__('time').sleep(2) or 'slow'"
OWN_PID = "__import__('os').getpid()"
DIES = f"__import__('os').kill({OWN_PID}, 9)"
PROGRAM = f"""
from convatlas.lab.side_by_side import side_by_side
if __name__ == "__main__":
    side_by_side(eval, ["print({OWN_PID}, flush=True) or __import__('time').sleep(300)"] * 2, 2, 1)
"""


def test_results_come_in_the_order_of_the_names_from_other_processes_with_the_threads_they_were_given():
    slow, pid, threads = side_by_side(eval, [SLOW, OWN_PID, "__import__('torch').get_num_threads()"], 2, 3)
    assert (slow, threads) == ("slow", 3)
    assert pid != os.getpid()


def test_an_error_comes_through_and_what_has_not_begun_does_not_begin(tmp_path):
    late = tmp_path / "late"
    with pytest.raises(ZeroDivisionError):
        side_by_side(eval, ["1 / 0", SLOW, SLOW, SLOW, SLOW, f"open({str(late)!r}, 'w')"], 1, 1)
    assert not late.exists()


def test_a_process_that_is_killed_is_an_error_of_one_line():
    with pytest.raises(ResourceError, match="was killed"):
        side_by_side(eval, [SLOW, DIES], 2, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the children")
def test_none_outlives_its_parent():
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
