"""Bulk prediction by Ray: the same file as without it, whatever becomes of its processes."""

import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.cli import main
from convatlas.deploy.on_ray import cut

from commands import ENVIRONMENT

pytestmark = pytest.mark.slow
COMMAND = "import sys; from convatlas.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def work(bundle, tmp_path_factory) -> Path:
    """A model, 1,200 images that take a while to decode, and what is in them."""
    pytest.importorskip("ray")
    root = tmp_path_factory.mktemp("ray")
    bundle.save(root / "model.safetensors")
    (root / "images").mkdir()
    for index in range(1200):
        file = io.BytesIO()
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels // 2 + np.uint8(index % 100)).resize((900, 900)).save(file, "JPEG")
        content = file.getvalue()
        (root / f"images/{index:04}.jpg").write_bytes(content[:99] if index % 400 == 7 else content)
    assert main(argv(root, "expected.jsonl")) == 3
    return root


def argv(root: Path, out: str, *more: str) -> list[str]:
    return ["predict", str(root / "model.safetensors"), str(root / "images"), "--out", str(root / out), *more]


def start(root: Path, out: str) -> subprocess.Popen:
    words = [sys.executable, "-c", COMMAND, *argv(root, out, "--engine", "ray", "--workers", "2")]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)


def actors(driver: int) -> list[int]:
    """The processes of Ray's actors below this one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::MapWorker" in status.read_bytes() and driver in ancestors(int(status.parent.name)):
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def wait_until(met) -> None:
    deadline = time.monotonic() + 120
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def pieces(root: Path, out: str) -> list[Path]:
    return list(root.glob(f"{out}.partial/0*"))


def test_two_actors_make_the_same_file(work):
    process = start(work, "plain.jsonl")
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 3, printed
    assert printed.endswith(f"{work}/plain.jsonl: 1,200 rows, 3 of them errors\n")
    assert (work / "plain.jsonl").read_bytes() == (work / "expected.jsonl").read_bytes()


def test_an_actor_that_is_killed_loses_and_doubles_nothing(work):
    process = start(work, "lost.jsonl")
    wait_until(lambda: pieces(work, "lost.jsonl"))
    lost = random.Random(0).choice(actors(process.pid))
    os.kill(lost, signal.SIGKILL)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 3, printed
    assert (work / "lost.jsonl").read_bytes() == (work / "expected.jsonl").read_bytes()


def test_the_driver_killed_and_started_again_goes_on(work):
    process = start(work, "driver.jsonl")
    wait_until(lambda: pieces(work, "driver.jsonl"))
    process.kill()
    process.communicate(timeout=60)
    kept = pieces(work, "driver.jsonl")
    assert kept
    assert main(argv(work, "driver.jsonl")) == 3  # what Ray began may be ended without it
    assert (work / "driver.jsonl").read_bytes() == (work / "expected.jsonl").read_bytes()


def test_a_signal_ends_it(work):
    process = start(work, "signal.jsonl")
    wait_until(lambda: pieces(work, "signal.jsonl"))
    process.terminate()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 143, printed
    assert "error[T2]: stopped by signal 15; " in printed
    wait_until(lambda: not actors(process.pid))
    assert main(argv(work, "signal.jsonl")) == 3
    assert (work / "signal.jsonl").read_bytes() == (work / "expected.jsonl").read_bytes()


def test_spans_are_cut():
    assert list(cut([range(0, 5), range(9, 11)], 2)) == [range(0, 2), range(2, 4), range(4, 5), range(9, 11)]
