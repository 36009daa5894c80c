"""Folder trees of all kinds, D10 to D14 of the fault catalogue among them."""

import json
import os
import pickle
import shutil
import unicodedata

import pytest
import torch

from convatlas.data.check import changes, check
from convatlas.data.folder import natural, read_folder
from convatlas.errors import DataError

NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def classes_of(source) -> dict[str, list[str]]:
    images = source.images
    found = {name: [] for name in images.classes}
    for name, label in zip(images.names, images.labels.tolist(), strict=True):
        found[images.classes[label]].append(name)
    return found


def test_classes_in_natural_order_and_images_in_theirs(tmp_path, fill):
    source = read_folder(fill(tmp_path, {"10": 1, "2": 2, "1": 1, "b10a": 1, "b9": 1}))
    assert source.images.classes == ("1", "2", "10", "b9", "b10a")
    assert classes_of(source)["2"] == ["2/0.png", "2/1.png"]
    assert source.images.labels.tolist() == [0, 1, 1, 2, 3, 4]
    assert source.parts is None
    assert source.warnings == ()
    image = source.images[3][0]
    assert image.shape == (3, 8, 8)
    assert torch.equal(pickle.loads(pickle.dumps(source.images))[3][0], image)  # as in the worker of a loader


def test_natural_order_is_total():
    ordered = ["", "01", "1", "1a", "2", "10", "-", "a", "a01", "a1", "a1b", "a2", "a10", "²", "é"]
    assert sorted([*ordered[6:], *ordered[:6]], key=natural) == ordered


def test_folders_within_a_class(tmp_path, fill):
    fill(tmp_path, {"cat/(old)/may": 2, "cat": 1, "dog": 1})
    assert classes_of(read_folder(tmp_path))["cat"] == ["cat/(old)/may/0.png", "cat/(old)/may/1.png", "cat/0.png"]


def test_hidden_and_foreign_files_are_left_aside(tmp_path, fill):
    fill(tmp_path, {"cat": 1, "dog": 1, ".git": 1, "cat/.thumbnails": 1})
    (tmp_path / "cat/.DS_Store").touch()
    (tmp_path / "cat/notes.txt").touch()
    (tmp_path / "cat/labels.csv").touch()
    (tmp_path / "stray.png").write_bytes((tmp_path / "cat/0.png").read_bytes())
    (tmp_path / "cat/UPPER.JPEG").write_bytes((tmp_path / "cat/0.png").read_bytes())
    source = read_folder(tmp_path)
    assert source.images.names == ("cat/0.png", "cat/UPPER.JPEG", "dog/0.png")
    assert source.warnings == (
        "ignored 1 images outside the class folders (first: stray.png)",
        "ignored 2 files without the extension of an image (first: cat/labels.csv)",
    )


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_given_parts(tmp_path, fill, held_out):
    fill(tmp_path / "train", {"cat": 2, "dog": 1})
    fill(tmp_path / held_out, {"dog": 1, "cat": 1})
    source = read_folder(tmp_path)
    part = "test" if held_out == "test" else "val"
    assert source.parts == {
        "train": ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png"),
        part: (f"{held_out}/cat/0.png", f"{held_out}/dog/0.png"),
    }
    assert source.images.labels.tolist() == [0, 0, 1, 0, 1]


def test_train_alone_is_the_whole(tmp_path, fill):
    source = read_folder(fill(tmp_path / "train", {"cat": 1, "dog": 1}).parent)
    assert source.images.classes == ("cat", "dog")
    assert source.parts is None


def test_train_may_be_a_class_among_others(tmp_path, fill):
    assert read_folder(fill(tmp_path, {"train": 1, "plane": 1})).images.classes == ("plane", "train")


def test_folders_beside_the_parts_are_left_aside(tmp_path, fill):
    fill(tmp_path, {"train/a": 1, "train/b": 1, "val/a": 1, "masks": 3})
    source = read_folder(tmp_path)
    assert len(source.images) == 3
    assert source.warnings == ("ignored 1 folders beside train, val and test (first: masks)",)


def test_one_part_under_two_names_is_refused(tmp_path, fill):
    fill(tmp_path, {"train/a": 1, "val/a": 1, "valid/a": 1})
    with pytest.raises(DataError, match="both val and valid"):
        read_folder(tmp_path)


