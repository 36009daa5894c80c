"""What a look at every image finds, each case provoked for real."""

import hashlib
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from convatlas.data.copies import NEAR, equal, likeness, near
from convatlas.data.decode import decode
from convatlas.data.findings import findings, of_manifest
from convatlas.data.inspect import inspect
from convatlas.data.manifest import compare, read_manifest, write_manifest
from convatlas.data.open import read_source
from convatlas.errors import ConfigError


def scene(seed: int, side: int = 96) -> Image.Image:
    """Soft blobs: as a photo, it keeps its look when it is scaled or compressed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def scenes(folder, counts, start=0):
    """As many scenes in each class folder, all different."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            start += 1
            scene(start).save(folder / name / f"{number}.png")
    return folder


def found_in(folder, size=None, **options):
    """Level, ID and text of every finding, and all of them by ID."""
    inspection = inspect(read_source(folder, allow_empty_class=True, **options))
    found = findings(inspection, size)
    return inspection, found, [f"{f.level} {f.id} {f.what}" for f in found]


# --- copies ---


def different(a, b):
    return int(np.unpackbits(a ^ b).sum())


def test_lookalikes_are_the_linked_pairs_of_a_full_comparison():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 256, (600, 32), dtype=np.uint8)
    for _ in range(60):
        a, b = random.integers(0, 600, 2)
        hashes[b] = hashes[a]
        for bit in random.integers(0, 256, random.integers(0, 30)):
            hashes[b, bit // 8] ^= 1 << bit % 8
    group = list(range(600))
    pairs = [(a, b) for a in range(600) for b in range(a) if different(hashes[a], hashes[b]) <= NEAR]
    for a, b in pairs:
        group = [group[a] if mark == group[b] else mark for mark in group]
    expected = {tuple(i for i in range(600) if group[i] == mark) for mark in set(group) if group.count(mark) > 1}
    assert {tuple(rows) for rows in near(hashes)} == expected
    assert 20 < len(expected) < 60
    assert near(hashes[:0]) == near(hashes[:1]) == equal(hashes[:0]) == []


def test_a_chain_of_lookalikes_is_one_group_whatever_its_order():
    chain = np.array([np.packbits(np.arange(256) < 10 * i) for i in range(16)])  # 10 bits from one to the next
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(16)
        assert near(chain[order]) == [list(range(16))]
        assert near(chain[np.delete(order, np.flatnonzero(order == 8))]) != [list(range(15))]


def test_thousands_of_lookalikes_are_one_group_in_a_moment():
    hashes = np.zeros((5000, 32), np.uint8)
    hashes[:, 31] = np.arange(5000) % 8
    assert near(hashes) == [list(range(5000))]
    assert len(equal(hashes)) == 8


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return decode(file.getvalue())


def test_likeness_sees_through_encoding_and_size_but_not_through_crops_or_mirrors():
    images = [torch.from_numpy(np.array(scene(seed))).permute(2, 0, 1) for seed in range(20)]
    hashes = [likeness(image) for image in images]
    for image, own in zip(images, hashes, strict=True):
        assert different(likeness(jpeg(image, 50)), own) <= NEAR
        assert different(likeness(F.resize(image, [48, 48], antialias=True)), own) <= NEAR
        assert different(likeness(image.flip(2)), own) > NEAR
        assert different(likeness(image[:, 15:, 15:]), own) > NEAR
    assert min(different(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 3 * NEAR


# --- findings ---


def test_nothing_is_wrong_with_a_clean_folder(tmp_path):
    inspection, found, _ = found_in(scenes(tmp_path, {"a": 8, "b": 8}), size=64)
    assert found == []
    assert inspection.counts().tolist() == [[6, 1, 1], [6, 1, 1]]
    assert inspection.how == "val is 15% and test 15% of each class, cut by seed 0; train is the rest"


def test_d1_to_d9_bad_files_by_kind_and_none_as_an_image(tmp_path):
    folder = scenes(tmp_path, {"a": 8, "b": 8})
    whole = (folder / "a/0.png").read_bytes()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "b/float.tiff")
    bad = {
        "a/cut1.png": ("D1", whole[:300]),
        "a/cut2.png": ("D1", whole[:-60]),
        "b/empty.png": ("D2", b""),
        "b/page.jpg": ("D3", b"<html>"),
        "b/bomb.ppm": ("D5", b"P6 60000 60000 255\n"),
        "b/float.tiff": ("D9", (folder / "b/float.tiff").read_bytes()),
    }
    for name, (_, content) in bad.items():
        (folder / name).write_bytes(content)
    inspection, found, said = found_in(folder)
    assert {file.name: file.id for file in inspection.bad} == {name: id for name, (id, _) in bad.items()}
    assert len(inspection.images) == 16
    assert said == [
        "error D1 2 files are damaged or cut short (first: a/cut1.png)",
        "error D2 1 file is empty (first: b/empty.png)",
        "error D3 1 file is something else than an image (first: b/page.jpg)",
        "error D5 1 file is too large to decode (first: b/bomb.ppm)",
        "error D9 1 file is in a form whose black and white are unknown (first: b/float.tiff)",
    ]
    assert found[0].files == (("a/cut1.png",), ("a/cut2.png",))
    assert found[0].remedy == "replace or remove them, or run with --on-bad-file=skip"
    for name, (_, content) in bad.items():
        assert inspection.checksums()[name] == hashlib.sha256(content).hexdigest()


def test_d6_d7_d13_what_is_read_in_its_own_way_is_noted(tmp_path):
    folder = scenes(tmp_path, {"a": 8, "b": 8})
    scene(98).save(folder / "a/moving.webp", save_all=True, append_images=[scene(99)], lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(97).save(folder / "b/turned.jpg", exif=exif)
    scene(96).convert("L").save(folder / "b/grey.png")
    Image.new("RGB", (96, 96), "navy").save(folder / "b/navy.bmp")
    scene(95, side=40).save(folder / "b/small.png")
    os.mkfifo(folder / "b/pipe.png")
    _, _, said = found_in(folder, size=64)
    assert said == [
        "note  1 of 21 images: of one colour (first: b/navy.bmp)",
        "note D6 1 of 21 images: animated or of several pages: the first is used (first: a/moving.webp)",
        "note D7 1 of 21 images: set upright by their EXIF orientation (first: b/turned.jpg)",
        "note  1 of 21 images: grey among coloured ones (first: b/grey.png)",
        "note  1 of 21 images: smaller than the 64 px that training would use (first: b/small.png)",
        "note D13 ignored 1 pipes, sockets or devices (first: b/pipe.png)",
    ]


def test_d10_d11_t8_classes(tmp_path):
    scenes(tmp_path / "train", {"a": 12, "b": 2, "c": 1, "empty": 0})
    scenes(tmp_path / "test", {"a": 3}, start=50)
    (tmp_path / "train/d").mkdir()
    (tmp_path / "train/d/0.png").touch()
    inspection, _, said = found_in(tmp_path)
    assert said == [
        "error D2 1 file is empty (first: train/d/0.png)",
        "error D10 1 class has no images: empty",
        "error T8 2 classes have fewer than 2 good images: c (1), d (0)",
        "warning D11 test lacks 2 of 5 classes: b, c",
        "note  a has 15 images, c only 1: 15.0 times as many",
    ]
    assert inspection.counts().tolist() == [[12, 0, 3], [2, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_t8_a_single_class_is_what_training_says_it_is(tmp_path):
    _, _, said = found_in(scenes(tmp_path, {"a": 8}))
    assert said == [f"error T8 {tmp_path.name}: only one class has images, a classifier needs two (1 < 2)"]


def test_d17_copies_and_lookalikes_by_where_they_are(tmp_path):
    for part, start in (("train", 0), ("val", 20), ("test", 30)):
        scenes(tmp_path / part, {"a": 4, "b": 4}, start)
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/leak.png")
    shutil.copy(tmp_path / "train/a/1.png", tmp_path / "train/b/label.png")
    Image.open(tmp_path / "train/a/2.png").save(tmp_path / "train/a/twice.bmp")  # the same pixels in another format
    Image.open(tmp_path / "val/b/3.png").resize((70, 70)).save(tmp_path / "train/b/like.jpg")
    inspection, found, said = found_in(tmp_path)
    assert said == [
        "warning D17 1 picture is in several classes (first: train/a/1.png = train/b/label.png)",
        "warning D17 1 picture is in several parts (first: train/a/0.png = test/a/leak.png)",
        "note D17 1 picture is more than once in one class and part (first: train/a/2.png = train/a/twice.bmp)",
        "note D17 1 group of lookalikes is in several parts (first: train/b/like.jpg = val/b/3.png)",
    ]
    assert found[1].files == (("train/a/0.png", "test/a/leak.png"),)
    assert inspection.how == "train, val and test are the given parts"


def test_d17_parts_that_training_would_cut_count(tmp_path):
    folder = scenes(tmp_path, {"a": 20, "b": 20})
    for number in range(20):
        shutil.copy(folder / f"a/{number}.png", folder / f"a/copy{number}.png")
    inspection, _, said = found_in(folder)
    val = {inspection.images.names.index(name) for name in inspection.splits.val.names}
    assert (inspection.part == 1).nonzero()[0].tolist() == sorted(val)
    assert any("pictures are in several parts" in line for line in said)


def test_a_copy_is_no_lookalike_and_tiny_images_have_none(tmp_path):
    folder = scenes(tmp_path, {"a": 8, "b": 8})
    for side in (31, 32):
        for number in range(2):
            image = scene(60 + side).resize((side, side))
            image.putpixel((0, 0), (number, 0, 0))
            image.save(folder / f"a/{side}-{number}.png")
    for number in range(2):
        scene(90).save(folder / f"b/same{number}.png")
    inspection, _, _ = found_in(folder)
    names = [[inspection.images.names[i] for i in group] for group in inspection.lookalikes]
    assert names == [["a/32-0.png", "a/32-1.png"]]


def test_figures_by_hand(tmp_path):
    for name, shades in {"a": (0, 255), "b": (51, 204)}.items():
        (tmp_path / name).mkdir()
        for number, shade in enumerate(shades):
            Image.new("RGB", (20 + number, 10), (shade, 0, 255)).save(tmp_path / name / f"{number}.png")
    figures = found_in(tmp_path)[0].figures()
    assert figures["width"] == {"min": 20, "median": 20.5, "max": 21}
    assert figures["shorter_side"] == {"min": 10, "median": 10, "max": 10}
    assert figures["aspect_ratio"] == {"min": 2, "median": 2.05, "max": 2.1}
    assert figures["mean"] == [0.5, 0, 1]
    assert figures["std"] == [pytest.approx(((0.5**2 + 0.5**2 + 0.3**2 + 0.3**2) / 4) ** 0.5, abs=1e-4), 0, 0]
    assert (figures["grey"], figures["formats"]) == (0, {"PNG": 4})


def test_images_stored_as_pixels_have_no_files():
    inspection, _, said = found_in("digits", size=16)
    assert len(inspection.images) == 1797
    assert inspection.figures()["formats"] == {"": 1797}
    assert said == ["note  1,797 of 1,797 images: smaller than the 16 px that training would use (first: digits/0)"]


def test_one_image_at_a_time_is_in_memory(tmp_path):
    folder = scenes(tmp_path, {"a": 3, "b": 3})
    for number in range(30):
        Image.new("RGB", (2000, 1500), (number, 0, 0)).save(folder / f"a/big{number}.ppm")  # 9 MB each
    script = (
        "import sys\n"
        "from convatlas.data.inspect import inspect\n"
        "from convatlas.data.open import read_source\n"
        "import convatlas.data.open, sklearn.model_selection\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"  # not its parent's
        "before = peak()\n"
        "inspect(read_source(sys.argv[1]))\n"
        "print((peak() - before) // 1024)\n"
    )
    grown = int(subprocess.check_output([sys.executable, "-c", script, folder]))
    assert grown < 30 * 9 / 2  # MB


# --- D4: manifests ---


@pytest.fixture
def manifest(tmp_path):
    """A folder, one name in it with a line feed and a backslash, and its manifest."""
    folder = scenes(tmp_path / "data", {"a": 4, "b": 4})
    scene(40).save(folder / "a/odd \\ na\nme.png")
    checksums = inspect(read_source(folder)).checksums()
    return folder, write_manifest(tmp_path / "sums", checksums), checksums


def test_d4_a_manifest_is_what_sha256sum_reads_and_writes(manifest):
    folder, path, checksums = manifest
    assert read_manifest(path) == checksums
    assert len(checksums) == 9
    checked = subprocess.run(["sha256sum", "-c", "--strict", path], cwd=folder, capture_output=True, text=True)
    assert checked.returncode == 0, checked
    written = subprocess.check_output("find . -type f -print0 | xargs -0 sha256sum", shell=True, cwd=folder)
    path.write_bytes(written)
    assert read_manifest(path) == checksums


def test_d4_a_flipped_bit_that_still_decodes_is_found(manifest):
    folder, path, _ = manifest
    scene(41).save(folder / "b/0.bmp")  # without checksums of its own
    write_manifest(path, inspect(read_source(folder)).checksums())
    content = bytearray((folder / "b/0.bmp").read_bytes())
    content[-1] ^= 1
    (folder / "b/0.bmp").write_bytes(content)
    (folder / "b/1.png").unlink()
    (folder / "b/2.png").rename(folder / "b/two.png")
    inspection = inspect(read_source(folder))
    assert inspection.bad == ()
    difference = compare(read_manifest(path), inspection.checksums())
    assert difference.changed == ("b/0.bmp",)
    assert difference.missing == ("b/1.png", "b/2.png")
    assert difference.extra == ("b/two.png",)
    assert [f"{f.level} {f.id} {f.what}" for f in of_manifest(difference)] == [
        "error D4 1 file has another content than the manifest says (first: b/0.bmp)",
        "error D4 2 files of the manifest can't be read or found (first: b/1.png)",
        "error D4 1 file is not in the manifest (first: b/two.png)",
    ]
    assert of_manifest(compare(inspection.checksums(), inspection.checksums())) == []


@pytest.mark.parametrize("content", [b"", b"abc  x.png\n", b"0" * 64 + b" x.png\n", b"\n"])
def test_what_is_no_manifest_is_refused_by_line(tmp_path, content):
    (tmp_path / "sums").write_bytes(content)
    with pytest.raises(ConfigError, match=r"error\[L7\].*sums: line 1 is no checksum and name"):
        read_manifest(tmp_path / "sums")
    with pytest.raises(ConfigError, match=r"nowhere: No such file"):
        read_manifest(tmp_path / "nowhere")


def test_d14_d15_files_that_cannot_be_read_or_are_gone(public, nobody):
    folder = scenes(public / "data", {"a": 8, "b": 8})
    source = read_source(folder)
    (folder / "a/3.png").chmod(0)
    (folder / "b/4.png").unlink()
    with nobody():
        inspection = inspect(source)
    assert [f"{f.level} {f.id} {f.what}" for f in findings(inspection)] == [
        "error D14 1 file is not readable (first: a/3.png)",
        "error D15 1 file is gone since the folder was listed (first: b/4.png)",
    ]
    assert [file.sha256 for file in inspection.bad] == [None, None]
    assert inspection.checksums().keys() == set(inspection.images.names)
