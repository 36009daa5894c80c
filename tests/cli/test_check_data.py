"""`convatlas check-data` as a user calls it."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from convatlas.cli import main


@pytest.fixture
def check(capsys):
    """Call it; exit code, standard output, the last line of standard error."""

    def call(*args):
        code = main(["check-data", *map(str, args)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, (captured.err.splitlines() or [""])[-1]

    return call


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten different photos."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            coarse.resize((70, 70), Image.Resampling.BICUBIC).save(tmp_path / f"pets/{name}/{number}.png")
    return tmp_path / "pets"


def test_clean_data(check, photos):
    code, out, error = check(photos, "--strict")
    assert (code, error) == (0, "")
    assert "pets: 20 images in 2 classes; val is 15% and test 15% of each class" in out
    assert "shorter side 70 to 70 px, median 70" in out
    assert "cat" in out
    assert "warning" not in out


def test_all_bad_files_are_listed_and_it_ends_with_3(check, photos, tmp_path):
    (photos / "cat/empty.png").touch()
    (photos / "cat/void.png").touch()
    (photos / "dog/page.jpg").write_text("<html>")
    code, out, error = check(photos, "--out", tmp_path / "page")
    assert code == 3
    assert "2 files are empty (first: cat/empty.png)" in out
    assert "1 file is something else than an image (first: dog/page.jpg)" in out
    assert error == (
        "error[D2]: pets: 2 files are empty (first: cat/empty.png) ... and 1 more. "
        "Remedy: replace or remove them, or run with --on-bad-file=skip"
    )
    lines = (tmp_path / "page/bad_files.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["cat/empty.png", "cat/void.png", "dog/page.jpg"]
    assert {path.name for path in (tmp_path / "page").iterdir()} == {
        "bad_files.jsonl", "data.html", "findings.json", "sheet.png"
    }  # fmt: skip


def test_d17_a_warning_unless_strict(check, photos):
    shutil.copy(photos / "cat/0.png", photos / "dog/copy.png")
    code, out, error = check(photos)
    assert (code, error) == (0, "")
    assert "1 picture is in several classes (first: cat/0.png = dog/copy.png)" in out
    code, _, error = check(photos, "--strict")
    assert code == 3
    assert error.startswith("error[D17]: pets: 1 picture is in several classes")


def test_d4_a_manifest_written_and_compared(check, photos, tmp_path):
    assert check(photos, "--write-manifest", tmp_path / "sums")[0] == 0
    assert check(photos, "--hash-manifest", tmp_path / "sums")[0] == 0
    Image.open(photos / "cat/1.png").save(photos / "cat/1.png", compress_level=0)  # the same pixels in other bytes
    code, out, error = check(photos, "--hash-manifest", tmp_path / "sums")
    assert code == 3
    assert error.startswith("error[D4]: pets: 1 file has another content than the manifest says (first: cat/1.png)")
    assert "error" in out


def test_json_for_programs(check, photos):
    (photos / "cat/empty.png").touch()
    code, out, _ = check(photos, "--json")
    content = json.loads(out)
    assert code == 3
    assert content["classes"]["cat"] == {"train": 6, "val": 2, "test": 2}
    assert content["figures"]["formats"] == {"PNG": 20}
    (finding,) = content["findings"]
    assert (finding["id"], finding["level"], finding["files"]) == ("D2", "error", [["cat/empty.png"]])


def test_what_training_would_enlarge(check, photos):
    Image.open(photos / "cat/0.png").resize((33, 40)).save(photos / "cat/33.png")
    _, out, _ = check(photos)
    assert "1 of 21 images: smaller than the 64 px that training would use (first: cat/33.png)" in out


@pytest.mark.timeout(60)
def test_d10_d13_what_training_refuses_or_leaves_aside(check, photos):
    (photos / "empty").mkdir()
    os.mkfifo(photos / "cat/pipe.png")
    (photos / "cat/loop").symlink_to("..")
    code, out, error = check(photos)
    assert code == 3
    assert error.startswith("error[D10]: pets: 1 class has no images: empty")
    assert "ignored 1 pipes, sockets or devices (first: cat/pipe.png)" in out
    assert "ignored 1 links to folders inside" in out


def test_every_source_that_training_takes(check, photos, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(photos.rglob("*.png"))
    table = {"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
    pq.write_table(pa.table(table), tmp_path / "pets.parquet")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(photos))
    os.environ["CONVATLAS_CACHE"] = str(tmp_path / "cache")
    try:
        for source in ("pets.parquet", "pets.zip", "pets"):
            code, out, _ = check(tmp_path / source)
            assert (code, out.splitlines()[0][:31]) == (0, "pets: 20 images in 2 classes; v")
    finally:
        del os.environ["CONVATLAS_CACHE"]
    code, out, _ = check("digits")
    assert code == 0
    assert "digits: 1,797 images in 10 classes" in out


def test_wrong_use(check, photos, tmp_path):
    assert check(tmp_path / "nothing")[::2][0] == 2
    code, _, error = check("digits", "--write-manifest", tmp_path / "sums")
    assert (code, error[:9]) == (2, "error[L4]")
    code, _, error = check(photos, "--hash-manifest", photos / "cat/0.png")
    assert (code, error[:9]) == (2, "error[L7]")
    (tmp_path / "file").touch()
    code, _, error = check(photos, "--out", tmp_path / "file/page")
    assert (code, error[:9]) == (6, "error[C2]")


def test_hostile_names_stay_on_their_line(check, photos, tmp_path):
    shutil.move(photos / "cat", photos / os.fsdecode(b"c\xff\n<b>"))
    shutil.copy(photos / "dog/0.png", photos / "dog/a\nb\xff.png")
    code, out, _ = check(photos, "--out", tmp_path / "page")
    assert code == 0
    assert r"c\udcff\n<b>" in out
    out.encode()
    page = (tmp_path / "page/data.html").read_text("utf-8")
    assert r"c\udcff\n&lt;b&gt;" in page
    assert "<b>x" not in page.replace("\n", "")