def test_images_without_class_folders(tmp_path, fill):
    fill(tmp_path, {"": 3})
    with pytest.raises(DataError, match=r"no class folders \(3 images directly in it\)"):
        read_folder(tmp_path)


def test_d10_empty_class_folder(tmp_path, fill):
    fill(tmp_path, {"cat": 1, "dog": 0, "eel": 1})
    (tmp_path / "dog/readme.txt").touch()
    with pytest.raises(DataError, match=r"error\[D10\]: class folder .*/dog has no images.*first: dog/readme.txt"):
        read_folder(tmp_path)
    images = read_folder(tmp_path, allow_empty_class=True).images
    assert images.classes == ("cat", "dog", "eel")  # no label shifts
    assert images.labels.tolist() == [0, 2]


def test_d11_val_may_lack_classes_but_not_add_any(tmp_path, fill):
    fill(tmp_path / "train", {"1": 1, "2": 1, "10": 1})
    fill(tmp_path / "val", {"10": 1})
    assert read_folder(tmp_path).images.labels.tolist() == [0, 1, 2, 2]
    (tmp_path / "val/10").rename(tmp_path / "val/ten")
    with pytest.raises(DataError, match=r"error\[D11\].*/val: .*missing \['1', '2', '10'\], extra \['ten'\]"):
        read_folder(tmp_path)


def test_d11_unicode_forms_of_a_class_differ_visibly(tmp_path, fill):
    fill(tmp_path, {f"train/{NFC}": 1, "train/b": 1, f"val/{NFD}": 1})
    with pytest.raises(DataError, match=r"extra \['e\\u0301'\]"):
        read_folder(tmp_path)


STRANGE = ["naïve", "🐱", "a\nb", "-rf", "a b", "x" * 250, "'\"\\", "=1+1"]


def test_d12_strange_names_load(tmp_path, png):
    for name in STRANGE:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(png())
    undecodable = os.fsdecode(b"\xff")
    (tmp_path / "🐱" / f"{undecodable}.jpg").write_bytes(png())
    images = read_folder(tmp_path).images
    assert set(images.classes) == set(STRANGE)
    assert f"🐱/{undecodable}.jpg" in images.names
    for index in range(len(images)):
        assert images[index][0].shape == (3, 8, 8)
    assert tuple(json.loads(json.dumps(images.names).encode())) == images.names  # valid UTF-8 and back, byte for byte


def test_d12_an_error_on_a_strange_name_is_one_line_of_utf8(tmp_path, fill):
    fill(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / f"x\ny{os.fsdecode(bytes([255]))}.png").touch()
    images = read_folder(tmp_path).images
    with pytest.raises(DataError, match=r"a/x\\ny\\udcff\.png: empty file") as caught:
        images[1]
    assert "\n" not in str(caught.value).encode().decode()


@pytest.mark.parametrize("twins", [(f"{NFC}/1", f"{NFD}/2"), (f"a/{NFC}", f"a/{NFD}")])
def test_d12_unicode_twins_are_refused(tmp_path, fill, png, twins):
    fill(tmp_path, {"a": 1, "b": 1})
    for twin in twins:
        (tmp_path / f"{twin}.png").parent.mkdir(exist_ok=True)
        (tmp_path / f"{twin}.png").write_bytes(png())
    with pytest.raises(DataError, match=r"error\[D12\].*e\\u0301.*and.*\\xe9|error\[D12\].*\\xe9.*and.*e\\u0301"):
        read_folder(tmp_path)


@pytest.mark.timeout(5)  # opening a pipe would hang
def test_d13_links_pipes_and_folders_named_like_images(tmp_path, fill):
    root = fill(tmp_path / "data", {"a": 2, "b": 1, "c/x.jpg": 1})
    outside = fill(tmp_path / "outside", {"more": 2, "": 1})
    (root / "a/loop").symlink_to("..")
    (root / "a/to_b").symlink_to("../b")
    (root / "a/again.png").symlink_to("../b/0.png")
    (root / "a/gone.png").symlink_to("nowhere.png")
    (root / "a/self.png").symlink_to("self.png")
    (root / "b/out.png").symlink_to(outside / "0.png")
    (root / "b/out").symlink_to(outside / "more")
    os.mkfifo(root / "b/pipe.png")
    source = read_folder(root)
    assert classes_of(source) == {
        "a": ["a/0.png", "a/1.png", "a/again.png"],
        "b": ["b/0.png"],
        "c": ["c/x.jpg/0.png"],
    }
    assert set(source.warnings) == {
        "ignored 2 links to folders inside, whose images are found where they are (first: a/loop)",
        "ignored 2 links that lead nowhere (first: a/gone.png)",
        "ignored 2 links that lead out of the folder, not followed without --follow-outside (first: b/out)",
        "ignored 1 pipes, sockets or devices (first: b/pipe.png)",
    }
    followed = classes_of(read_folder(root, follow_outside=True))
    assert followed["b"] == ["b/0.png", "b/out.png", "b/out/0.png", "b/out/1.png"]


