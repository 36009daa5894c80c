"""The index of a large folder: listed once, trusted only while nothing has changed."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from convatlas.data import folder as folder_module
from convatlas.data import names as names_module
from convatlas.data.folder import read_folder
from convatlas.data.index import Index, load, save
from convatlas.data.names import Names
from convatlas.data.scan import Scan
from convatlas.errors import DataError


@pytest.fixture
def listed(monkeypatch) -> list[str]:
    """The folders listed; any folder counts as large."""
    monkeypatch.setattr(folder_module, "LARGE", 0)
    monkeypatch.setattr(names_module, "SMALL", 1)
    found, listing = [], Scan.listing
    monkeypatch.setattr(Scan, "listing", lambda self, path="": found.append(path) or listing(self, path))
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def animals(tmp_path, fill) -> Path:
    return fill(tmp_path / "animals", {"train/cat": 3, "train/2/deep": 2, "train/10": 1, "val/cat": 1})


def facts(source):
    images = source.images
    parts = {part: list(names) for part, names in source.parts.items()}
    return images.classes, images.labels.tolist(), list(images.names), parts, source.warnings


def test_a_folder_is_listed_once(animals, listed, png):
    (animals / "train/cat/notes.txt").touch()
    progress = []
    first = read_folder(animals, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(1, 3), (2, 3), (3, 3), (1, 1)]
    listed.clear()
    again = read_folder(animals / "../animals")
    assert listed == []
    assert facts(again) == facts(first)
    assert isinstance(again.images.names, Names)
    assert facts(first) == (
        ("2", "10", "cat"),
        [0, 0, 1, 2, 2, 2, 2],
        ["train/2/deep/0.png", "train/2/deep/1.png", "train/10/0.png"]
        + [f"train/cat/{index}.png" for index in range(3)]
        + ["val/cat/0.png"],
        {"train": facts(first)[2][:6], "val": ["val/cat/0.png"]},
        ("ignored 1 files without the extension of an image (first: train/cat/notes.txt)",),
    )
    assert again.images.content(6) == (animals / "val/cat/0.png").read_bytes()


def test_a_small_folder_has_no_index(animals, cache):
    read_folder(animals)
    assert not cache.exists()


CHANGES = {
    "new": lambda root: shutil.copy(root / "train/cat/0.png", root / "train/cat/new.png"),
    "gone": lambda root: (root / "train/2/deep/0.png").unlink(),
    "renamed": lambda root: (root / "train/10").rename(root / "train/11"),
    "new class": lambda root: shutil.copytree(root / "train/cat", root / "train/dog"),
    "new part": lambda root: shutil.copytree(root / "val", root / "test"),
    "folder gone": lambda root: shutil.rmtree(root / "train/2"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_folder_is_listed_again(animals, listed, change):
    before = facts(read_folder(animals))
    change(animals)
    listed.clear()
    after = facts(read_folder(animals))
    assert "train/cat" in listed
    assert after != before
    listed.clear()
    assert facts(read_folder(animals)) == after
    assert listed == []


def test_a_count_of_entries_shows_what_the_clock_does_not(animals, listed):
    read_folder(animals)
    folder = animals / "train/cat"
    times = folder.stat()
    (folder / "0.png").unlink()
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(read_folder(animals).images) == 6


def test_what_was_listed_in_another_way_is_no_answer(animals, listed, tmp_path):
    (animals / "train/empty").mkdir()
    with pytest.raises(DataError, match="D10"):
        read_folder(animals)
    read_folder(animals, allow_empty_class=True)
    with pytest.raises(DataError, match="D10"):
        read_folder(animals)


def test_d14_nothing_is_written_beside_the_data(animals, listed, cache):
    before = sorted(animals.rglob("*"))
    read_folder(animals)
    assert sorted(animals.rglob("*")) == before
    assert len(list((cache / "index").iterdir())) == 1


@pytest.mark.parametrize("place", ["file", "/dev/null/cache"])
def test_a_cache_that_cannot_be_written_is_done_without(animals, listed, tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / place))
    assert facts(read_folder(animals)) == facts(read_folder(animals))
    assert listed.count("train/cat") == 2


def test_a_damaged_index_is_listed_again(animals, listed, cache):
    whole = facts(read_folder(animals))
    (file,) = (cache / "index").iterdir()
    content = file.read_bytes()
    damaged = [b"", content[:-1], content + b"\0", b"not an index", bytes(len(content))]
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for bad in damaged:
        file.write_bytes(bad)
        listed.clear()
        assert facts(read_folder(animals)) == whole
        assert "train/cat" in listed
        assert file.read_bytes() == content


def test_an_index_of_other_data_is_ignored(cache):
    save({"folder": "a"}, Index({"n": 1}, {"x": np.arange(5)}))
    found = load({"folder": "a"})
    assert found.record == {"n": 1}
    assert found.arrays["x"].tolist() == [0, 1, 2, 3, 4]
    (file,) = (cache / "index").iterdir()
    save({"folder": "b"}, Index({}, {}))
    (other,) = set((cache / "index").iterdir()) - {file}
    shutil.copy(file, other)
    assert load({"folder": "b"}) is None
    assert load({"folder": "c"}) is None


def test_arrays_of_any_length_and_type_come_back(cache):
    arrays = {"none": np.empty(0, np.int64), "odd": np.arange(5, dtype="u1"), "more": np.arange(3, dtype="i4")}
    arrays["last"] = np.arange(7)
    save({}, Index({}, arrays))
    for name, found in load({}).arrays.items():
        assert found.dtype == arrays[name].dtype
        assert found.tolist() == arrays[name].tolist()


@pytest.mark.slow
def test_a_hundred_thousand_files_open_at_once_the_second_time(tmp_path, png):
    (tmp_path / "one.png").write_bytes(png())
    for label in range(100):
        folder = tmp_path / "data" / str(label)
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / "one.png", folder / "0.png")
        for index in range(1, 1000):
            os.link(folder / "0.png", folder / f"{index}.png")
    times = []
    for _ in range(2):
        started = time.monotonic()
        assert len(read_folder(tmp_path / "data").images) == 100_000
        times.append(time.monotonic() - started)
    assert times[1] < times[0] / 2
