"""The one way from the bytes of an image file to pixels: same bytes, same tensor, in training as in prediction.

Rules: JPEG, PNG, GIF, WebP, BMP, TIFF and PNM, recognised by content, never by name; the pixel limit is checked before
anything is decoded; EXIF orientation is applied; alpha is laid over white; CMYK is converted by Pillow; 16-bit samples
keep their high byte; 32-bit and floating-point samples are refused; of an animation the first frame is taken; a large
JPEG is decoded at 1/2, 1/4 or 1/8 of its size (by fewer coefficients of its cosine transform, which is quick and gives
nearly the same as to shrink it later), as long as its shorter side keeps `enough` pixels: see `Preprocess.enough`.
"""

import io
import os
import stat
from pathlib import Path

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch import Tensor

from ..errors import DataError

MAX_PIXELS = 50_000_000
ENOUGH = 512  # px: all of the scales that VGG's crops are taken from for 224

REMEDY = "replace or remove it, or run with --on-bad-file=skip"

# Pillow's classes, not Image.open: that would warn about large images by its own limit and try formats we do not allow.
_FORMATS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PNM": PpmImagePlugin.PpmImageFile,
}

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    *((b"P%d%c" % (digit, space), "PNM") for digit in range(1, 7) for space in b" \t\r\n"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip"),
)

_UPRIGHT = {  # EXIF 2.32, tag 0x0112: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    source: bytes | Path, *, enough: int = ENOUGH, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> Tensor:
    """Decode an image to uint8 (3, H, W) RGB, channels last in memory.

    `enough` is what the shorter side of a large JPEG keeps, in px; `name` what errors call the image, of a path itself.
    Raises DataError: D1 damaged, D2 empty, D3 not an image, D5 more than `max_pixels`, D9 samples of 32 bits,
    and what `read_file` raises for a path.
    """
    if isinstance(source, Path):
        name = name or shown(source)
        source = read_file(source, max_pixels=max_pixels)
    name = name or "image"
    if not source:
        raise DataError("D2", f"{name}: empty file", REMEDY)
    format = detect(source)
    if format not in _FORMATS:
        raise DataError("D3", f"{name}: not an image that can be read, but {format}", REMEDY)
    try:
        image = _FORMATS[format](io.BytesIO(source))
        width, height = image.size
        if width * height > max_pixels:
            what = f"{name}: {width}x{height} px exceeds --max-pixels {max_pixels:,}"
            raise DataError("D5", what, f"{REMEDY}, or raise --max-pixels")
        if format == "JPEG":
            image.draft(None, (enough, enough))
        image.load()
        return _pixels(_upright(image), name, format)
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, for a GIF frame that leaves its screen
        raise DataError("D5", f"{name}: {error}", REMEDY) from error
    except Exception as error:  # of hostile bytes Pillow may raise anything
        what = f"{name}: image ends early or is damaged ({format}, {len(source)} bytes: {one_line(error)})"
        raise DataError("D1", what, REMEDY) from error


def is_animated(source: bytes) -> bool:
    """Whether a decodable image has further frames or pages.  Reads headers only."""
    format = detect(source)
    return format in ("GIF", "PNG", "WebP", "TIFF") and getattr(
        _FORMATS[format](io.BytesIO(source)), "is_animated", False
    )


def full_size(source: bytes) -> tuple[int, int]:
    """Height and width in px of a decodable image, upright and not scaled.  Reads headers only."""
    image = _FORMATS[detect(source)](io.BytesIO(source))
    width, height = image.size
    on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (width, height) if on_its_side and detect(source) != "TIFF" else (height, width)


def is_turned(source: bytes) -> bool:
    """Whether a decodable image is stored turned or mirrored, as its EXIF says.  Reads headers only."""
    image = _FORMATS[detect(source)](io.BytesIO(source))
    return image.getexif().get(ExifTags.Base.Orientation, 1) in _UPRIGHT


def detect(source: bytes) -> str:
    """What the bytes are, by their beginning: a format's name, or a description of what is there instead."""
    if source[:4] == b"RIFF" and source[8:12] == b"WEBP":
        return "WebP"
    for magic, format in _MAGIC:
        if source.startswith(magic):
            return format
    if source[4:8] == b"ftyp":
        return f"an ISO media file ({shown(source[8:12].decode('latin-1'))}: HEIC, AVIF or video)"
    start = source[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith((b"<svg", b"<?xml")):
        return "SVG or XML"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in source[:256]):
        return "text"
    return f"unknown data (it begins with {source[:8].hex(' ')})"


def most_bytes(max_pixels: int) -> int:
    """The longest file of an image: 16-bit RGBA without compression, and room for metadata."""
    return 8 * max_pixels + (64 << 20)


def read_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """The content of a regular file; a FIFO or device is never opened.

    Raises DataError: D3 not a regular file, D5 longer than any image of `max_pixels`, D14 not readable, D15 not there.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError("D3", f"{shown(path)}: not a regular file", REMEDY)
        if status.st_size > most_bytes(max_pixels):
            what = f"{shown(path)}: {status.st_size:,} bytes are more than an image of {max_pixels:,} px takes"
            raise DataError("D5", what, REMEDY)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError("D15", f"{shown(path)}: no such file", "restore it, or scan the folder again") from error
    except PermissionError as error:
        what = f"{shown(path)}: permission denied (uid {os.geteuid()})"
        raise DataError("D14", what, "make it readable, or run with --on-bad-file=skip") from error
    except OSError as error:
        raise DataError("D14", f"{shown(path)}: {error.strerror or error}", REMEDY) from error


def shown(name: str | os.PathLike) -> str:
    r"""A file name as one printable line: line feeds, undecodable bytes and the like become escapes such as `\n`."""
    text = os.fspath(name)
    return text if text.isprintable() else repr(text)[1:-1]


def one_line(error: Exception) -> str:
    """The text of a foreign error, or its type if it has none, as a part of our line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)  # of a TIFF gone by now: Pillow has turned it
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _pixels(image: Image.Image, name: str, format: str) -> Tensor:
    if image.mode.startswith("I;16") or (image.mode == "I" and format == "PNM"):  # PNM is 16-bit at most
        high = (np.asarray(image) >> 8).astype(np.uint8)
        return torch.from_numpy(high).expand(3, -1, -1).contiguous()
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        what = f"{name}: {format} of {kind} samples, whose black and white are unknown"
        raise DataError("D9", what, "save it with 8 or 16 bits per sample")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
