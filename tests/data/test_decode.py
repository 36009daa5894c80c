"""Images provoked for real, each case of the fault catalogue that a single file can show."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data.decode import decode, detect, is_animated, read_file, shown
from convatlas.errors import DataError


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(height=64, width=96, channels=3, seed=0) -> Image.Image:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def scene() -> Image.Image:
    """Smooth and without any symmetry, so that JPEG keeps it and every orientation differs."""
    y, x = np.mgrid[0:48, 0:80]
    return Image.fromarray(np.stack([3 * x, 5 * y, x + y], axis=-1).astype(np.uint8))


def pixel(image_bytes: bytes) -> list[int]:
    return decode(image_bytes)[:, 0, 0].tolist()


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WebP", "JPEG"])
def test_every_format_gives_uint8_rgb(format):
    options = {"WebP": {"lossless": True}}.get(format, {})
    image = decode(encode(scene(), format, **options))
    assert image.dtype == torch.uint8
    assert image.shape == (3, 48, 80)
    exact = torch.from_numpy(np.array(scene())).permute(2, 0, 1)
    tolerance = {"JPEG": 24, "GIF": 48}.get(format, 0)
    assert (image.int() - exact.int()).abs().max() <= tolerance


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("kept", [0.25, 0.5, 0.75, 0.99])
def test_d1_truncated(format, kept):
    whole = encode(noise(), format)
    with pytest.raises(DataError, match=r"cat\.x: image ends early or is damaged") as caught:
        decode(whole[: int(kept * len(whole))], name="cat.x")
    assert caught.value.id == "D1"
    assert "\n" not in str(caught.value)


def test_d2_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match=r"error\[D2\].*a\.jpg: empty file"):
        decode(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"\n <HTML>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "text"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftyp\n\n\n\n", r"ISO media file (\n\n\n\n"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\x00\x01\x02\xff", "00 01 02 ff"),
    ],
)
def test_d3_not_an_image_says_what_it_is(tmp_path, content, seen):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"error\[D3\]") as caught:
        decode(path)
    assert seen in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_d3_the_name_does_not_matter(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encode(scene(), "PNG"))
    assert torch.equal(decode(tmp_path / "x.jpg"), decode(encode(scene(), "PNG")))


def test_d3_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would hang: nobody writes
    for path in (tmp_path / "pipe.jpg", tmp_path):
        with pytest.raises(DataError, match=r"error\[D3\].*not a regular file"):
            decode(path)


def test_d4_bit_flips_decode_or_raise_a_data_error():
    whole, rng = encode(scene(), "JPEG"), np.random.default_rng(0)
    decoded = 0
    for position in rng.integers(300, len(whole), 200):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        try:
            decoded += decode(bytes(damaged)).shape[0] == 3
        except DataError as error:
            assert error.id in ("D1", "D3", "D5")  # noqa: PT017
    assert decoded > 100


def bomb(side: int) -> bytes:
    """A valid 1-bit black PNG of side x side pixels, a few kilobytes long."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + (side + 7) // 8) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def huge_jpeg() -> bytes:
    whole = bytearray(encode(scene(), "JPEG"))
    frame = whole.index(b"\xff\xc0")
    whole[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(whole)


def huge_gif() -> bytes:
    """A frame that lies far outside a 1 x 1 screen."""
    whole = bytearray(encode(Image.new("P", (1, 1)), "GIF"))
    descriptor = whole.index(b",")
    whole[descriptor + 1 : descriptor + 5] = struct.pack("<HH", 60000, 60000)
    return bytes(whole)


def test_d5_bombs_are_refused_before_they_are_decoded(tmp_path):
    bombs = {"PNG": bomb(13_000), "JPEG": huge_jpeg(), "GIF": huge_gif(), "PPM": b"P6 65000 65000 255\n"}
    for name, content in bombs.items():
        assert len(content) < 30_000
        (tmp_path / name).write_bytes(content)
    script = (  # a process of its own, for its highest memory use counts
        "import pathlib, sys\n"
        "from convatlas.data.decode import decode\n"
        "from convatlas.errors import DataError\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"  # not its parent's
        "before = peak()\n"
        "for path in sys.argv[1:]:\n"
        "    try: decode(pathlib.Path(path))\n"
        "    except DataError as error: print(error)\n"
        "print((peak() - before) // 1024)\n"
    )
    paths = [tmp_path / name for name in bombs]
    done = subprocess.run([sys.executable, "-c", script, *paths], check=True, capture_output=True, text=True)
    *errors, grown = done.stdout.splitlines()
    assert int(grown) < 100  # MiB
    for path, error in zip(paths, errors, strict=True):
        assert error.startswith(f"error[D5]: {path}: ")
        assert "exceeds" in error


def test_d5_the_limit_is_exact():
    content = encode(noise(10, 20), "PNG")
    assert decode(content, max_pixels=200).shape == (3, 10, 20)
    with pytest.raises(DataError, match="20x10 px exceeds --max-pixels 199"):
        decode(content, max_pixels=199)


def test_d5_a_file_too_long_for_its_pixels_is_not_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(1 << 40)  # sparse: 1 TiB that takes no room
    with pytest.raises(DataError, match=r"error\[D5\].*1,099,511,627,776 bytes are more than"):
        decode(tmp_path / "a.jpg")


@pytest.mark.parametrize("format", ["GIF", "WebP", "PNG", "TIFF"])
def test_d6_the_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if format == "WebP" else {}
    content = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert pixel(content) == [255, 0, 0]
    assert is_animated(content)
    assert not is_animated(encode(frames[0], format))


def test_d6_a_photograph_is_not_animated():
    assert not is_animated(encode(scene(), "JPEG"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WebP"])
def test_d7_exif_orientation(format, orientation):
    upright = np.array(scene())
    stored = {  # how a camera stores the scene under each value, EXIF 2.32 tag 0x0112
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WebP": {"lossless": True}}.get(format, {})
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options)
    difference = decode(content).int() - torch.from_numpy(upright).permute(2, 0, 1).int()
    assert difference.abs().max() <= (12 if format == "JPEG" else 0)


def test_d8_alpha_is_laid_over_white():
    assert pixel(encode(Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "PNG")) == [255, 255, 255]
    assert pixel(encode(Image.new("RGBA", (2, 2), (255, 0, 0, 255)), "PNG")) == [255, 0, 0]
    assert pixel(encode(Image.new("RGBA", (2, 2), (255, 0, 0, 128)), "PNG")) == [255, 127, 127]
    assert pixel(encode(Image.new("LA", (2, 2), (0, 0)), "PNG")) == [255, 255, 255]
    assert pixel(encode(Image.new("LA", (2, 2), (0, 51)), "PNG")) == [204, 204, 204]


def test_d8_a_transparent_colour_is_white():
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([9, 9, 9, 200, 100, 50])
    for image in (palette, Image.new("RGB", (2, 2), (9, 9, 9)), Image.new("L", (2, 2), 9)):
        key = (9, 9, 9) if image.mode == "RGB" else 9 if image.mode == "L" else 0
        assert pixel(encode(image, "PNG", transparency=key)) == [255, 255, 255]
        assert pixel(encode(image, "PNG")) == [9, 9, 9]
    palette.putpixel((0, 0), 1)
    assert pixel(encode(palette, "PNG", transparency=bytes([0, 255]))) == [200, 100, 50]


@pytest.mark.parametrize(("ink", "rgb"), [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((0, 0, 0, 128), 127)])
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_d8_cmyk(format, ink, rgb):  # Pillow writes the inverted JPEGs of Adobe
    content = encode(Image.new("CMYK", (16, 16), ink), format)
    assert all(abs(value - rgb) <= 2 for value in pixel(content))
    assert format != "JPEG" or b"Adobe" in content


def test_d8_cmyk_colours():
    for ink, rgb in [((255, 0, 0, 0), (0, 255, 255)), ((0, 255, 0, 0), (255, 0, 255)), ((0, 0, 255, 0), (255, 255, 0))]:
        seen = pixel(encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95))
        assert all(abs(a - b) <= 2 for a, b in zip(seen, rgb, strict=True))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_d9_16_bit_keeps_its_ramp(format):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = decode(encode(Image.fromarray(ramp), format))
    assert torch.equal(image, torch.from_numpy((ramp >> 8).astype(np.uint8)).expand(3, 256, 256))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_d9_samples_without_a_known_white_are_refused(kind):
    content = encode(Image.fromarray(np.zeros((4, 4), kind)), "TIFF")
    with pytest.raises(DataError, match=r"error\[D9\].*Remedy: save it with 8 or 16 bits"):
        decode(content)


def test_d9_one_bit_is_black_and_white():
    assert pixel(encode(Image.new("1", (3, 3), 1), "PNG")) == [255, 255, 255]
    assert pixel(encode(Image.new("1", (3, 3), 0), "TIFF")) == [0, 0, 0]


def test_d14_unreadable_file(public, nobody):
    path = public / "secret.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with nobody(), pytest.raises(DataError, match=r"error\[D14\]: .*/secret\.jpg: permission denied \(uid \d+\)"):
        read_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"error\[D15\].*gone\.jpg: no such file"):
        decode(tmp_path / "gone.jpg")


def test_names_are_shown_on_one_line():
    assert shown("a b/é.jpg") == "a b/é.jpg"
    assert shown("a\nb\udcff.jpg") == r"a\nb\udcff.jpg"


def test_detect_knows_each_format():
    assert detect(encode(scene(), "WebP")) == "WebP"
    assert detect(b"RIFF\0\0\0\0WAVE").startswith("unknown data")
