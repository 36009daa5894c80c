"""Labelled images: a value that knows how many there are, their classes and how to read each one."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..machine import processors
from .blocks import Blocks
from .decode import ENOUGH, decode, shown
from .names import chosen

MEMORY_LIMIT = 1 << 30  # bytes of decoded images to hold

Progress = Callable[[int, int], object]
"""Called with (done, in all), of folders or files first and then of images."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Images:
    """n labelled images.

    classes: their names; a label is an index into them
    labels: int64 (n,)
    names: unique, a path relative to the data folder or the like of `digits/17`
    read: image i as uint8 (3, H, W), always the same; it may be a view of shared memory, so do not write to it
    content: the file of image i as bytes; None where images are stored as pixels
    blocks: which images lie together; None where any order of reading is as good
    changed: whether the file of image i is no longer what it was when it was first read; None where there are no files
    """

    classes: tuple[str, ...]
    labels: Tensor
    names: Sequence[str]
    read: Callable[[int], Tensor]
    content: Callable[[int], bytes] | None = None
    blocks: Blocks | None = None
    changed: Callable[[int], bool] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index = range(len(self))[index]
        return self.read(index), int(self.labels[index])

    def subset(self, indices: Sequence[int]) -> "Images":
        """The images at `indices`, in that order."""
        places = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            labels=self.labels[torch.from_numpy(places)],
            names=chosen(self.names, places),
            read=_Chosen(self.read, places),
            content=self.content and _Chosen(self.content, places),
            blocks=self.blocks and self.blocks.subset(places),
            changed=self.changed and _Chosen(self.changed, places),
        )

    def keeping(self, enough: int) -> "Images":
        """The same images, of which large JPEGs keep `enough` px of their shorter side when they are decoded."""
        return replace(self, read=replace(self.read, enough=enough)) if isinstance(self.read, Decoder) else self

    def in_memory(self, limit_bytes: int = MEMORY_LIMIT, progress: Progress | None = None) -> "Images":
        """The same images, decoded once and held, if they fit `limit_bytes`; else these.  Raises what `read` raises."""
        store = Store(limit_bytes)

        def hold(index: int) -> None:
            if not store.keep(index, self.read(index)):
                raise _FullError

        try:
            for_each(len(self), hold, progress)
        except _FullError:
            return self
        return store.hold(self)


@dataclass(frozen=True)
class Decoder:
    """Reads image i from its encoded content.  An error calls it `prefix` + its name."""

    content: Callable[[int], bytes]
    names: Sequence[str]
    prefix: str
    max_pixels: int
    enough: int = ENOUGH

    def __call__(self, index: int) -> Tensor:
        """Uint8 (3, H, W).  Raises what `content` and `decode` raise."""
        name = shown(self.prefix + self.names[index])
        return decode(self.content(index), enough=self.enough, max_pixels=self.max_pixels, name=name)


@dataclass
class Store:
    """Decoded images by index, as long as they fit `limit_bytes` together; none at all once they do not."""

    limit_bytes: int
    used: int = 0
    held: dict[int, Tensor] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, index: int, image: Tensor) -> bool:
        """Hold an image.  False, and everything is let go, once the limit is passed."""
        with self.lock:
            self.used += image.nbytes
            if self.used > self.limit_bytes:
                self.held.clear()
                return False
            self.held[index] = image
            return True

    def hold(self, images: Images) -> Images:
        """The images, read from here if all of them are held."""
        return replace(images, read=self.held.__getitem__, blocks=None) if self.used <= self.limit_bytes else images


def for_each(count: int, visit: Callable[[int], object], progress: Progress | None = None) -> None:
    """Call `visit` with 0..count-1 from a few threads.  Its first exception, in that order, ends it and is raised."""
    spans = [range(start, min(start + 64, count)) for start in range(0, count, 64)]

    def work(span: range) -> int:
        for index in span:
            visit(index)
        return span.stop

    with ThreadPoolExecutor(processors()) as pool:
        for done in pool.map(work, spans):
            if progress is not None:
                progress(done, count)


class _FullError(Exception):
    pass


@dataclass(frozen=True)
class _Chosen(Generic[T]):
    whole: Callable[[int], T]
    places: np.ndarray

    def __call__(self, index: int) -> T:
        return self.whole(int(self.places[index]))
