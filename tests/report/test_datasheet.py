"""The page and the picture sheet of a data set."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_page import Page

from convatlas.data.findings import findings
from convatlas.data.inspect import inspect
from convatlas.data.open import read_source
from convatlas.errors import ResourceError
from convatlas.report import sheet
from convatlas.report.datasheet import write_datasheet

FLOWERS = Path(__file__).parents[3] / "shared/data/flowers5_128"


def blobs(seed, width=60, height=40):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A folder with something of everything."""
    folder = tmp_path_factory.mktemp("data") / "pets"
    for number, name in enumerate(("cat", "<i>dog", "\u00e9lan")):
        (folder / name).mkdir(parents=True)
        for i in range(9):
            blobs(20 * number + i).save(folder / name / f"{i}.png")
    shutil.copy(folder / "cat/0.png", folder / "<i>dog/copy.png")
    blobs(1).resize((90, 60)).save(folder / "cat/like.jpg")
    (folder / "cat/e.png").touch()
    (folder / "empty").mkdir()
    return folder


def written(folder, out):
    inspection = inspect(read_source(folder, allow_empty_class=True))
    return inspection, write_datasheet(inspection, findings(inspection, 64), out)


def test_the_page_lists_everything_and_needs_nothing_else(pets, tmp_path):
    inspection, path = written(pets, tmp_path / "out")
    page = Page(path.read_text("utf-8"))
    assert path == tmp_path / "out/data.html"
    assert "The data set pets" in page.words
    assert "Bad files1left out of all figures" in page.words
    assert "Trainingrefuses it2 errors, 2 warnings" in page.words
    listed = page.table("level", "case", "what")
    assert [row[:2] for row in listed][:3] == [["error", "D2"], ["error", "D10"], ["warning", "D17"]]
    assert page.table("class", "train", "val", "test", "all")[0] == ["<i>dog", "6", "2", "2", "10"]
    assert page.table("case", "class", "what")[0][:2] == ["D2", "cat"]
    assert "<i>" not in path.read_text("utf-8").replace("<i style", "")
    for source in page.attributes("src"):
        assert source.startswith("data:image/jpeg;base64,")
    assert all(value.startswith(("#", "data:,")) for value in page.attributes("href"))
    pictures = sum(len(row.pictures) for row in sheet.class_rows(inspection) + sheet.copy_rows(inspection))
    assert len(page.attributes("src")) == pictures == 3 * 8 + 2 + 2


def test_what_programs_read(pets, tmp_path):
    written(pets, tmp_path)
    content = json.loads((tmp_path / "findings.json").read_text("utf-8"))
    assert content["images"] == 29
    assert content["classes"]["empty"] == {"train": 0, "val": 0, "test": 0}
    assert content["findings"][2]["files"] == [["<i>dog/copy.png", "cat/0.png"]]
    (bad,) = map(json.loads, (tmp_path / "bad_files.jsonl").read_text("utf-8").splitlines())
    assert (bad["name"], bad["id"], bad["label"]) == ("cat/e.png", "D2", "cat")


def test_the_sheet_shows_the_pictures_in_their_rows(pets, tmp_path):
    inspection, _ = written(pets, tmp_path)
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    rows = [*sheet.class_rows(inspection), *sheet.copy_rows(inspection)]
    assert [row.title for row in rows] == ["<i>dog", "cat", "\u00e9lan", "the same picture", "look alike"]
    height = sheet.SIDE + 2 * sheet.GAP + sheet.TEXT
    for number, row in enumerate(rows):
        top = sheet.MARGIN + 2 * sheet.TEXT + number * height + (sheet.SIDE - 64) // 2
        for place, (image, _) in enumerate(row.pictures):
            left = sheet.MARGIN + sheet.TITLE + place * (sheet.SIDE + sheet.GAP)
            assert image.size == (96, 64)
            assert np.array_equal(picture[top : top + 64, left : left + 96], np.asarray(image))
        title = picture[top : top + 64, sheet.MARGIN : sheet.MARGIN + sheet.TITLE - sheet.GAP]
        assert (title < 128).any()  # something is written there
        assert (title[:, -2:] == 255).all()  # and does not run into the pictures


