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

from convatlas.train.run import png

from tiny import images

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
RECIPE = ["--network", "resnet20", "--recipe", "small", "--epochs", "4", "--batch", "8", "--threads", "1"]


class Server:
    """Starts commands, one at a time, through `fork_server.py`."""

    def __init__(self):
        script = Path(__file__).with_name("fork_server.py")
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        assert self.process.stdout.readline().startswith("ready")

    def start(self, argv, output: Path, memory: int | None = None) -> int:
        """The process's id."""
        job = {"argv": [str(word) for word in argv], "output": str(output), "memory": memory}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self) -> int:
        """The exit code, or minus the number of the signal that killed it."""
        return int(self.process.stdout.readline())

    def run(self, argv, output: Path, **more) -> int:
        """Start and wait."""
        self.start(argv, output, **more)
        return self.wait()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.process.communicate()
    assert server.process.returncode == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder of pictures in three classes."""
    folder, pictures = tmp_path_factory.mktemp("pictures"), images(96, 0)
    for index in range(len(pictures)):
        pixels, label = pictures[index]
        path = folder / pictures.classes[label] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(pixels))
    return folder


def command(data: Path, out: Path, *more) -> list:
    return ["train", "--data", data, "--out", out, *RECIPE, *more]


@pytest.fixture(scope="module")
def undisturbed(server, data, tmp_path_factory) -> tuple[Path, float]:
    """The folder of a run that nothing happened to, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    assert server.run(command(data, folder / "run"), folder / "output") == 0, (folder / "output").read_text()
    return folder / "run", time.monotonic() - started


def assert_same_run(folder: Path, expected: Path) -> None:
    for name in ("model.safetensors", "best.safetensors", "log.csv", "log.jsonl", "test.jsonl", "split.json"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    result, wanted = (json.loads((f / "result.json").read_text()) for f in (folder, expected))
    assert {k: v for k, v in result.items() if k not in ("command", "train_seconds")} == {
        k: v for k, v in wanted.items() if k not in ("command", "train_seconds")
    }
    assert {p.name for p in folder.iterdir()} == {p.name for p in expected.iterdir()}  # so no torn files either


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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
    assert_same_run(run, undisturbed[0])


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
    assert_same_run(run, undisturbed[0])


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
    assert_same_run(run, undisturbed[0])


def test_killed_at_any_moment_the_same_command_goes_on(tmp_path, server, data, undisturbed):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments, kills = random.Random(seed), 0
    for attempt in range(6):
        run = tmp_path / f"run{attempt // 3}"
        pid = server.start(command(data, run, "--workers", moments.choice((0, 2))), tmp_path / "output")
        time.sleep(moments.uniform(0, 0.8) * undisturbed[1])
        with contextlib.suppress(ProcessLookupError):  # it was quicker
            os.killpg(pid, signal.SIGKILL)
        kills += server.wait() == -signal.SIGKILL
    assert kills > 2
    for run in (tmp_path / "run0", tmp_path / "run1"):
        assert server.run(command(data, run), tmp_path / "output") == 0, (tmp_path / "output").read_text()
        assert_same_run(run, undisturbed[0])


@pytest.mark.parametrize("megabytes", [100, 300, 900])
def test_without_memory_the_error_names_the_batch(tmp_path, server, data, megabytes):
    greedy = command(data, tmp_path / "run", "--size", 128, "--batch", 64)
    assert server.run(greedy, tmp_path / "output", memory=megabytes << 20) == 6, (tmp_path / "output").read_text()
    printed = (tmp_path / "output").read_text()
    assert "error[T3]: out of memory with batches of 64 images. Remedy: try --batch 32" in printed
    assert "Traceback" not in printed


def test_a_worker_that_dies_ends_it_with_a_remedy_and_the_same_command_goes_on(tmp_path, server, data, undisturbed):
    run, output = tmp_path / "run", tmp_path / "output"
    pid = server.start(command(data, run, "--workers", 2), output)
    wait_for(run / "log.csv")
    os.kill(int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]), signal.SIGKILL)
    assert server.wait() == 6
    assert "error[T4]: a process that reads images has died" in output.read_text()
    assert "Traceback" not in output.read_text()
    assert server.run(command(data, run), output) == 0, output.read_text()
    assert_same_run(run, undisturbed[0])
