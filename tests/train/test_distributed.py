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
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from convatlas.errors import ConfigError
from convatlas.train.checkpoint import saved
from convatlas.train.fsdp import refuse_what_cannot_be_sharded
from convatlas.train.job import attempt_of_torchrun, join
from convatlas.train.recipe import Recipe
from convatlas.weights import read_tensors

from commands import ENVIRONMENT, differences, serving, wait_for, write_pictures
from tiny import images

RECIPE = ["--network", "tiny", "--size", 12, "--recipe", "small", "--epochs", 3, "--batch", 12, "--lr", 0.02]
RECIPE += ["--threads", 1, "--save-every", 0.1]
JOB = [*RECIPE, "--processes", 3]
COUNTS = (1, 2, 3, 11, 12, 13)


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


def assert_they_end(pids: list[int]) -> None:
    """Within 5 seconds."""
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def as_rank(rank: int, port: int, size: int = 2) -> dict[str, str]:
    """The environment of a process that no launcher of ours has started."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**where, "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_three_processes_do_what_one_does(start):
    script = Path(__file__).with_name("three_ranks.py")
    done = subprocess.run([sys.executable, script, start], capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sum"] == [0.1 + 0.1 + 0.1, 3]
    assert found["most"] == [2, 0]
    assert found["gathered"] == [list(range(count)) for count in COUNTS]  # each image once
    assert found["predictions equal"] == [True] * len(COUNTS)
    assert found["statistics"] == [1]  # in all of them, the leading one's
    what = "error[R6]: rank 2 differs from rank 0: recipe.lr 0.1 -> 0.2. Remedy: start the same command"
    assert found["disagreement"].startswith(what)
    what, begun = found["misled"]
    assert what.startswith("error[R6]: rank 2 differs from rank 0: seed 0 -> 1. Remedy: ")
    assert not begun
    together, alone = found["rows"]
    assert together == pytest.approx(alone, rel=1e-5)
    assert found["apart"] < 1e-5 < 0.01 < found["moved"]


@pytest.mark.parametrize(
    ("number", "who"), [(signal.SIGTERM, "launcher"), (signal.SIGINT, "group"), (signal.SIGINT, 2)]
)
def test_one_signal_to_anyone_saves_and_the_same_command_goes_on(tmp_path, server, data, undisturbed, number, who):
    run, output = tmp_path / "run", tmp_path / "output"
    launcher = server.start(command(data, run), output)
    wait_for(run / "log.csv")
    if who == "group":  # as a terminal does
        os.killpg(launcher, number)
    else:
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


def test_a_process_that_is_silent_is_named_and_all_start_again(tmp_path, server, data, undisturbed):
    run, output = tmp_path / "run", tmp_path / "output"
    launcher = server.start(command(data, run, "--timeout", 2), output)
    wait_for(run / "log.csv")
    stopped = ranks_of(launcher)[2]
    os.kill(stopped, signal.SIGSTOP)
    sent = time.monotonic()
    while "error" not in output.read_text():
        time.sleep(0.02)
    assert 1 < time.monotonic() - sent < 2 + 5
    assert server.wait() == 0, output.read_text()
    who = rf"rank 2 \(pid {stopped} on {re.escape(socket.gethostname())}\)"
    what = rf"error\[R2\]: {who} has been silent for 2 s, at step \d+\."
    assert re.search(what, output.read_text())
    assert output.read_text().count("error[") == 1
    assert not alive(stopped)
    assert differences(run, undisturbed) == []


def test_no_process_outlives_the_launcher(tmp_path, server, data):
    launcher = server.start(command(data, tmp_path / "run", "--epochs", 50), tmp_path / "output")
    wait_for(tmp_path / "run/log.csv")
    ranks = ranks_of(launcher)
    assert len(ranks) == 3
    assert all(map(alive, ranks))
    os.kill(launcher, signal.SIGKILL)
    server.wait()
    assert_they_end(ranks)


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


def test_weights_in_parts_are_trained_as_whole_ones_are_and_go_on_bitwise(tmp_path, server, data):
    output, runs = tmp_path / "output", {name: tmp_path / name for name in ("whole", "parts", "stopped")}
    jobs = {name: command(data, run, "--processes", 2, "--epochs", 2, job=RECIPE) for name, run in runs.items()}
    for name in ("whole", "parts"):
        jobs[name] += ["--ema", 0, *(["--shard"] if name == "parts" else [])]
        assert server.run(jobs[name], output) == 0, output.read_text()
    jobs["stopped"] += ["--ema", 0, "--shard"]
    launcher = server.start(jobs["stopped"], output)
    wait_for(runs["stopped"] / "log.csv")
    os.kill(launcher, signal.SIGTERM)
    assert server.wait() == 143, output.read_text()
    assert server.run(jobs["stopped"], output) == 0, output.read_text()
    assert "going on at step " in output.read_text()
    assert differences(runs["stopped"], runs["parts"]) == []
    whole, parts = (read_tensors(saved(runs[name])[0])[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[name], parts[name], rtol=0, atol=1e-5) for name in whole)


@pytest.mark.parametrize("fields", [{"ema": 0.9}, {"polyak": 0.5}, {"accumulate": 2}])
def test_weights_in_parts_have_their_limits(fields):
    with pytest.raises(ConfigError, match=f"--shard .*{next(iter(fields))}"):
        refuse_what_cannot_be_sharded(Recipe(**fields))
    refuse_what_cannot_be_sharded(Recipe())


def test_one_process_has_no_parts():
    with pytest.raises(ConfigError, match="add --processes"), join("cpu", 60, shard=True):
        pass


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_torchruns_store_is_a_new_one_at_each_start(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert attempt_of_torchrun() == "2"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on each host"):
        attempt_of_torchrun()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")  # what that variable leads to
    assert attempt_of_torchrun() == ""


@pytest.fixture
def torchrun(tmp_path, data, request) -> Iterator[subprocess.Popen]:
    """Two processes that train for so many epochs, on one host, where it needs no variable to be set."""
    tools, run, output = Path(sys.executable).parent, tmp_path / "run", tmp_path / "output"
    more = ["--network", "resnet20", "--size", 16, "--epochs", request.param]
    launch = ["--standalone", "--nproc-per-node", 2, "--max-restarts", 3, "--no-python", tools / "convatlas"]
    argv = [tools / "torchrun", *launch, *command(data, run, *more, job=RECIPE)]
    with output.open("w") as file:
        process = subprocess.Popen([*map(str, argv)], stdout=file, stderr=file, env=ENVIRONMENT)
    wait_for(run / "log.csv")
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [4], indirect=True)
def test_torchrun_starts_again(tmp_path, torchrun):
    os.kill(ranks_of(torchrun.pid)[0], signal.SIGKILL)
    assert torchrun.wait(120) == 0, (tmp_path / "output").read_text()
    assert "exitcode: -9" in (tmp_path / "output").read_text()
    assert (tmp_path / "run/result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [1000], indirect=True)
def test_no_process_outlives_torchrun(torchrun):
    ranks = ranks_of(torchrun.pid)
    torchrun.kill()
    assert_they_end(ranks)
