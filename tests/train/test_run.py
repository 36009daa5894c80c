"""The folder of a run: begun, gone on with, refused, and what is written into it."""

import csv
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from convatlas.data import Images
from convatlas.errors import ConfigError, ResourceError
from convatlas.train.differences import differences
from convatlas.train.evaluate import Predictions
from convatlas.train.run import COLUMNS, MISTAKES, SAMPLES, Run, png

from tiny import Pictures

CONFIG = {"network": {"name": "a", "depths": (1, 2)}, "recipe": {"lr": 0.1, "batch": 8}, "seed": 0}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- opening ---


def test_a_new_run_notes_what_it_is_a_run_of(tmp_path):
    run = Run(tmp_path / "deep" / "run")
    assert not run.open(CONFIG, {"command": "train"})
    record = run.read_json("run.json")
    assert record["network"] == {"name": "a", "depths": [1, 2]}
    assert record["command"] == "train"
    assert record["environment"]["torch"] == torch.__version__
    assert names(run.folder) == ["lock", "run.json"]
    run.close()
    assert names(run.folder) == ["run.json"]


def test_the_same_run_goes_on_even_if_told_otherwise_about(tmp_path):
    run = Run(tmp_path)
    run.open(CONFIG, {"command": "first"})
    assert not run.open(CONFIG, {"command": "second"})
    assert run.read_json("run.json")["command"] == "first"


def test_a_finished_run_says_so(tmp_path):
    run = Run(tmp_path)
    run.open(CONFIG, {})
    run.write_json("result.json", {})
    assert run.open(CONFIG, {})


def test_another_run_in_the_folder_is_refused_and_the_differences_named(tmp_path):
    Run(tmp_path).open(CONFIG, {})
    before = (tmp_path / "run.json").read_bytes()
    other = {"network": {"name": "a", "depths": (1, 3)}, "recipe": {"lr": 0.2, "batch": 8}, "seed": 1}
    with pytest.raises(ConfigError) as caught:
        Run(tmp_path).open(other, {})
    assert caught.value.id == "L4"
    assert caught.value.exit_code == 2
    for part in ("network.depths [1, 2] -> [1, 3]", "recipe.lr 0.1 -> 0.2", "seed 0 -> 1", str(tmp_path)):
        assert part in caught.value.what
    assert "batch" not in caught.value.what
    assert (tmp_path / "run.json").read_bytes() == before


def test_differences_are_paths_with_both_values():
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4}) == [
        "a.c 2 -> 5",
        "d 3 -> None",
        "e None -> 4",
    ]
    assert differences({"a": {"b": [1]}}, {"a": {"b": [1]}}) == []
    assert differences({"a": 1}, {"a": {"b": 1}}) == ["a 1 -> {'b': 1}"]


@pytest.mark.parametrize("content", ["", "{", "\xff", "not json"])
def test_a_damaged_run_file_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content, "latin-1")
    with pytest.raises(ConfigError, match=r"error\[L7\]: .* is not a run: run.json: ") as caught:
        Run(tmp_path).open(CONFIG, {})
    assert "\n" not in str(caught.value)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run: result.json: No such file"):
        Run(tmp_path).read_json("result.json")


# --- C3: a folder that cannot be written ---


@pytest.mark.parametrize("where", ["file", "file/below", "link"])
def test_a_folder_blocked_by_a_file_is_refused_at_once(tmp_path, where):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(ResourceError) as caught:
        Run(tmp_path / where).open(CONFIG, {})
    assert caught.value.id == "C3"
    assert caught.value.exit_code == 6
    assert f"cannot write to {tmp_path / where}: " in caught.value.what
    assert "--out" in caught.value.remedy
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("below", ["", "run"])
def test_a_folder_without_permission_is_refused_at_once(below):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(ResourceError, match=r"error\[C3\]: cannot write to .*: Permission denied"):
                Run(Path(folder) / below).open(CONFIG, {})
        finally:
            os.seteuid(0)
        assert names(Path(folder)) == []


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Run("~/run").open(CONFIG, {})
    assert (tmp_path / "run/run.json").exists()


def test_what_a_killed_run_left_is_swept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "samples").mkdir()
    for name in ("probe", f".log.csv.{dead.pid}-0123abcd.part", f"samples/.0.png.{dead.pid}-0123abcd.part"):
        (tmp_path / name).touch()
    Run(tmp_path).open(CONFIG, {})
    assert names(tmp_path) == ["lock", "run.json", "samples"]
    assert names(tmp_path / "samples") == []


# --- logs ---


def test_the_log_is_csv_and_json_lines(tmp_path):
    history = [dict.fromkeys(reversed(COLUMNS), 1 / 3), dict.fromkeys(COLUMNS, 1e-20)]
    run = Run(tmp_path)
    run.write_log(history[:1])
    run.write_log(history)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "log.csv").read_text())))
    assert [{key: float(value) for key, value in row.items()} for row in rows] == history
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == history
    assert all(tuple(row) == COLUMNS for row in rows + lines)


