"""One answer for each input, in order, whatever is among them (I1), and the same whatever the batch (I5)."""

import io
import itertools
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data import decode
from convatlas.deploy import Prediction, of_bundle, predict_files
from convatlas.deploy.inputs import Inputs, find_inputs
from convatlas.deploy.model import of_engine
from convatlas.deploy.predict import ahead, predict_inputs
from convatlas.errors import DataError
from convatlas.weights import Bundle


def png(seed: int, height: int = 20, width: int = 24) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels // 2 + np.uint8(seed % 100)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """70 pictures in sub-folders."""
    root = tmp_path_factory.mktemp("pictures")
    for index in range(70):
        path = root / f"{index % 3}" / f"{index:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(index, 10 + index, 80 - index))
    return root


def rows(bundle: Bundle, *args, **kw) -> list[Prediction]:
    return list(predict_files(of_bundle(bundle), *args, **kw))


def test_a_prediction_is_the_networks_of_the_preprocessed_image(bundle, folder):
    path = folder / "0/000.png"
    with torch.inference_mode():
        p = bundle.build()(bundle.preprocess(decode(path))[None]).softmax(1)[0]
    (row,) = rows(bundle, [path])
    order = p.argsort(descending=True).tolist()
    assert [name for name, _ in row.top] == [bundle.classes[i] for i in order]
    assert [q for _, q in row.top] == pytest.approx(p[order].tolist(), abs=1e-6)
    assert row.path == str(path)
    assert row.error is None


def test_top_is_at_most_the_number_of_classes(bundle, folder):
    path = folder / "0/000.png"
    assert [len(rows(bundle, [path], top=k)[0].top) for k in (1, 3, 4, 100)] == [1, 3, 4, 4]


def test_the_batch_does_not_matter(bundle, folder):
    one, seven, many = (rows(bundle, [folder], batch=size) for size in (1, 7, 64))
    assert len(one) == 70
    assert len({row.top[0][0] for row in one}) > 1
    for a, b, c in zip(one, seven, many, strict=True):
        assert a.path == b.path == c.path
        assert a.top[0][0] == b.top[0][0] == c.top[0][0]
        for other in (b, c):
            assert dict(other.top) == pytest.approx(dict(a.top), abs=1e-5)


def test_a_folder_is_all_its_images_in_order(bundle, folder):
    found = [row.path for row in rows(bundle, [folder])]
    assert found == sorted(str(path) for path in folder.rglob("*.png"))


def test_files_and_folders_keep_their_order_and_repeats(bundle, folder):
    last, first = folder / "2/068.png", folder / "0/000.png"
    found = [row.path for row in rows(bundle, [last, folder / "1", first, last])]
    assert found == [str(last), *sorted(map(str, (folder / "1").iterdir())), str(first), str(last)]


@pytest.fixture
def mixed(tmp_path) -> list[tuple[Path, str | None]]:
    """Good files and bad ones, each with the ID of its error."""
    cases = [
        ("good.png", png(1), None),
        ("cut.png", png(2)[:200], "D1"),
        ("empty.jpg", b"", "D2"),
        ("page.jpg", b"<html><body>404</body></html>", "D3"),
        ("really a png.jpg", png(3), None),
        (os.fsdecode(b"\xff.png"), png(4), None),
        ("line\nfeed.png", png(5)[:90], "D1"),
        ("=cmd(),\"'.png", png(6), None),
    ]
    for name, content, _ in cases:
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "void").mkdir()
    cases += [("pipe.png", b"", "D3"), ("nothing.png", b"", "D15"), ("void", b"", "D10"), ("good.png", b"", None)]
    return [(tmp_path / name, id) for name, _, id in cases]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_every_input_has_one_row_good_or_bad(bundle, mixed, batch):
    found = rows(bundle, [path for path, _ in mixed], batch=batch)
    assert len(found) == len(mixed)
    alone = {path: rows(bundle, [path]) for path, _ in mixed}
    for row, (path, id) in zip(found, mixed, strict=True):
        (expected,) = alone[path]
        assert row.path == expected.path
        assert "\n" not in row.path
        assert (row.error and row.error.id) == (expected.error and expected.error.id) == id
        assert dict(row.top) == pytest.approx(dict(expected.top), abs=1e-5)
        assert bool(row.top) == (id is None)


def test_rows_are_json_with_the_answer_or_the_error(bundle, mixed):
    for row, (path, id) in zip(rows(bundle, [path for path, _ in mixed], top=2), mixed, strict=True):
        record = json.loads(json.dumps(row.to_dict()))
        assert record["path"] == row.path
        if id is None:
            assert record.keys() == {"path", "class", "probability", "top"}
            assert record["top"][record["class"]] == record["probability"] == max(record["top"].values())
            assert len(record["top"]) == 2
        else:
            assert record["error"]["id"] == id
            assert record["error"]["message"].startswith(f"error[{id}]: ")
            assert path.name.split("\n")[0] in record["error"]["message"]
            assert "Remedy: " in record["error"]["message"]


def test_only_bad_inputs_and_none_at_all(bundle, tmp_path):
    found = rows(bundle, [tmp_path / "a", tmp_path / ("b" * 300)])
    assert [row.error.id for row in found] == ["D15", "D14"]
    assert rows(bundle, []) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_may_not_be_read_is_a_row_too(bundle, tmp_path):
    shut = tmp_path / "shut"
    shut.mkdir()
    (shut / "a.png").write_bytes(png(0))
    shut.chmod(0o700)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        found = rows(bundle, [shut, shut / "a.png"])
    finally:
        os.seteuid(0)
    assert [row.error.id for row in found] == ["D14", "D14"]
    assert all(isinstance(row.error, DataError) for row in found)


def test_answers_come_as_they_are_ready(bundle, folder):
    answers = predict_files(of_bundle(bundle), [folder], batch=8)
    assert next(answers).path == str(folder / "0/000.png")
    removed = folder / "2/068.png"
    content = removed.read_bytes()
    removed.unlink()
    try:
        late = list(answers)
    finally:
        removed.write_bytes(content)
    assert [row.error.id for row in late if row.error] == ["D15"]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_work_ahead_keeps_its_order_and_its_bound(workers):
    started = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.001 * (item % 3))
        return item * item

    for number, found in enumerate(ahead(work, range(50), workers, 8)):
        assert found == number * number
        assert len(started) <= number + 8
        time.sleep(0.001)
    assert sorted(started) == list(range(50))


def test_work_ahead_ends_with_who_wanted_it():
    started, before = [], set(threading.enumerate())
    results = ahead(started.append, itertools.count(), 2, 8)
    next(results)
    results.close()
    count = len(started)
    assert count <= 9
    time.sleep(0.02)
    assert len(started) == count
    assert set(threading.enumerate()) <= before


def test_work_ahead_raises_what_work_raises():
    results = ahead(lambda item: 1 // (3 - item), range(9), 2, 8)
    with pytest.raises(ZeroDivisionError):
        list(results)


def test_images_are_decoded_beside_the_engine(bundle, folder):
    """What takes the time of one thread does not hold another."""
    inside = threading.Barrier(2, timeout=10)
    inputs = find_inputs([folder])
    meeting = Inputs(inputs.names, lambda index: (inside.wait(), inputs.content(index))[1])
    assert len(list(predict_inputs(of_engine(of_bundle(bundle)), meeting, range(70), workers=2))) == 70
