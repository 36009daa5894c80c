"""Whole training processes that are stopped, killed and starved: the same command goes on and ends bitwise alike."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import ENVIRONMENT, differences, wait_for, write_pictures
from tiny import images

RECIPE = ["--network", "resnet20", "--recipe", "small", "--epochs", "4", "--batch", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder of pictures in three classes."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), images(96, 0))


def command(data: Path, out: Path, *more) -> list:
    return ["train", "--data", data, "--out", out, *RECIPE, *more]


@pytest.fixture(scope="module")
def undisturbed(server, data, tmp_path_factory) -> tuple[Path, float]:
    """The folder of a run that nothing happened to, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    assert server.run(command(data, folder / "run"), folder / "output") == 0, (folder / "output").read_text()
    return folder / "run", time.monotonic() - started


@pytest.mark.parametrize(
    ("number", "group", "workers"),
    [(signal.SIGINT, False, 0), (signal.SIGTERM, False, 2), (signal.SIGINT, True, 2), (signal.SIGTERM, True, 2)],
    ids=["int", "term, workers", "int to all, workers", "term to all, workers"],
)
def test_one_signal_saves_and_the_same_command_goes_on(tmp_path, server, data, undisturbed, number, group, workers):
    run, output = tmp_path / "run", tmp_path / "output"
    pid = server.start(command(data, run, "--workers", workers), output)
    wait_for(run / "log.csv")
    sent = time.monotonic()
    (os.killpg if group else os.kill)(pid, number)
    code = server.wait()
    assert time.monotonic() - sent < 10
    printed = output.read_text()
    assert code == 128 + number, printed
    assert printed.splitlines()[-1].startswith(f"error[T2]: stopped by signal {int(number)}; the state at step ")
    assert "the same command goes on" in printed
    assert "Traceback" not in printed
    assert server.run(command(data, run), output) == 0, output.read_text()
    assert "going on at step " in output.read_text()
    assert differences(run, undisturbed[0]) == []


def test_the_installed_command_does_the_same(tmp_path, server, data, undisturbed):
    run, script = tmp_path / "run", Path(sys.executable).with_name("convatlas")
    if not script.exists():
        pytest.skip("convatlas is not installed as a command")
    process = subprocess.Popen(
        [script, *command(data, run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    wait_for(run / "log.csv")
    process.terminate()
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert printed == ""
    assert errors.splitlines()[-1].startswith("error[T2]: stopped by signal 15")
    assert server.run(command(data, run), tmp_path / "output") == 0
    assert differences(run, undisturbed[0]) == []


def test_a_second_signal_ends_it_at_once(tmp_path, server, data, undisturbed):
    run, output = tmp_path / "run", tmp_path / "output"
    pid = server.start(command(data, run), output)
    wait_for(run / "log.csv")
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):  # so that both come together
        os.kill(pid, number)
    assert server.wait() in (130, 143)  # which of the two comes second is the kernel's choice
    assert "error[T2]" not in output.read_text()
    assert not (run / "model.safetensors").exists()
    assert server.run(command(data, run), output) == 0, output.read_text()
    assert differences(run, undisturbed[0]) == []


@pytest.mark.parametrize("moments", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_stopped_at_any_moment_it_ends_within_seconds_and_the_same_command_goes_on(
    tmp_path, server, data, undisturbed, moments
):
    chance, stops = random.Random(moments), 0
    run, output = tmp_path / "run0", tmp_path / "output"
    while stops < moments:
        pid = server.start(command(data, run, "--workers", chance.choice((0, 2)), "--save-every", 0.1), output)
        time.sleep(chance.uniform(0, 0.8) * undisturbed[1])
        sent, numbers = time.monotonic(), chance.choices((signal.SIGINT, signal.SIGTERM), k=chance.choice((1, 1, 2)))
        for number in numbers:  # the second one ends it at once
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        code = server.wait()
        assert time.monotonic() - sent < 10
        assert code in (0, 130, 143, -signal.SIGTERM), output.read_text()  # the last before training, or after it
        assert "Traceback" not in output.read_text()
        stops += code != 0
        if code == 0:
            assert differences(run, undisturbed[0]) == []
            run = tmp_path / f"run{stops}"
    assert server.run(command(data, run), output) == 0, output.read_text()
    assert differences(run, undisturbed[0]) == []


@pytest.mark.parametrize("megabytes", [100, 300, 900])
def test_without_memory_the_error_names_the_batch(tmp_path, server, data, megabytes):
    greedy = command(data, tmp_path / "run", "--size", 128, "--batch", 64)
    assert server.run(greedy, tmp_path / "output", memory=megabytes << 20) == 6, (tmp_path / "output").read_text()
    printed = (tmp_path / "output").read_text()
    assert "error[T3]: out of memory with batches of 64 images. Remedy: try --batch 32" in printed
    assert "Traceback" not in printed


def test_a_worker_that_dies_is_replaced_once(tmp_path, server, data, undisturbed):  # T4
    run, output = tmp_path / "run", tmp_path / "output"
    pid = server.start(command(data, run, "--workers", 2), output)
    wait_for(run / "log.csv")
    kill_a_worker(pid)
    assert server.wait() == 0, output.read_text()
    assert output.read_text().count("warning: data worker ") == 1
    assert " was killed by signal 9 while " in output.read_text()
    assert differences(run, undisturbed[0]) == []
    assert any(
        "was killed by signal 9" in warning for warning in json.loads((run / "result.json").read_text())["warnings"]
    )


def test_the_second_worker_that_dies_ends_it_and_the_same_command_goes_on(tmp_path, server, data, undisturbed):  # T4
    run, output = tmp_path / "run", tmp_path / "output"
    pid = server.start(command(data, run, "--workers", 2), output)
    wait_for(run / "log.csv")
    first = kill_a_worker(pid)
    while first in workers(pid) or len(workers(pid)) < 2:
        time.sleep(0.01)
    kill_a_worker(pid)
    assert server.wait() == 6
    last = output.read_text().splitlines()[-1]
    assert last.startswith("error[T4]: data worker ")
    assert " was killed by signal 9 while " in last
    assert "Remedy: fewer --workers or smaller --max-pixels" in last
    assert "Traceback" not in output.read_text()
    assert server.run(command(data, run), output) == 0, output.read_text()
    assert differences(run, undisturbed[0]) == []


def workers(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_a_worker(pid: int) -> int:
    worker = workers(pid)[0]
    os.kill(worker, signal.SIGKILL)
    return worker
