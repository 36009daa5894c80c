import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convatlas.data import parquet
from convatlas.data.decode import decode
from convatlas.data.parquet import read_parquet
from convatlas.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def write(png):
    """`write(path, labels)`: a Parquet file of one small image per label."""

    def write(path, labels, *, image="image", label="label", struct=False, metadata=None, first=0, **options):
        images = [png(first + row) for row in range(len(labels))]
        if struct:
            images = [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(images)]
        table = pa.table({image: images, label: labels})
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table.replace_schema_metadata(metadata), path, **options)
        return path

    return write


def test_a_single_file(tmp_path, write, png):
    source = read_parquet(write(tmp_path / "birds.parquet", [0, 1, 1], metadata={"classes": "wren,robin"}))
    assert source.name == "birds"
    assert source.parts is None
    assert source.images.classes == ("wren", "robin")
    assert source.images.names == ("birds/0", "birds/1", "birds/2")
    assert source.images.labels.tolist() == [0, 1, 1]
    for row in range(3):
        assert torch.equal(source.images[row][0], decode(png(row)))


def test_parts_in_shards(tmp_path, write, png):
    write(tmp_path / "d/test-00000-of-00001.parquet", [1], first=30)
    write(tmp_path / "d/train-00001-of-00002.parquet", [1, 2], first=10)
    write(tmp_path / "d/train-00000-of-00002.parquet", [0, 1, 2], first=0)
    source = read_parquet(tmp_path / "d")
    assert source.parts == {"train": tuple(f"train/{row}" for row in range(5)), "test": ("test/0",)}
    assert source.images.labels.tolist() == [0, 1, 2, 1, 2, 1]
    for index, seed in enumerate([0, 1, 2, 10, 11, 30]):
        assert torch.equal(source.images[index][0], decode(png(seed)))


def test_hugging_face_files(tmp_path, write, png):
    features = {"img": {"_type": "Image"}, "fine_label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path = write(tmp_path / "x.parquet", [1, 0], image="img", label="fine_label", struct=True, metadata=metadata)
    images = read_parquet(path).images
    assert images.classes == ("a", "b")
    assert torch.equal(images[1][0], decode(png(1)))


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        ([10, 2, 1, 2], ("1", "2", "10"), [2, 1, 0, 1]),
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
    ],
)
def test_classes_from_the_labels(tmp_path, write, labels, classes, indices):
    images = read_parquet(write(tmp_path / "x.parquet", labels, label="labels")).images
    assert images.classes == classes
    assert images.labels.tolist() == indices


@pytest.mark.parametrize("label", [-1, 2])
def test_d11_labels_outside_the_classes(tmp_path, write, label):
    path = write(tmp_path / "x.parquet", [0, label], metadata={"classes": "a,b"})
    with pytest.raises(DataError, match=rf"error\[D11\].*x/1 has the label {label}, which is none of the 2 classes"):
        read_parquet(path)


def test_d11_a_class_of_test_that_train_lacks(tmp_path, write):
    write(tmp_path / "d/train.parquet", ["a", "b"])
    write(tmp_path / "d/test.parquet", ["a", "c"])
    with pytest.raises(DataError, match=r"error\[D11\].*test/1 has the label 'c'"):
        read_parquet(tmp_path / "d")


def test_d11_a_row_without_label(tmp_path, write):
    with pytest.raises(DataError, match=r"error\[D11\].*row 1 has the label None"):
        read_parquet(write(tmp_path / "x.parquet", [0, None]))


def test_d11_other_columns(tmp_path, write):
    with pytest.raises(DataError, match=r"error\[D11\].*the columns are picture, label"):
        read_parquet(write(tmp_path / "x.parquet", [0], image="picture"))


def test_d11_a_file_of_no_part(tmp_path, write):
    for name in ("train", "test", "extra"):
        write(tmp_path / f"d/{name}.parquet", [0, 1])
    with pytest.raises(DataError, match=r"error\[D11\].*extra\.parquet"):
        read_parquet(tmp_path / "d")


