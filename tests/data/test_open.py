import json
import os
import subprocess
import sys

import pytest
import torch

from convatlas.data import open_data
from convatlas.errors import ConfigError, DataError


def test_a_folder(tmp_path, fill):
    splits = open_data(fill(tmp_path / "animals", {"cat": 20, "dog": 20}))
    assert splits.name == "animals"
    assert (len(splits.train), len(splits.val), len(splits.test)) == (14 * 2, 3 * 2, 3 * 2)
    assert splits.bad == ()


@pytest.mark.parametrize("spell", ["{}", "{}/", "{}/../my animals", "~/my animals"])
def test_l7_ways_to_spell_a_path(tmp_path, fill, monkeypatch, spell):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = fill(tmp_path / "my animals", {"cat": 3, "dog": 3})
    assert open_data(spell.format(folder)).name == "my animals"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("digit", "digit: No such file or directory. Remedy: did you mean digits? Give a folder"),
        ("CIFAR10", "did you mean cifar10 or"),
        ("/no/such/place", "/no/such/place: No such file or directory. Remedy: Give a folder, an archive of one"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "embedded null byte"),
        ("~nobody-of-this-name/data", "home directory"),
    ],
)
def test_l7_wrong_names(spec, said):
    with pytest.raises(ConfigError) as caught:
        open_data(spec)
    assert said in str(caught.value)
    assert caught.value.id == "L7"


def test_l7_a_file_that_is_no_data_set(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(ConfigError, match="neither a folder, an archive, Parquet nor WebDataset shards"):
        open_data(tmp_path / "a.png")


def test_t8_one_image(tmp_path, fill):
    with pytest.raises(DataError, match=r"error\[T8\].*has 1 images.*\(1 < 3\)"):
        open_data(fill(tmp_path, {"cat": 1}))


def test_t8_one_class(tmp_path, fill):
    with pytest.raises(DataError, match=r"error\[T8\].*only one class"):
        open_data(fill(tmp_path, {"cat": 9}))


def test_skipping_gives_the_splits_of_the_cleaned_folder(tmp_path, fill):
    fill(tmp_path, {"cat": 20, "dog": 20})
    for name in ("cat/5x.png", "dog/a.png"):
        (tmp_path / name).write_bytes(b"bad")
    with pytest.raises(DataError, match="and 1 more"):
        open_data(tmp_path)
    skipped = open_data(tmp_path, on_bad_file="skip", seed=3)
    assert [file.name for file in skipped.bad] == ["cat/5x.png", "dog/a.png"]
    record = json.loads(json.dumps(skipped.record()))
    later = open_data(tmp_path, on_bad_file="lazy", record=record)  # without reading, the bad ones are known
    assert later.record() == record
    assert later.bad == skipped.bad
    for file in skipped.bad:
        (tmp_path / file.name).unlink()
    clean = open_data(tmp_path, seed=3)
    for part in ("train", "val", "test"):
        assert getattr(skipped, part).names == getattr(clean, part).names == getattr(later, part).names
        for index in range(len(getattr(clean, part))):
            image, label = getattr(clean, part)[index]
            assert torch.equal(getattr(skipped, part)[index][0], image)
            assert getattr(skipped, part)[index][1] == label


def test_a_class_whose_files_are_all_bad_is_an_error(tmp_path, fill):
    fill(tmp_path, {"cat": 5, "dog": 5, "eel": 0})
    (tmp_path / "eel/1.png").touch()
    with pytest.raises(DataError, match=r"error\[T8\].*'eel' has no readable image in train"):
        open_data(tmp_path, on_bad_file="skip")


def test_a_record_holds_when_the_seed_changes(tmp_path, fill):
    fill(tmp_path, {"cat": 20, "dog": 20})
    first = open_data(tmp_path, seed=1)
    assert open_data(tmp_path, seed=2).test.names != first.test.names
    assert open_data(tmp_path, seed=2, record=first.record()).test.names == first.test.names


def test_l5_without_the_optional_packages(tmp_path, fill):
    """Where scikit-learn and pyarrow are missing, everything else works and the error says what to install."""
    fill(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "x.parquet").touch()
    script = (
        "import sys\n"
        "sys.modules['sklearn'] = sys.modules['pyarrow'] = None\n"
        "from convatlas.data import open_data\n"
        "from convatlas.errors import ResourceError\n"
        "for spec in sys.argv[1:]:\n"
        "    try: open_data(spec)\n"
        "    except ResourceError as error: print(error)\n"
    )
    (tmp_path / "folder").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / name).rename(tmp_path / "folder" / name)
    specs = ["digits", tmp_path / "folder", tmp_path / "x.parquet"]
    done = subprocess.run([sys.executable, "-c", script, *specs], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "error[L5]: scikit-learn is not installed. Remedy: pip install 'convatlas[train]'",
        "error[L5]: scikit-learn is not installed. Remedy: pip install 'convatlas[train]'",
        "error[L5]: pyarrow is not installed. Remedy: pip install 'convatlas[parquet]'",
    ]


def test_flowers(shared):
    splits = open_data(shared / "flowers5_128")
    assert splits.classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (2928, 518, 861)
    assert splits.train[0][0].shape == (3, 128, 128)
    assert splits.bad == ()


def test_photos_without_class_folders(shared):
    with pytest.raises(DataError, match=r"photos_96 has no class folders \(96 images directly in it\)"):
        open_data(os.fspath(shared / "photos_96"))
