"""Whole training processes in hostile surroundings: files that vanish, logs that can't be written, odd environments."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from commands import ENVIRONMENT, differences, wait_for, write_pictures
from tiny import images

RECIPE = ["--network", "tiny", "--size", 12, "--recipe", "small", "--batch", 8, "--lr", 0.02, "--threads", 1]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures", images(96, 0))


def command(data: Path, out: Path, *more) -> list:
    return ["train", "--data", data, "--out", out, *RECIPE, "--epochs", 3, *more]


@pytest.fixture(scope="module")
def undisturbed(server, data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert server.run(command(data, folder / "run"), folder / "output") == 0, (folder / "output").read_text()
    return folder / "run"


def result_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_a_rate_too_high_ends_it_with_the_batch_named_and_finite_weights_kept(tmp_path, server, data):  # T1
    output = tmp_path / "output"
    assert server.run(command(data, tmp_path / "run", "--lr", 1e30, "--warmup", 0), output) == 5, output.read_text()
    last = output.read_text().splitlines()[-1]
    named = r"in 3 steps up to 3 at lr [0-9.]+e\+(29|30) \(batch: [abc]/\d{4}\.png, .* and 5 more\)"
    assert re.match(rf"error\[T1\]: loss or gradient not finite {named}. Remedy: lower --lr, ", last), last
    assert not (tmp_path / "run/model.safetensors").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_during_training_is_named_and_once_it_is_back_it_goes_on(
    tmp_path, server, data, undisturbed, workers
):  # D15
    ours, run, output = tmp_path / "pictures", tmp_path / "run", tmp_path / "output"
    shutil.copytree(data, ours)
    lazy = command(ours, run, "--on-bad-file", "lazy", "--workers", workers)
    pid = server.start(lazy, output)
    wait_for(run / "log.csv")
    os.kill(pid, signal.SIGSTOP)
    gone = json.loads((run / "split.json").read_text())["train"][5]
    (ours / gone).rename(tmp_path / "gone")
    os.kill(pid, signal.SIGCONT)
    assert server.wait() == 3, output.read_text()
    last = output.read_text().splitlines()[-1]
    assert last == f"error[D15]: {ours / gone}: no such file. Remedy: restore it, or scan the folder again"
    (tmp_path / "gone").rename(ours / gone)
    assert server.run(lazy, output) == 0, output.read_text()
    assert "going on at step " in output.read_text()
    assert differences(run, undisturbed) == []


def test_read_only_data_is_left_as_it_is_and_an_unreadable_file_is_named(tmp_path, server, data):  # D14
    ours, run, output = tmp_path / "pictures", tmp_path / "run", tmp_path / "output"
    shutil.copytree(data, ours)
    (ours / "a/0000.png").chmod(0)
    for folder in (*ours.iterdir(), ours):
        folder.chmod(0o555)
    before = sorted((path, path.stat().st_mtime_ns) for path in ours.rglob("*"))
    assert server.run(command(ours, run), output, plain=True) == 3
    reason = f"{ours / 'a/0000.png'}: permission denied (uid {os.geteuid()})"
    assert output.read_text().splitlines()[-1].startswith(f"error[D14]: {reason}. Remedy: make it readable")
    assert server.run(command(ours, run, "--on-bad-file", "skip"), output, plain=True) == 0, output.read_text()
    (row,) = (run / "bad_files.jsonl").read_text().splitlines()
    assert json.loads(row) == {"name": "a/0000.png", "label": "a", "id": "D14", "reason": reason, "sha256": None}
    assert sorted((path, path.stat().st_mtime_ns) for path in ours.rglob("*")) == before
    for folder in (ours, *ours.iterdir()):
        folder.chmod(0o755)


def test_a_tensorboard_folder_that_is_lost_costs_one_warning(tmp_path, server, data, undisturbed):  # T10
    run, output = tmp_path / "run", tmp_path / "output"
    pid = server.start(command(data, run), output)
    wait_for(run / "log.csv")
    os.kill(pid, signal.SIGSTOP)
    shutil.rmtree(run / "tensorboard")
    os.kill(pid, signal.SIGCONT)
    assert server.wait() == 0, output.read_text()
    assert "Traceback" not in output.read_text()
    assert output.read_text().count("warning: TensorBoard's log is given up: ") == 1
    (warning,) = result_of(run)["warnings"]
    assert warning.startswith("TensorBoard's log is given up: ")
    assert differences(run, undisturbed) == ["tensorboard"]


CLOCK = """
import itertools, time
jumps = itertools.cycle((0.0, 4e9, 1e3, 2e9, -5.0))
time.time = lambda: next(jumps)
time.time_ns = lambda: int(1e9 * next(jumps))
"""


def test_odd_clocks_languages_and_terminals_change_nothing(tmp_path, data, undisturbed):  # T9
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    script = Path(__file__).with_name("fork_server.py")
    argv = [str(word) for word in command(data, tmp_path / "run")]
    job = {"argv": argv, "output": str(tmp_path / "output")}
    odd = {
        "PYTHONPATH": str(tmp_path),
        "LC_ALL": "tr_TR.ISO-8859-9",
        "TZ": "Pacific/Kiritimati",
        "TERM": "dumb",
        "COLUMNS": "1",
        "LINES": "-3",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("HOME", "LANG")} | odd
    done = subprocess.run(
        [sys.executable, script],
        input=json.dumps(job) + "\n",
        env=environment,
        umask=0o077,
        text=True,
        capture_output=True,
    )
    assert done.stdout.split()[-1] == "0", done.stderr or (tmp_path / "output").read_text()
    assert "warning" not in (tmp_path / "output").read_text()
    assert differences(tmp_path / "run", undisturbed) == []
    assert stat.S_IMODE((tmp_path / "run/model.safetensors").stat().st_mode) == 0o600


def test_the_newest_state_is_known_by_its_step_not_by_its_time(tmp_path, server, data, undisturbed):  # T9
    run, output = tmp_path / "run", tmp_path / "output"
    pid = server.start(command(data, run), output)
    wait_for(run / "log.csv")
    os.kill(pid, signal.SIGTERM)
    assert server.wait() == 143
    steps = sorted(run.glob("checkpoint-*"))
    for age, path in enumerate(steps):
        os.utime(path, (1e9 - age, 1e9 - age))  # the newest is the oldest
    assert server.run(command(data, run), output) == 0
    assert f"going on at step {int(steps[-1].stem.removeprefix('checkpoint-'))} of " in output.read_text()
    assert differences(run, undisturbed) == []
