"""What is in a data set, found by reading every image once, one at a time."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .check import BadFile, bad_file
from .copies import SMALLEST, equal, likeness, near
from .decode import detect, full_size, is_animated, is_turned
from .images import Images, Progress, for_each
from .splits import PARTS, Source, Splits, split

SEEN = np.dtype(
    [
        ("height", "u4"),  # px
        ("width", "u4"),
        ("format", "U8"),
        ("grey", "?"),
        ("animated", "?"),
        ("turned", "?"),
        ("mean", "f4", 3),  # of each channel, 0..1
        ("square", "f4", 3),  # mean square
        ("file", "u1", 32),  # SHA-256 of the content
        ("pixels", "u1", 32),  # SHA-256 of the pixels and their shape
        ("likeness", "u1", 32),
    ]
)
"""What is kept of an image: 230 bytes."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """A data set that has been looked at.

    source: as it was found
    images: the good ones of it
    seen: `SEEN` for each of them
    part: for each of them a place in `PARTS`
    splits: the parts that training with the default seed would have
    refusal: why there are none; `part` is then as given, or train
    bad: the files that can't be read
    copies: images of the same pixels, by index
    lookalikes: images that look the same but are not copies of each other, by index
    """

    source: Source
    images: Images
    seen: np.ndarray
    part: np.ndarray
    splits: Splits | None
    refusal: DataError | None
    bad: tuple[BadFile, ...]
    copies: list[list[int]]
    lookalikes: list[list[int]]

    @property
    def how(self) -> str:
        """Where the parts come from."""
        if self.splits is not None:
            return self.splits.how
        return "the parts are as given" if self.source.parts else "it cannot be cut into parts"

    def counts(self) -> np.ndarray:
        """(classes, parts): how many good images."""
        table = np.zeros((len(self.images.classes), len(PARTS)), int)
        np.add.at(table, (self.images.labels.numpy(), self.part), 1)
        return table

    def checksums(self) -> dict[str, str]:
        """By name, the SHA-256 of each file that can be read, good or bad."""
        rows = zip(self.images.names, self.seen["file"], strict=True)
        return {name: row.tobytes().hex() for name, row in rows} | {f.name: f.sha256 for f in self.bad if f.sha256}

    def figures(self) -> dict[str, Any]:
        """JSON-able: sizes, colours, formats.  Every image weighs the same in mean and standard deviation."""
        if not len(self.seen):
            return {}
        height, width = self.seen["height"].astype(int), self.seen["width"].astype(int)
        mean = self.seen["mean"].mean(0, dtype=float)
        std = np.sqrt(np.maximum(self.seen["square"].mean(0, dtype=float) - mean**2, 0))
        return {
            "height": _spread(height),
            "width": _spread(width),
            "shorter_side": _spread(np.minimum(height, width)),
            "aspect_ratio": _spread(width / height),
            "formats": dict(Counter(self.seen["format"].tolist()).most_common()),
            "grey": int(self.seen["grey"].sum()),
            "animated": int(self.seen["animated"].sum()),
            "turned": int(self.seen["turned"].sum()),
            "mean": mean.round(4).tolist(),
            "std": std.round(4).tolist(),
        }


def inspect(source: Source, progress: Progress | None = None) -> Inspection:
    """Read every image of a data set once.  Bad files are left out and listed."""
    every = source.images
    seen = np.zeros(len(every), SEEN)
    errors: dict[int, DataError] = {}

    def visit(index: int) -> None:
        try:
            seen[index] = look(every.read(index), every.content and every.content(index))
        except DataError as error:
            errors[index] = error

    for_each(len(every), visit, progress)
    good = [index for index in range(len(every)) if index not in errors]
    images, seen = every.subset(good), seen[good]
    bad = tuple(bad_file(every, index, errors[index]) for index in sorted(errors))
    splits = refusal = None
    try:
        splits = split(source, images, 0, bad)
    except DataError as error:
        refusal = error
    copies = equal(seen["pixels"])
    part = _part(source, images, splits)
    return Inspection(source, images, seen, part, splits, refusal, bad, copies, _lookalikes(seen, copies))


def look(pixels: Tensor, content: bytes | None) -> tuple:
    """The `SEEN` of one image: uint8 (3, H, W), and the file, if it has one, of which they may be a smaller copy."""
    height, width = pixels.shape[1:] if content is None else full_size(content)
    shades = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    return (
        height,
        width,
        "" if content is None else detect(content),
        torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2]),
        content is not None and is_animated(content),
        content is not None and is_turned(content),
        (shades @ values / pixels[0].numel()).numpy(),
        (shades @ values.square() / pixels[0].numel()).numpy(),
        _digest(content or b""),
        _digest(f"{height}x{width}".encode(), pixels.contiguous().numpy().data),
        likeness(pixels),
    )


def _digest(*pieces: bytes | memoryview) -> np.ndarray:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return np.frombuffer(digest.digest(), np.uint8)


def _part(source: Source, images: Images, splits: Splits | None) -> np.ndarray:
    names_of = {part: getattr(splits, part).names for part in PARTS} if splits else source.parts or {}
    part_of = {name: PARTS.index(part) for part, names in names_of.items() for name in names}
    return np.array([part_of.get(name, 0) for name in images.names], np.int8)


def _lookalikes(seen: np.ndarray, copies: list[list[int]]) -> list[list[int]]:
    """Of copies the first stands for all."""
    others = {index for group in copies for index in group[1:]}
    large = np.flatnonzero(np.minimum(seen["height"], seen["width"]) >= SMALLEST)
    chosen = np.array([index for index in large.tolist() if index not in others], int)
    return [chosen[group].tolist() for group in near(seen["likeness"][chosen])]


def _spread(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, (0, 0.5, 1)).round(3).tolist()
    return {"min": low, "median": median, "max": high}