# --- test images ---


def predictions(count, wrong=(), classes=("a", "b", "c"), image_names=None, side=9):
    """Image i is i everywhere; those in `wrong` are taken for the next class, the later the surer."""
    labels = torch.arange(count) % len(classes)
    logits = torch.zeros(count, len(classes))
    for i in range(count):
        logits[i, (labels[i] + (i in wrong)) % len(classes)] = 1 + i / count
    image_names = image_names or tuple(f"{classes[label]}/{i}.jpg" for i, label in enumerate(labels))
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 3, side, side)
    return (
        Predictions(classes, image_names, labels, logits),
        Images(classes, labels, image_names, Pictures(pixels)),
    )


def test_every_test_image_has_a_row(tmp_path):
    found, images = predictions(30, wrong={4, 20})
    Run(tmp_path).write_test(found, images)
    rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == list(images.names)
    assert [row["label"] for row in rows] == [images.classes[i] for i in images.labels]
    assert [i for i, row in enumerate(rows) if row["label"] != row["predicted"]] == [4, 20]
    assert (rows[4]["label"], rows[4]["predicted"]) == ("b", "c")
    for row, p in zip(rows, found.probabilities, strict=True):
        assert row["confidence"] == pytest.approx(p.max().item(), abs=1e-6)
        assert next(iter(row["top5"])) == row["predicted"]
        assert list(row["top5"].values()) == sorted(row["top5"].values(), reverse=True)
        assert len(row["top5"]) == 3


def test_the_surest_mistakes_are_kept_as_pictures(tmp_path):
    found, images = predictions(90, wrong=set(range(0, 90, 3)))
    Run(tmp_path).write_test(found, images)
    listing = json.loads((tmp_path / "mistakes/mistakes.json").read_text())
    assert [entry["name"] for entry in listing] == [f"a/{i}.jpg" for i in range(87, 87 - 3 * MISTAKES, -3)]
    for entry in listing:
        with Image.open(tmp_path / "mistakes" / entry["file"]) as picture:
            assert picture.getpixel((0, 0)) == (int(entry["name"][2:-4]),) * 3
    assert len(names(tmp_path / "mistakes")) == MISTAKES + 1


def test_earlier_mistakes_go(tmp_path):
    Run(tmp_path).write_test(*predictions(30, wrong={1, 2, 3}))
    Run(tmp_path).write_test(*predictions(30, wrong={7}))
    assert names(tmp_path / "mistakes") == ["00.png", "mistakes.json"]
    Run(tmp_path).write_test(*predictions(30))
    assert json.loads((tmp_path / "mistakes/mistakes.json").read_text()) == []


def test_samples_are_spread_over_the_images_and_named_by_class(tmp_path):
    Run(tmp_path).write_test(*predictions(29))
    assert set(names(tmp_path / "samples")) == {
        f"{number}_{'abc'[i % 3]}_{'abc'[i % 3]}-{i}.jpg.png" for number, i in enumerate((0, 4, 8, 12, 16, 20, 24, 28))
    }
    assert len(names(tmp_path / "samples")) == SAMPLES


def test_fewer_images_and_classes_than_wanted_are_enough(tmp_path):
    Run(tmp_path).write_test(*predictions(1, classes=("a", "b")))
    assert names(tmp_path / "samples") == ["0_a_a-0.jpg.png"]


HOSTILE = ("../../../up.png", "/etc/passwd", "a\nb.png", os.fsdecode(b"\xff\xfe.jpg"), "-rf.png", "x" * 250 + ".png",
           "犬" * 80 + ".png", "")  # fmt: skip


def test_hostile_names_stay_inside_and_come_back_from_the_log(tmp_path):
    classes = ("..", "犬" * 80, '<img src=x onerror="1">')
    found, images = predictions(8, wrong=set(range(8)), classes=classes, image_names=HOSTILE)
    Run(tmp_path / "run").write_test(found, images)
    rows = [json.loads(line) for line in (tmp_path / "run/test.jsonl").read_text("ascii").splitlines()]
    assert [row["name"] for row in rows] == list(HOSTILE)
    assert {row["label"] for row in rows} == set(classes)
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["mistakes", "samples", "test.jsonl"]
    assert len(names(tmp_path / "run/samples")) == SAMPLES
    assert len(json.loads((tmp_path / "run/mistakes/mistakes.json").read_text())) == 8


def test_a_picture_keeps_its_pixels_or_is_made_smaller():
    pixels = torch.randint(0, 256, (3, 40, 600), dtype=torch.uint8)
    whole = Image.open(io.BytesIO(png(pixels)))
    assert whole.size == (600, 40)
    assert list(whole.getpixel((599, 39))) == pixels[:, 39, 599].tolist()
    assert Image.open(io.BytesIO(png(pixels, most=256))).size == (256, 17)
    assert Image.open(io.BytesIO(png(pixels, most=600))).size == (600, 40)
