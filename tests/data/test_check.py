"""Bad files by plan: found, named, left out and never replaced."""

import hashlib
import io
import json
from dataclasses import asdict

import pytest
import torch
from PIL import Image

from convatlas.data.check import check
from convatlas.data.folder import read_folder
from convatlas.errors import ConfigError, DataError


@pytest.fixture
def damaged(tmp_path, fill, png):
    """20 good images and 6 bad ones; their names by fault."""
    fill(tmp_path, {"cat": 10, "dog": 10})
    bad = {
        "cat/empty.png": b"",
        "cat/page.jpg": b"<html>404 not found</html>",
        "cat/short.png": png()[:-40],
        "dog/far.ppm": b"P6 60000 60000 255\n",
        "dog/text.gif": b"GIF87 is no format",
        "dog/zeros.bmp": bytes(100),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path, bad


def test_skip_leaves_out_exactly_the_bad_ones(damaged):
    folder, contents = damaged
    images, bad, warnings = check(read_folder(folder).images, "skip")
    assert {file.name for file in bad} == set(contents)
    assert [file.id for file in bad] == ["D2", "D3", "D1", "D5", "D3", "D3"]
    for file in bad:
        assert file.sha256 == hashlib.sha256(contents[file.name]).hexdigest()
        assert file.label == file.name.split("/")[0]
        assert f"{folder}/{file.name}: " in file.reason
    assert json.loads(json.dumps([asdict(file) for file in bad]))[0]["id"] == "D2"
    assert warnings == ()
    for name in contents:
        (folder / name).unlink()
    clean = read_folder(folder).images
    assert images.names == clean.names
    assert torch.equal(images.labels, clean.labels)
    assert all(torch.equal(images[index][0], clean[index][0]) for index in range(20))


def test_fail_names_the_first_and_counts_the_others(damaged):
    folder, _ = damaged
    with pytest.raises(DataError, match=r"error\[D2\].*/cat/empty\.png: empty file \.\.\. and 5 more") as caught:
        check(read_folder(folder).images)
    assert "--on-bad-file=skip" in str(caught.value)


def test_lazy_reads_nothing_until_it_must(damaged):
    folder, _ = damaged
    images, bad, _ = check(read_folder(folder).images, "lazy")
    assert len(images) == 26
    assert bad == ()
    with pytest.raises(DataError, match="empty file"):
        images[images.names.index("cat/empty.png")]


def test_good_images_are_held_in_memory_up_to_the_limit(tmp_path, fill):
    images = read_folder(fill(tmp_path, {"a": 3, "b": 3})).images
    size = 6 * 3 * 8 * 8
    held, _, _ = check(images, limit_bytes=size)
    unheld, _, _ = check(images, limit_bytes=size - 1)
    expected = images[5][0]
    (tmp_path / "b/2.png").unlink()
    assert torch.equal(held[5][0], expected)
    with pytest.raises(DataError, match="no such file"):
        unheld[5]


def test_an_unknown_policy_is_refused(tmp_path, fill):
    with pytest.raises(ConfigError, match=r"on_bad_file is 'ignore'"):
        check(read_folder(fill(tmp_path, {"a": 1, "b": 1})).images, "ignore")


def test_d6_animations_are_counted_once(tmp_path, fill):
    fill(tmp_path, {"a": 2, "b": 2})
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for name in ("a/x.gif", "b/y.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    _, bad, warnings = check(read_folder(tmp_path).images)
    assert bad == ()
    assert warnings == ("2 animated or multi-page images, of which only the first frame is used (first: a/x.gif)",)


def test_progress_ends_with_the_count(tmp_path, fill):
    seen = []
    check(read_folder(fill(tmp_path, {"a": 70, "b": 1})).images, progress=lambda *step: seen.append(step))
    assert seen == [(64, 71), (71, 71)]


def test_a_file_that_lies_about_its_format_is_read_by_content(tmp_path, fill):
    fill(tmp_path, {"a": 1, "b": 1})
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "BMP")
    (tmp_path / "a/0.png").write_bytes(file.getvalue())
    images, bad, _ = check(read_folder(tmp_path).images)
    assert bad == ()
    assert images[0][0][:, 0, 0].tolist() == [255, 0, 0]
