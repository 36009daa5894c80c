"""Large JPEGs, which are decoded at a part of their size."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data import Preprocess, open_data
from convatlas.data.decode import ENOUGH, decode, full_size
from convatlas.errors import DataError


def photo(height: int, width: int) -> Image.Image:
    """Blurs, edges and some noise at every scale, in colours."""
    random = np.random.default_rng(height + width)
    image = np.zeros((height, width, 3))
    for cells in (4, 16, 64, 256):
        layer = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image += np.asarray(
            layer.resize((width, height), Image.Resampling.BICUBIC if cells > 4 else Image.Resampling.BOX)
        )
    return Image.fromarray((image / 4).astype(np.uint8))


def encode(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "scale"),
    [((511, 900), 1), ((1023, 1100), 1), ((1024, 1100), 2), ((1025, 1999), 2), ((1100, 2048), 2), ((2047, 2050), 2),
     ((2048, 2051), 4), ((2051, 9001), 4), ((4096, 4097), 8), ((9000, 5000), 8)],
)  # fmt: skip
def test_the_shorter_side_keeps_enough_pixels(size, scale):
    height, width = size
    content = encode(Image.new("L", (width, height), 77))
    image = decode(content)
    assert image.shape == (3, -(-height // scale), -(-width // scale))
    assert (image == 77).all()
    assert min(image.shape[1:]) >= min(ENOUGH, height, width)
    assert full_size(content) == size


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 98}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_evaluation_sees_what_it_saw_in_the_whole_image(mode, options):
    content = encode(photo(1400, 1900).convert(mode), **{"quality": 90, **options})
    whole = decode(encode(Image.open(io.BytesIO(content)).convert("RGB"), "PNG", compress_level=0))
    scaled = decode(content)
    assert scaled.shape == (3, 700, 950)
    assert whole.shape == (3, 1400, 1900)
    difference = (Preprocess().geometry(scaled).int() - Preprocess().geometry(whole).int()).abs()
    assert difference.float().mean() < 0.6
    assert difference.max() <= 16


@pytest.mark.parametrize(("pre", "enough", "side"), [
    (Preprocess(), 512, 650), (Preprocess(96, 96), 512, 650), (Preprocess(299, 342), 684, 1300),
    (Preprocess(640, 640), 1280, 1300), (Preprocess(640, 651), 1302, 2600),
])  # fmt: skip
def test_a_larger_input_keeps_more(pre, enough, side):
    content = encode(photo(2600, 2700))
    assert pre.enough == enough
    scaled = decode(content, enough=pre.enough)
    assert min(scaled.shape[1:]) == side
    whole = decode(content, enough=2600)
    difference = (pre.geometry(scaled).int() - pre.geometry(whole).int()).float().abs()
    assert difference.mean() < 0.6


@pytest.mark.parametrize("on_bad_file", ["fail", "lazy"])
@pytest.mark.parametrize(("enough", "side"), [({}, 525), ({"enough": 1000}, 1050)], ids=str)
def test_images_keep_what_they_are_opened_with(tmp_path, on_bad_file, enough, side):
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.jpg").write_bytes(encode(Image.new("L", (1080, 1050))))
    images = open_data(tmp_path, on_bad_file=on_bad_file, **enough).train
    assert images.read(0).shape[1] == side


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_turned_images_are_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(photo(1100, 1600), exif=exif)
    upright = (1600, 1100) if orientation == 6 else (1100, 1600)
    assert full_size(content) == upright
    assert decode(content).shape == (3, upright[0] // 2, upright[1] // 2)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WebP"])
def test_other_formats_are_decoded_whole(format):
    assert decode(encode(Image.new("RGB", (1100, 1050)), format)).shape == (3, 1050, 1100)


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_an_end_that_lacks_is_seen_at_every_scale(kept):
    for side in (1030, 2060, 4120):
        content = encode(photo(side, side + 40))
        with pytest.raises(DataError, match="ends early or is damaged") as caught:
            decode(content[: int(kept * len(content))])
        assert caught.value.id == "D1"


def test_the_limit_of_pixels_is_that_of_the_file():
    with pytest.raises(DataError, match=r"1100x1050 px exceeds --max-pixels 1,000,000"):
        decode(encode(Image.new("L", (1100, 1050))), max_pixels=1_000_000)


def test_pixels_lie_as_they_were_decoded():
    assert decode(encode(photo(60, 80)))[None].is_contiguous(memory_format=torch.channels_last)