def test_d2_a_row_without_image(tmp_path):
    pq.write_table(pa.table({"image": pa.array([None], pa.binary()), "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"error\[D2\].*x\.parquet: x/0: no image in this row"):
        read_parquet(tmp_path / "x.parquet").images[0]


def test_d3_not_a_parquet_file(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"error\[D3\].*x\.parquet: not a readable Parquet file"):
        read_parquet(tmp_path / "x.parquet")


def test_d1_a_damaged_row_group(tmp_path, write):
    path = write(
        tmp_path / "x.parquet", list(range(100)), row_group_size=50, compression="snappy", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    content[8:40] = bytes(32)  # page header of the first column
    path.write_bytes(content)
    images = read_parquet(path).images
    with pytest.raises(DataError, match=r"error\[D1\].*x/0: row group 0 of .*x\.parquet is damaged"):
        images[0]
    assert images[99][0].shape == (3, 8, 8)


def test_row_groups_are_held_up_to_a_limit(tmp_path, write, png, monkeypatch):
    path = write(tmp_path / "x.parquet", list(range(60)), row_group_size=10)
    images = read_parquet(path).images
    for row in [0, 59, 7, 31, 12, 58, 0]:
        assert torch.equal(images[row][0], decode(png(row)))
    assert len(images.content.held) == 4
    group = images.content.held[0].nbytes
    monkeypatch.setattr(parquet, "_HELD_BYTES", int(2.5 * group))
    images = read_parquet(path).images
    for row in range(60):
        images[row]
        assert sum(held.nbytes for held in images.content.held.values()) <= 2.5 * group
    assert list(images.content.held) == [4, 5]


@pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux for the open files")
def test_few_files_are_open_at_the_same_time(tmp_path, write, png, monkeypatch):
    for number in range(6):
        write(tmp_path / f"d/{number}.parquet", [number % 2] * 3, first=10 * number)
    monkeypatch.setattr(parquet, "_OPEN", 2)
    monkeypatch.setattr(parquet, "_HELD_BYTES", 0)
    images = read_parquet(tmp_path / "d").images
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir()))
    for row in [0, 17, 5, 8, 11, 14, 2, 17]:
        assert images.content(row) == png(10 * (row // 3) + row % 3)
        assert len(list(opened.iterdir())) <= before + 2


def test_what_lies_together_is_a_block(tmp_path, write, monkeypatch):
    write(tmp_path / "d/train-0.parquet", [0, 1, 0, 1, 0], row_group_size=2)
    write(tmp_path / "d/train-1.parquet", [0, 1, 0], row_group_size=2)
    assert read_parquet(tmp_path / "d").images.blocks is None  # all of it fits into memory
    group = pq.ParquetFile(tmp_path / "d/train-0.parquet").metadata.row_group(0).total_byte_size
    monkeypatch.setattr(parquet, "_HELD_BYTES", 3 * group)
    images = read_parquet(tmp_path / "d").images
    assert images.blocks.of.tolist() == [0, 0, 1, 1, 2, 3, 3, 4]
    assert images.blocks.window in (2, 3)
    monkeypatch.setattr(parquet, "_HELD_BYTES", 1)
    assert read_parquet(tmp_path / "d").images.blocks.window == 1  # a row group is the least


def test_images_cross_a_process_border(tmp_path, write, png):
    images = read_parquet(write(tmp_path / "x.parquet", [0, 1, 0])).images
    assert torch.equal(pickle.loads(pickle.dumps(images))[2][0], decode(png(2)))


def test_opening_reads_no_images(tmp_path):
    """A file of 160 MB opens in far less memory."""
    schema = pa.schema({"image": pa.binary(), "label": pa.int64()})
    with pq.ParquetWriter(tmp_path / "x.parquet", schema, compression="none", use_dictionary=False) as writer:
        for group in range(8):
            writer.write_table(pa.table({"image": [bytes([group]) * 20_000_000], "label": [group]}, schema=schema))
    script = (
        "import sys, pathlib, pyarrow.parquet\n"
        "from convatlas.data.parquet import read_parquet\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"  # not its parent's
        "before = peak()\n"
        "assert len(read_parquet(pathlib.Path(sys.argv[1])).images) == 8\n"
        "print((peak() - before) // 1024)\n"
    )
    grown = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "x.parquet"], check=True, capture_output=True, text=True
    ).stdout
    assert int(grown) < 60  # MiB


def test_cifar10(shared):
    source = read_parquet(shared / "cifar10")
    assert source.images.classes[0] == "airplane"
    assert source.images.labels.bincount().tolist() == [6000] * 10
    assert source.images[59_999][0].shape == (3, 32, 32)
