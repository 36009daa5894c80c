"""What is predicted: every image of every kind of place, once, in order, with or without labels."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.cli import main
from convatlas.data.open import read_source
from convatlas.data.sharding import write_shards
from convatlas.deploy import inputs as module
from convatlas.deploy.inputs import Inputs, find_inputs
from convatlas.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images in two classes, and files of other kinds."""
    for index in range(7):
        path = tmp_path / "in" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(index))
    (tmp_path / "in/notes.txt").write_text("no image")
    (tmp_path / "in/.hidden.png").write_bytes(png(9))
    return tmp_path / "in"


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
    return path


def contents(inputs: Inputs) -> list[bytes | str]:
    """What each input holds, or the ID of its error."""
    found = []
    for index in range(len(inputs)):
        try:
            found.append(inputs.content(index))
        except DataError as error:
            found.append(error.id)
    return found


def test_a_folder_is_the_images_below_it(folder):
    inputs = find_inputs([folder])
    assert list(inputs.names) == [f"{folder}/{name}.png" for name in ("a/0", "a/2", "a/4", "a/6", "b/1", "b/3", "b/5")]
    assert contents(inputs) == [png(index) for index in (0, 2, 4, 6, 1, 3, 5)]


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_our_own_shards(folder, tmp_path, kind):
    shards = write_shards(read_source(folder), tmp_path / "shards", kind, per_shard=3)
    (tmp_path / "shards/classes.json").unlink(missing_ok=True)
    whole, each = find_inputs([tmp_path / "shards"]), find_inputs(shards)
    assert contents(whole) == contents(each) == [png(index) for index in (0, 2, 4, 6, 1, 3, 5)]
    assert list(whole.names) == list(each.names)
    assert whole.names[3].startswith(f"{shards[1]}/")
    assert len(set(whole.names)) == 7


def test_a_shard_without_labels(tmp_path):
    path = tar(tmp_path / "x.tar", ("b.jpg", png(1)), ("a.JPEG", png(2)), ("a.json", b"[]"), ("c.txt", b"no"))
    inputs = find_inputs([path])
    assert list(inputs.names) == [f"{path}/b.jpg", f"{path}/a.JPEG"]
    assert contents(inputs) == [png(1), png(2)]


def test_numbered_shards(tmp_path):
    for number in range(3):
        tar(tmp_path / f"x-{number:02}.tar", (f"{number}.png", png(number)))
    assert contents(find_inputs([tmp_path / "x-{00..03}.tar"])) == [png(0), png(1), png(2), "D15"]


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_without_labels(tmp_path, struct):
    images = [png(0), png(1), None, png(3)]
    column = [image and {"bytes": image, "path": "x"} for image in images] if struct else images
    pq.write_table(pa.table({"img": column, "other": [1, 2, 3, 4]}), tmp_path / "x.parquet", row_group_size=3)
    inputs = find_inputs([tmp_path / "x.parquet"])
    assert list(inputs.names) == [f"{tmp_path}/x.parquet/{row}" for row in range(4)]
    assert contents(inputs) == [png(0), png(1), "D2", png(3)]


def test_many_parquet_files_are_not_held_together(tmp_path):
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.parquet")
        pq.write_table(pa.table({"image": [png(number), png(number + 10)]}), paths[-1])
    module._opened.cache_clear()
    inputs = find_inputs(paths)
    assert contents(inputs) == [png(n + more) for n in range(6) for more in (0, 10)]
    assert module._opened.cache_info().misses == 6  # each is opened once to be read
    assert module._opened.cache_info().currsize == 2


def test_what_is_damaged_is_one_input_with_an_error(folder, tmp_path):
    cut = tar(tmp_path / "cut.tar", ("a.png", png(1)))
    cut.write_bytes(cut.read_bytes()[:700])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"picture": [b""]}), tmp_path / "other.parquet")
    (tmp_path / "void").mkdir()
    empty = tar(tmp_path / "empty.tar", ("a.txt", b"no"))
    places = [cut, tmp_path / "bad.parquet", tmp_path / "other.parquet", tmp_path / "void", empty, tmp_path / "no.tar"]
    inputs = find_inputs([folder / "a", *places, folder / "a/0.png"])
    assert contents(inputs)[4:] == ["D1", "D3", "D11", "D10", "D10", "D15", png(0)]
    assert list(inputs.names)[4:] == [str(path) for path in (*places, folder / "a/0.png")]


def test_a_damaged_shard_does_not_hide_the_others(tmp_path):
    first = tar(tmp_path / "s/0.tar", ("a.png", png(1)))
    tar(tmp_path / "s/1.tar", ("b.png", png(2)))
    first.write_bytes(first.read_bytes()[:700])
    assert contents(find_inputs([tmp_path / "s"])) == ["D1", png(2)]


def test_an_object_store(folder, tmp_path):
    address = f"file://{folder}"
    inputs = find_inputs([address, f"{address}/b/1.png", f"{address}/none.png", "file:///nowhere/at/all", "ftpx://a/b"])
    assert list(inputs.names)[:8] == [*(f"file://{p}" for p in find_inputs([folder]).names), f"{address}/b/1.png"]
    assert contents(inputs) == [*(png(index) for index in (0, 2, 4, 6, 1, 3, 5, 1)), "D15", "D15", "D14"]


def test_inputs_cross_a_process_border(folder, tmp_path):
    (shard,) = write_shards(read_source(folder), tmp_path / "w", "webdataset")
    (parquet,) = write_shards(read_source(folder), tmp_path / "p", "parquet")
    inputs = find_inputs([folder, shard, parquet, f"file://{folder}", tmp_path / "none.png"])
    again = pickle.loads(pickle.dumps(inputs))
    assert contents(again) == contents(inputs)
    assert list(again.names) == list(inputs.names)
    assert again.digest() == inputs.digest()
    assert find_inputs([shard, folder]).digest() != find_inputs([folder, shard]).digest()


def test_a_name_that_is_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.png")
    path.write_bytes(png(3))
    inputs = find_inputs([tmp_path])
    assert list(inputs.names) == [str(path)]
    assert contents(inputs) == [png(3)]
    assert len(inputs.digest()) == 64


def test_the_command_takes_them_all(bundle, folder, tmp_path, capsys):
    model = bundle.save(tmp_path / "model.safetensors")
    (shard,) = write_shards(read_source(folder), tmp_path / "w", "webdataset")
    assert main(["predict", str(model), str(folder), str(shard), f"file://{folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    answers = [line.partition(".png: ")[2] for line in lines]
    assert len(lines) == 21
    assert answers[:7] == answers[7:14] == answers[14:]
