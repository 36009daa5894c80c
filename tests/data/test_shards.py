"""WebDataset shards, and the writer of shards: the same images as in the folder that they were made from."""

import io
import json
import os
import pickle
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch

from convatlas.cli import main
from convatlas.data import open_data, sharding
from convatlas.data import shards as shards_module
from convatlas.data.folder import read_folder
from convatlas.data.open import read_source
from convatlas.data.sharding import write_shards
from convatlas.data.shards import read_shards
from convatlas.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tar(path: Path, *members, mode: str = "w:") -> Path:
    """A tar of (name, content) pairs and TarInfos."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member, io.BytesIO(bytes(member.size)))
            else:
                header = tarfile.TarInfo(member[0])
                header.size = len(member[1])
                file.addfile(header, io.BytesIO(member[1]))
    return path


@pytest.fixture
def sample(png):
    """`sample("a/7", 3)`: the members of a sample that is labelled 3."""
    return lambda key, label, seed=0: ((f"{key}.png", png(seed)), (f"{key}.cls", str(label).encode()))


@pytest.fixture
def animals(tmp_path, fill) -> Path:
    return fill(tmp_path / "animals", {"train/cat": 9, "train/2": 8, "train/10": 4, "test/2": 1, "test/cat": 3})


# --- reading ---


@pytest.mark.parametrize(
    ("members", "label"),
    [
        ([("x.cls", b"1")], 1),
        ([("x.cls", b" 1\n")], 1),
        ([("x.cls", b"dog")], 1),
        ([("x.json", b'{"label": 1, "class": "cat"}')], 1),
        ([("x.json", b'{"class": "dog"}')], 1),
        ([("x.json", b'{"caption": "a"}'), ("x.cls", b"1")], 1),
        ([("x.json", b'{"label": 0}'), ("x.cls", b"1")], 1),
    ],
)
def test_where_a_label_may_stand(tmp_path, png, members, label):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/classes.txt").write_text("cat\ndog\n")
    images = read_shards(tar(tmp_path / "d/0.tar", ("x.png", png()), *members).parent).images
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [label]


def test_a_folder_in_the_key_is_a_label(tmp_path, png):
    members = [(f"./set/{name}/7.jpg.PNG", png(seed)) for seed, name in enumerate(["10", "2", "b"])]
    source = read_shards(tar(tmp_path / "d/0.tar", *members, ("set/2/._x.png", b"of a Mac")).parent)
    assert source.images.classes == ("2", "10", "b")
    assert source.images.labels.tolist() == [1, 0, 2]
    assert source.images.names[0] == "0.tar/./set/10/7.jpg.PNG"
    assert source.images.content(1) == png(1)


def test_parts_in_natural_order_and_classes_of_train(tmp_path, sample):
    tar(tmp_path / "d/val-0.tar", *sample("x", 7))
    for number, label in ((10, 7), (9, 11)):
        tar(tmp_path / f"d/train-{number}.tar", *sample("x", label, number))
    source = read_shards(tmp_path / "d")
    assert source.name == "d"
    assert source.images.classes == ("7", "11")
    assert source.images.names == ("train-9.tar/x.png", "train-10.tar/x.png", "val-0.tar/x.png")
    assert source.images.labels.tolist() == [1, 0, 0]
    assert {part: len(names) for part, names in source.parts.items()} == {"train": 2, "val": 1}
    assert torch.equal(pickle.loads(pickle.dumps(source.images))[1][0], source.images[1][0])


def test_a_pattern_names_every_shard(tmp_path, sample):
    for number in (8, 9, 10):
        tar(tmp_path / f"d-{number:03}.tar", *sample(f"{number}", number % 2))
    source = read_source(tmp_path / "d-{008..010}.tar")
    assert source.name == "d"
    assert len(source.images) == 3
    with pytest.raises(DataError, match=r"error\[D15\]: shard .*d-011\.tar: No such file"):
        read_source(f"{tmp_path}/d-{{008..011}}.tar")


def test_a_single_tar_is_a_shard_if_it_states_labels(tmp_path, sample, png):
    members = [member for number in range(8) for member in sample(str(number), number % 2, number)]
    assert read_source(tar(tmp_path / "shard.tar", *members)).images.classes == ("0", "1")
    folder = [(f"{name}/{number}.png", png(number)) for name in "ab" for number in range(3)]
    assert read_source(tar(tmp_path / "archive.tar", *folder)).images.names[0] == "a/0.png"


def test_a_tar_beside_class_folders_is_no_shard(tmp_path, fill, sample):
    tar(fill(tmp_path, {"cat": 2, "dog": 1}) / "backup.tar", *sample("x", 0))
    assert read_source(tmp_path).images.classes == ("cat", "dog")


# --- what is refused ---


def refused(path: Path, *said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_shards(path.parent)
    for words in (path.name, *said):
        assert words in str(caught.value)


def link(name: str, kind: bytes, to: str = "/etc/passwd") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, to
    return header


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_d16_members_that_are_no_files(tmp_path, sample, kind):
    refused(tar(tmp_path / "0.tar", *sample("x", 0), link("y.png", kind)), "[D16]", "y.png", "a link, a device")


def test_d16_a_sparse_member(tmp_path, sample):
    refused(tar(tmp_path / "0.tar", *sample("x", 0), link("y.png", tarfile.GNUTYPE_SPARSE)), "[D16]", "y.png", "sparse")


def test_d16_what_comes_twice(tmp_path, sample, png):
    one, other = sample("x", 0), sample("y", 1)
    refused(tar(tmp_path / "0.tar", *one, *other, *one), "[D16]", "x.png", "its key came before")
    refused(tar(tmp_path / "0.tar", *one, ("x.jpg", png())), "[D16]", "x.jpg", "second image")
    refused(tar(tmp_path / "0.tar", *one, ("x.cls", b"2")), "[D16]", "x.cls", "second of its kind")


def test_d2_d11_samples_that_lack_something(tmp_path, sample, png):
    refused(tar(tmp_path / "0.tar", ("x.cls", b"0"), *sample("y", 0)), "[D2]", ": x has no image")
    refused(tar(tmp_path / "0.tar", *sample("x", 0), ("y.png", png())), "[D11]", ": y has no label")
    refused(tar(tmp_path / "0.tar"), "[D2]", "no samples")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.cls", b"\xff"),
        ("x.cls", b" "),
        ("x.cls", b"0" * (2 << 20)),
        ("x.json", b"{"),
        ("x.json", b"[" * 100_000),
        ("x.json", b'{"label": [1]}'),
        ("x.json", b'{"label": true}'),
    ],
    ids=range(7),
)
def test_d11_d16_labels_that_are_none(tmp_path, png, name, content):
    refused(
        tar(tmp_path / "0.tar", ("x.png", png()), (name, content)),
        ": member x" if content.strip() else ": x has no label",
    )


@pytest.mark.parametrize("label", ["-1", "2", "bird"])
def test_d11_labels_outside_the_classes(tmp_path, sample, label):
    (tmp_path / "classes.json").write_text('["cat", "dog"]')
    tar(tmp_path / "0.tar", *sample("x", 0), *sample("y", label))
    with pytest.raises(DataError, match=r"error\[D11\]: 0.tar/y.png has the label .*none of the 2 classes"):
        read_shards(tmp_path)


@pytest.mark.parametrize("names", ['["cat", "cat"]', '["cat", 1]', '{"cat": 0}', "[", '["cat", ""]'])
def test_d11_class_names_that_are_none(tmp_path, sample, names):
    (tmp_path / "classes.json").write_text(names)
    tar(tmp_path / "0.tar", *sample("x", 0))
    with pytest.raises(DataError, match=r"error\[D11\]: .*classes.json"):
        read_shards(tmp_path)


def test_d1_a_tar_cut_off_anywhere(tmp_path, sample):
    """Also between two members, where tarfile takes the cut for the end."""
    path = tar(tmp_path / "0.tar", *(member for number in range(3) for member in sample(str(number), number)))
    content = path.read_bytes()
    end = len(content.rstrip(b"\0"))
    end += -end % 512
    for length in [*range(1, end, 331), *range(512, end + 1, 512)]:
        path.write_bytes(content[:length])
        refused(path, "[D1]")
    path.write_bytes(content[: end + 512])  # a single block of zeros is enough, as for GNU tar
    assert len(read_shards(tmp_path).images) == 3


def test_d1_damaged_headers_and_what_follows_the_end(tmp_path, sample):
    path = tar(tmp_path / "0.tar", *(member for number in range(3) for member in sample(str(number), number)))
    content = path.read_bytes()
    with tarfile.open(path) as file:
        headers = [member.offset for member in file]
    for offset in headers:
        for place in (0, 130, 150):  # name, size, checksum
            damaged = bytearray(content)
            damaged[offset + place] ^= 1
            path.write_bytes(damaged)
            refused(path, "[D1]")
    path.write_bytes(content + content)
    refused(path, "[D1]", "cut off at byte")


@pytest.mark.parametrize("name", ["0.tar.gz", "0.tar.zst"])
def test_d3_a_compressed_shard(tmp_path, sample, name):
    tar(tmp_path / name, *sample("x", 0), mode="w:gz")
    with pytest.raises(DataError, match=r"error\[D3\].*no random access. Remedy: decompress"):
        read_source(tmp_path)
    tar(tmp_path / "1.tar", *sample("x", 0), mode="w:gz")
    (tmp_path / name).unlink()
    refused(tmp_path / "1.tar", "[D1]", "decompress")


def test_d1_random_damage_never_hangs_or_crashes(tmp_path, sample):
    path = tar(tmp_path / "0.tar", *(member for number in range(4) for member in sample(str(number), number)))
    content, chance = path.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(content) // 512) * 512 + chance.randrange(160)
            damaged[place] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            images = read_shards(tmp_path).images
            assert len(images) == 4
        except DataError as error:
            assert "0.tar" in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_d1_a_header_of_a_gigabyte_is_not_read(tmp_path, kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1 << 30
    (tmp_path / "0.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    os.truncate(tmp_path / "0.tar", (1 << 30) + 4096)
    started = time.monotonic()
    refused(tmp_path / "0.tar", "[D1]", "a header of 1,073,741,824 bytes")
    assert time.monotonic() - started < 1


# --- reading an image ---


def test_d5_a_huge_member_is_a_bad_file_and_not_read(tmp_path, sample):
    huge = tarfile.TarInfo("huge.png")
    huge.size = 70 << 20
    folder = tar(tmp_path / "d/0.tar", *sample("x", 0), huge, ("huge.cls", b"1")).parent
    images = read_shards(folder, max_pixels=100_000).images
    with pytest.raises(DataError, match=r"error\[D5\]: 0.tar/huge.png: 73,400,320 bytes"):
        images[1]
    images[0]


def test_d15_a_shard_that_changes_or_vanishes(tmp_path, sample):
    path = tar(tmp_path / "d/0.tar", *sample("x", 0))
    images = read_shards(tmp_path / "d").images
    images[0]
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match=r"error\[D15\]: 0.tar/x.png: the shard has changed"):
        images[0]
    path.unlink()
    with pytest.raises(DataError, match=r"error\[D15\]: 0.tar/x.png: the shard is gone"):
        images[0]


def test_shards_are_listed_once(animals, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "LARGE", 0)
    write_shards(read_folder(animals), tmp_path / "out", "webdataset", per_shard=5)
    progress = []
    first = read_shards(tmp_path / "out", progress=lambda done, total: progress.append((done, total)))
    assert progress == [(number, 6) for number in range(1, 7)]
    monkeypatch.setattr(shards_module, "samples", None)
    again = read_shards(tmp_path / "out")
    assert (again.images.names, again.parts) == (first.images.names, first.parts)
    assert again.images.labels.tolist() == first.images.labels.tolist()
    assert again.images.content(20) == first.images.content(20)
    monkeypatch.undo()
    os.utime(tmp_path / "out/train-00000-of-00005.tar", ns=(0, 0))
    assert read_shards(tmp_path / "out").images.labels.tolist() == first.images.labels.tolist()


# --- writing ---


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_shards_hold_the_images_of_the_folder(animals, tmp_path, kind):
    (animals / "train/empty").mkdir()
    (animals / "train/2/0.png").rename(animals / "train/2/a\nb.c.d.png")
    folder = read_folder(animals, allow_empty_class=True)
    written = write_shards(folder, tmp_path / "out", kind, per_shard=5)
    assert [path.name.split(".")[0] for path in written] == [
        *(f"train-{number:05}-of-00005" for number in range(5)),
        "test-00000-of-00001",
    ]
    read = read_source(tmp_path / "out")
    assert read.images.classes == folder.images.classes == ("2", "10", "cat", "empty")
    assert read.images.labels.tolist() == folder.images.labels.tolist()
    assert {part: len(names) for part, names in read.parts.items()} == {"train": 21, "test": 4}
    for index in range(len(folder.images)):
        assert read.images.content(index) == folder.images.content(index)
        assert torch.equal(read.images[index][0], folder.images[index][0])
    splits, same = open_data(tmp_path / "out"), open_data(animals, allow_empty_class=True)
    for part in ("train", "val", "test"):
        here, there = getattr(splits, part), getattr(same, part)
        assert [here.content(i) for i in range(len(here))] == [there.content(i) for i in range(len(there))]


def test_one_command_writes_them(animals, tmp_path, capsys):
    assert main(["shard", str(animals), "--out", str(tmp_path / "out"), "--to", "webdataset", "--per-shard", "10"]) == 0
    assert "25 images in 4 shards; to train on them: --data" in capsys.readouterr().out
    assert len(open_data(tmp_path / "out").test) == 4


def test_what_other_tools_find_in_a_shard(animals, tmp_path):
    folder = read_folder(animals)
    path = write_shards(folder, tmp_path / "out", "webdataset")[0]
    with tarfile.open(path) as file:
        assert file.getnames()[3:6] == ["000000001.png", "000000001.cls", "000000001.json"]
        assert file.extractfile("000000001.cls").read() == b"0"
        assert json.load(file.extractfile("000000001.json")) == {"label": 0, "class": "2", "name": "train/2/1.png"}


def test_what_hugging_face_finds_in_a_file(animals, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    path = write_shards(read_folder(animals), tmp_path / "out", "parquet")[0]
    table = pq.read_table(path)
    assert table.column("image")[1].as_py() == {
        "bytes": (animals / "train/2/1.png").read_bytes(),
        "path": "train/2/1.png",
    }
    label = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]
    assert label == {"_type": "ClassLabel", "names": ["2", "10", "cat"]}


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_a_stopped_writer_goes_on(animals, tmp_path, kind, monkeypatch):
    source = read_folder(animals)
    whole = write_shards(source, tmp_path / "whole", kind, per_shard=5)
    monkeypatch.setattr(sharding, "_encoded", stopping_at(14, sharding._encoded))
    with pytest.raises(KeyboardInterrupt):
        write_shards(source, tmp_path / "out", kind, per_shard=5)
    there = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [path.name for path in whole[:2]] == [name for name in there if "-of-" in name]
    before = (tmp_path / "out" / whole[0].name).stat().st_mtime_ns
    monkeypatch.undo()
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "cache"))
    again = write_shards(source, tmp_path / "out", kind, per_shard=5)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in whole]
    assert again[0].stat().st_mtime_ns == before


def stopping_at(last: int, function):
    def call(images, index):
        if index == last:
            raise KeyboardInterrupt
        return function(images, index)

    return call


def test_l4_a_folder_of_other_shards(animals, tmp_path, fill):
    source = read_folder(animals)
    write_shards(source, tmp_path / "out", "webdataset", per_shard=5)
    for other in ({"per_shard": 6}, {"kind": "parquet"}):
        with pytest.raises(ConfigError, match=r"error\[L4\].*other images or of another form"):
            write_shards(source, tmp_path / "out", **{"kind": "webdataset", "per_shard": 5, **other})
    fill(animals / "train", {"dog": 1})
    with pytest.raises(ConfigError, match=r"error\[L4\]"):
        write_shards(read_folder(animals), tmp_path / "out", "webdataset", per_shard=5)
    with pytest.raises(ConfigError, match=r"error\[L4\].*not empty"):
        write_shards(source, animals, "webdataset")


def test_what_cannot_be_copied(animals, tmp_path):
    with pytest.raises(ConfigError, match=r"error\[L2\]: digits is stored as pixels"):
        write_shards(read_source("digits"), tmp_path / "out", "webdataset")
    (animals / "train/cat/3.png").write_text("<html>")
    with pytest.raises(DataError, match=r"error\[D3\]: train/cat/3.png: not an image .* HTML"):
        write_shards(read_folder(animals), tmp_path / "out", "webdataset")


# --- order and memory ---


def test_what_lies_together_is_a_block(tmp_path, fill, monkeypatch):
    monkeypatch.setattr(shards_module, "_BLOCK_BYTES", 4096)
    fill(tmp_path / "animals", {"cat": 20, "dog": 20})
    write_shards(read_folder(tmp_path / "animals"), tmp_path / "out", "webdataset", per_shard=15)
    assert read_shards(tmp_path / "out").images.blocks is None  # all of it fits into a window
    monkeypatch.setattr(shards_module, "_WINDOW_BYTES", 2000)
    images = read_shards(tmp_path / "out").images
    of = images.blocks.of.tolist()
    assert of == sorted(of)
    assert len(set(of)) > 10
    assert {name.split("/")[0] for name, block in zip(images.names, of, strict=True) if block == of[-1]} == {
        "images-00002-of-00003.tar"
    }
    assert images.blocks.window > 1
    held = images.in_memory()
    assert held.blocks is None  # nothing is near or far any more
    assert images.subset([0, 39]).blocks.of.tolist() == [of[0], of[39]]


@pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux for its peak of memory")
def test_memory_is_bounded_whatever_the_size_of_the_shards(tmp_path, png):
    """Writing, listing and reading 200 MB in 2 shards take far less."""
    pytest.importorskip("pyarrow")
    for index in range(100):  # bytes after an image's end are no damage
        path = tmp_path / "d" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png() + bytes([index]) * 2_000_000)
    script = (
        "import re, sys, pathlib\n"
        "from convatlas.data import parquet, shards\n"
        "from convatlas.data.open import read_source\n"
        "from convatlas.data.sharding import write_shards\n"
        "import pyarrow.parquet\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "parquet._HELD_BYTES = shards._WINDOW_BYTES = 20_000_000\n"
        "source = read_source(folder / 'd')\n"
        "size = lambda name: int(re.search(name + r':\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "pathlib.Path('/proc/self/clear_refs').write_text('5')\n"  # the peak counts from here
        "before = size('VmRSS')\n"
        "for kind in ('webdataset', 'parquet'):\n"
        "    write_shards(source, folder / kind, kind, per_shard=50)\n"
        "    images = read_source(folder / kind).images\n"
        "    assert images.blocks.window in (9, 10)\n"
        "    for index in range(len(images)):\n"
        "        assert images.content(index * 7 % 100) == source.images.content(index * 7 % 100)\n"
        "print((size('VmHWM') - before) >> 10)\n"
    )
    grown = subprocess.run([sys.executable, "-c", script, tmp_path], check=True, capture_output=True, text=True).stdout
    assert int(grown) < 100  # MiB
