"""X1: a disk that fills up, or a kill at any point of the writing, leaves the old export or the whole new one."""

import resource
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from convatlas import files
from convatlas.data import Preprocess
from convatlas.deploy import open_engine
from convatlas.deploy.export import _write_pair, check, export_program
from convatlas.errors import ResourceError, WeightsError
from convatlas.weights import Bundle

from bundles import bundle_of
from commands import serving


@pytest.fixture(scope="module")
def new() -> Bundle:
    return bundle_of("resnet32", Preprocess(12, 12))  # told from the old one by its size, and larger


@pytest.fixture
def old(exported, tmp_path) -> dict[str, Path]:
    """Copies of the exports that are to be replaced."""
    shutil.copytree(exported["onnx"].parent, tmp_path / "old")
    return {to: tmp_path / "old" / path.name for to, path in exported.items()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def full_disk():
    """A disk on which a file may have so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_full_disk_leaves_the_old_export(old, new, to, full_disk):
    before = content(old[to].parent)
    full_disk(100_000)
    with pytest.raises(ResourceError, match="cannot write") as caught:
        export_program(new, to, old[to])
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)
    assert content(old[to].parent) == before


@pytest.mark.parametrize("fails", [1, 2])
def test_of_a_pair_both_files_stay_or_both_are_new(old, fails, monkeypatch):
    before = content(old["openvino"].parent)
    monkeypatch.setenv("CONVATLAS_FAULT", f"ENOSPC@write:{fails}")
    monkeypatch.setattr(files, "_reached", Counter())
    with pytest.raises(ResourceError, match="No space left on device"):
        _write_pair(old["openvino"], b"structure", b"weights")
    assert content(old["openvino"].parent) == before
    _write_pair(old["openvino"], b"structure", b"weights")
    after = content(old["openvino"].parent)
    assert after == before | {"model.xml": b"structure", "model.bin": b"weights"}


CASES = [
    (to, count, number, point)
    for to, count in (("onnx", 1), ("openvino", 2))  # after its files comes the card
    for number in range(1, count + 2)
    for point in ("open", "write", "fsync", "rename", "dirsync", "done")
]


@pytest.mark.slow
@pytest.mark.parametrize(("to", "count", "number", "point"), CASES)
def test_a_kill_leaves_the_old_export_or_the_new_one(old, new, bundle, to, count, number, point, tmp_path):
    model = new.save(tmp_path / "new.safetensors")
    with serving() as server:
        fault = {"CONVATLAS_FAULT": f"kill@{point}:{number}"}
        command = ["export", model, "--to", to, "--out", old[to]]
        assert server.run(command, tmp_path / "output", environment=fault) == -signal.SIGKILL
    last_renamed = number == count and point in ("dirsync", "done")
    if to == "openvino" and last_renamed:  # between the renames of the two files: never taken for a whole export
        with pytest.raises(WeightsError, match="has changed since it was exported"):
            open_engine(old[to])
    else:
        engine, expected = open_engine(old[to], threads=1), new if number > count or last_renamed else bundle
        assert engine.preprocess == expected.preprocess
        assert check(engine, expected) <= 1e-4