@pytest.mark.timeout(5)
def test_d13_outside_links_end(tmp_path, fill):
    root = fill(tmp_path / "data", {"a": 1, "b": 1})
    fill(tmp_path, {"z": 1})
    (root / "a/up").symlink_to(tmp_path)  # which holds the root again
    (root / "b/up").symlink_to(tmp_path)
    source = read_folder(root, follow_outside=True)
    assert classes_of(source) == {"a": ["a/0.png", "a/up/z/0.png"], "b": ["b/0.png"]}
    assert "ignored 2 links to folders visited already (first: a/up/data)" in source.warnings


def test_d13_a_device_is_never_opened(tmp_path, fill):
    fill(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a/zero.png").symlink_to("/dev/zero")
    source = read_folder(tmp_path, follow_outside=True)
    assert source.warnings == ("ignored 1 pipes, sockets or devices (first: a/zero.png)",)


def test_d14_a_read_only_folder_works_and_stays_as_it_is(public, fill, nobody):
    fill(public, {"a": 1, "b": 1})
    before = sorted(public.rglob("*"))
    for path in (public, public / "a", public / "b"):
        path.chmod(0o555)
    with nobody():
        images = read_folder(public).images
        assert [images[index][1] for index in range(2)] == [0, 1]
        with pytest.raises(PermissionError):
            (public / "a/new").touch()
    assert sorted(public.rglob("*")) == before
    for path in (public, public / "a", public / "b"):
        path.chmod(0o755)


def test_d14_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_class(public, fill, nobody):
    fill(public, {"a": 1, "b": 1})
    (public / "b").chmod(0)
    with nobody(), pytest.raises(DataError, match=r"error\[D14\].*/b: cannot list the folder: Permission denied \(uid"):
        read_folder(public)
    (public / "b").chmod(0o755)


def test_a_file_gone_since_the_scan_is_named(tmp_path, fill):
    images = read_folder(fill(tmp_path, {"a": 1, "b": 1})).images
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(DataError, match=r"error\[D15\].*b/0\.png: no such file"):
        images[1]


def test_d15_a_file_that_changes_after_it_was_read_is_told_once_and_recorded(tmp_path, fill, png):
    fill(tmp_path, {"a": 4, "b": 4})
    images = read_folder(tmp_path).images
    (tmp_path / "a/3.png").write_bytes(png(5))  # not read yet: nothing is known of it that could be wrong
    for index in range(len(images)):
        images.read(index)
    assert changes(images) == ()
    (tmp_path / "a/0.png").write_bytes(png(7))
    os.utime(tmp_path / "b/1.png", ns=(1, 1))
    (tmp_path / "b/2.png").unlink()
    with pytest.warns(UserWarning, match=r"^D15: .*/a/0\.png has changed since it was read$"):
        images.read(0)
    images.read(0)
    images.read(5)  # warnings are errors here: there is no second one
    with pytest.raises(DataError, match=r"error\[D15\].*b/2\.png: no such file"):
        images.read(6)
    assert changes(images) == ("D15: 3 files have changed since they were read (first: a/0.png)",)
    assert changes(images.subset([7, 5])) == ("D15: 1 files have changed since they were read (first: b/1.png)",)
    assert changes(images.subset([1, 2])) == ()


def test_d15_what_is_held_in_memory_is_what_was_read(tmp_path, fill, png):
    fill(tmp_path, {"a": 4, "b": 4})
    images, _, _ = check(read_folder(tmp_path).images)
    before = images.read(0).clone()
    (tmp_path / "a/0.png").write_bytes(png(7))
    assert torch.equal(images.read(0), before)
    assert changes(images) == ("D15: 1 files have changed since they were read (first: a/0.png)",)