def test_long_names_stay_in_their_column(tmp_path):
    row = sheet.Row("t" * 300, "d" * 300, ((blobs(0, 96, 96), "n" * 300),) * 2)
    picture = np.asarray(Image.open(io.BytesIO(sheet.paint([row], "s" * 900))).convert("L"))
    first = sheet.MARGIN + sheet.TITLE
    below = picture[sheet.MARGIN + 2 * sheet.TEXT + sheet.SIDE :]
    assert (picture[:, first - sheet.GAP : first][sheet.MARGIN + 2 * sheet.TEXT :] == 255).all()
    assert (below[:, first + sheet.SIDE : first + sheet.SIDE + sheet.GAP] == 255).all()
    assert (picture[:, -sheet.MARGIN :] == 255).all()
    assert (below[:, first : first + sheet.SIDE] < 200).any()


def test_copies_come_before_lookalikes_and_the_worst_first(tmp_path):
    for part, seed in (("train", 0), ("val", 50), ("test", 80)):
        for number, name in enumerate(("a", "b")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(4):
                blobs(seed + 10 * number + i).save(tmp_path / part / name / f"{i}.png")
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "train/a/9.png")
    shutil.copy(tmp_path / "train/a/1.png", tmp_path / "test/a/9.png")
    shutil.copy(tmp_path / "train/a/2.png", tmp_path / "test/b/9.png")
    rows = sheet.copy_rows(inspect(read_source(tmp_path)))
    assert [row.detail for row in rows] == ["in several classes and parts", "in several parts", "in one class and part"]
    assert [label for _, label in rows[0].pictures] == ["train/a/2.png", "test/b/9.png"]


def test_of_many_classes_the_smallest_are_shown(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}").mkdir()
        for i in range(3 + (number < 6)):
            blobs(100 * number + i, 8, 8).save(tmp_path / f"{number}/{i}.png")
    inspection, path = written(tmp_path, tmp_path / ".out")
    assert [row.title for row in sheet.class_rows(inspection)] == [f"{number}" for number in range(6, 30)]
    assert "Pictures of the 24 smallest classes." in Page(path.read_text("utf-8")).words


def test_no_image_at_all(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").touch()
    _, path = written(tmp_path, tmp_path / ".out")
    assert "There is no image that can be read." in Page(path.read_text("utf-8")).words
    assert Image.open(io.BytesIO((tmp_path / ".out/sheet.png").read_bytes())).size[0] > 100


def test_a_missing_package_is_named(pets, tmp_path, monkeypatch):
    inspection = inspect(read_source(pets, allow_empty_class=True))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ResourceError, match=r"needs matplotlib, which is not installed"):
        write_datasheet(inspection, [], tmp_path)


def test_flowers_hold_the_same_photograph_twice(tmp_path):
    if not FLOWERS.is_dir():
        pytest.skip("no ../shared/data/flowers5_128 beside the project: lookalikes in real photos are NOT tested")
    for part, label in (("train", "7166552648_28b6dce578_n"), ("val", "7166552648_28b6dce578")):
        (tmp_path / part / "tulip").mkdir(parents=True)
        for file in [*sorted((FLOWERS / part / "tulip").iterdir())[:100], FLOWERS / part / f"tulip/{label}.jpg"]:
            shutil.copy(file, tmp_path / part / "tulip" / file.name)
    inspection = inspect(read_source(tmp_path))
    names = [{Path(inspection.images.names[i]).stem for i in group} for group in inspection.lookalikes]
    assert {"7166552648_28b6dce578_n", "7166552648_28b6dce578"} in names
    assert len(names) <= 2
