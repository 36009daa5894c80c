"""Jobs of several processes, as a user starts them: stopped, killed, hung, misled; and what they do together."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import ENVIRONMENT, differences, serving, wait_for, write_pictures
from tiny import images

RECIPE = ["--network", "tiny", "--size", 12, "--recipe", "small", "--epochs", 4, "--batch", 12, "--lr", 0.02]
RECIPE += ["--threads", 1, "--save-every", 0.1]
JOB = [*RECIPE, "--processes", 3]
COUNTS = (1, 2, 3, 11, 12, 13)


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def second_server():
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), images(60, 0))


@pytest.fixture(scope="module")
def undisturbed(server, data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert server.run(command(data, folder / "run"), folder / "output") == 0, (folder / "output").read_text()
    return folder / "run"


def command(data: Path, out: Path, *more: object, job: list[object] = JOB) -> list[object]:
    return ["train", "--data", data, "--out", out, *job, *more]


def ranks_of(launcher: int) -> list[int]:
    return sorted(map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()))


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def as_rank(rank: int, port: int, size: int = 2) -> dict[str, str]:
    """The environment of a process that no launcher of ours has started."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**where, "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def test_three_processes_do_what_one_does():
    script = Path(__file__).with_name("three_ranks.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sum"] == [0.1 + 0.1 + 0.1, 3]
    assert found["most"] == [2, 0]
    assert found["gathered"] == [list(range(count)) for count in COUNTS]  # each image once
    assert found["predictions equal"] == [True] * len(COUNTS)
    assert found["statistics"] == [1.0]
    what = "error[R6]: rank 2 differs from rank 0: recipe.lr 0.1 -> 0.2. Remedy: start the same command"
    assert found["disagreement"].startswith(what)
    together, alone = found["rows"]
    assert together == pytest.approx(alone, rel=1e-5)
    assert found["apart"] < 1e-5 < 0.01 < found["moved"]


@pytest.mark.parametrize(("number", "who"), [(signal.SIGTERM, "launcher"), (signal.SIGINT, 2)])
def test_one_signal_to_anyone_saves_and_the_same_command_goes_on(tmp_path, server, data, undisturbed, number, who):
    run, output = tmp_path / "run", tmp_path / "output"
    launcher = server.start(command(data, run), output)
    wait_for(run / "log.csv")
    os.kill(launcher if who == "launcher" else ranks_of(launcher)[who], number)
    assert server.wait() == 128 + number, output.read_text()
    lines = [line for line in output.read_text().splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"error[T2]: stopped by signal {int(number)}; the state at step ")
    assert server.run(command(data, run), output) == 0, output.read_text()
    assert "going on at step " in output.read_text()
    assert differences(run, undisturbed) == []


def test_the_cause_is_told_once_and_is_the_exit_code(tmp_path, server, data):
    bad = write_pictures(tmp_path / "pictures", images(60, 0))
    run, output = tmp_path / "run", tmp_path / "output"
    job = command(bad, run, "--on-bad-file", "lazy", "--epochs", 50)
    server.start(job, output)
    wait_for(run / "log.csv")
    split = json.loads((run / "split.json").read_text())
    victim = next(
        path for path in sorted(bad.rglob("*.png")) if f"{path.parent.name}/{path.name}" in str(split["train"])
    )
    victim.write_bytes(victim.read_bytes()[:60])
    assert server.wait() == 3, output.read_text()
    printed = output.read_text().strip().splitlines()
    assert re.fullmatch(rf"error\[R3\]: rank [012]: error\[D\d+\]: .*{victim.name}.*", printed[-1])
    assert output.read_text().count("error[R3]") == 1
    assert "Traceback" not in output.read_text()
    assert "start again" not in output.read_text()


def test_no_process_outlives_the_launcher(tmp_path, server, data):
    launcher = server.start(command(data, tmp_path / "run", "--epochs", 50), tmp_path / "output")
    wait_for(tmp_path / "run/log.csv")
    ranks = ranks_of(launcher)
    assert len(ranks) == 3
    assert all(map(alive, ranks))
    os.kill(launcher, signal.SIGKILL)
    server.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, ranks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, ranks))


def test_what_kills_again_and_again_ends_it(tmp_path, server, data):
    """Three restarts, then exit code 7."""
    output, seen = tmp_path / "output", set()
    launcher = server.start(command(data, tmp_path / "run", "--epochs", 50), output)
    while alive(launcher):
        ranks = ranks_of(launcher)
        if len(ranks) == 3 and not seen & {*ranks}:
            os.kill(ranks[1], signal.SIGKILL)
            seen |= {*ranks}
        time.sleep(0.01)
    assert server.wait() == 7
    assert len(seen) == 4 * 3
    assert output.read_text().count("rank 1 was killed by signal 9; all start again") == 3
    assert output.read_text().splitlines()[-1].startswith("error[R1]: rank 1 was killed by signal 9, after 3 restarts")


def test_two_jobs_on_one_machine(tmp_path, server, second_server, data, undisturbed):
    for number, starter in enumerate((server, second_server)):
        starter.start(command(data, tmp_path / f"run{number}"), tmp_path / f"output{number}")
    for number, starter in enumerate((server, second_server)):
        assert starter.wait() == 0, (tmp_path / f"output{number}").read_text()
        assert differences(tmp_path / f"run{number}", undisturbed) == []


def test_a_port_in_use_is_named_with_its_holder(tmp_path, server, data):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        more = {"environment": as_rank(0, port)}
        assert server.run(command(data, tmp_path / "run", job=RECIPE), tmp_path / "output", **more) == 6
    printed = (tmp_path / "output").read_text()
    assert f"error[R5]: port {port} is in use by pid {os.getpid()}. Remedy: give another MASTER_PORT" in printed


def test_processes_that_differ_do_not_begin(tmp_path, server, second_server, data):
    port = free_port()
    for rank, starter in enumerate((server, second_server)):
        argv = command(data, tmp_path / "run", "--lr", 0.1 * (rank + 1), job=RECIPE)
        starter.start(argv, tmp_path / f"output{rank}", environment=as_rank(rank, port))
    assert [server.wait(), second_server.wait()] == [7, 7]
    printed = [(tmp_path / f"output{rank}").read_text() for rank in range(2)]
    told = [text for text in printed if "error[R6]: rank 1 differs from rank 0: recipe.lr 0.1 -> 0.2" in text]
    assert len(told) == 1
    assert not any("Traceback" in text for text in printed)
    assert not (tmp_path / "run").exists()
