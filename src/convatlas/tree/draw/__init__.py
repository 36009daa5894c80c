"""A diagram of any tree, drawn from the tree itself: the figure of its paper, with what each part costs."""

import os
from pathlib import Path

from torch import nn

from ...errors import ConfigError
from ...files import write_bytes
from ..cost import cost
from .page import page
from .paint import render

__all__ = ["draw"]


def draw(
    net: nn.Module,
    path: str | os.PathLike | None = None,
    *,
    size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    title: str | None = None,
) -> Path | str:
    """Draw `net` for one image (in_channels, size, size) to a .svg or .png file, or without `path` return SVG text.

    Parts are frames with their output H x W x C, parameters and multiply-accumulates; neighbours that would look alike
    are drawn once, so a deep network takes no more room than a shallow one.  The SVG needs nothing from outside.

    Raises ConfigError for another suffix, ResourceError if matplotlib is missing or the file cannot be written, and
    TypeError and ValueError as `cost` does.
    """
    form = "svg" if path is None else Path(path).suffix.lower().removeprefix(".")
    if form not in ("svg", "png"):
        raise ConfigError("L2", f"cannot draw to {path}: not a format by its suffix", "name it *.svg or *.png")
    h, w = (size, size) if isinstance(size, int) else size
    content = render(page(net, cost(net, size, in_channels, aux=True), (in_channels, h, w), title), form)
    if path is not None:
        return write_bytes(path, content)
    text = content.decode()
    return text[text.index("<svg") :]  # without the XML declaration, which has no place inside a page
