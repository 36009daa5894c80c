"""Many names in little memory."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

SMALL = 20_000  # names, up to which a tuple is as good


class Names(Sequence[str]):
    """Names one after another in one buffer of UTF-8, so that a million take what is written and 8 bytes each.

    text: uint8 (bytes,)
    ends: int64 (n,), where in `text` each name ends
    chosen: int64, which of the n names these are, in which order; None for all
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray, chosen: np.ndarray | None = None):
        self.text, self.ends, self.chosen = text, ends, chosen

    def __len__(self) -> int:
        return len(self.ends if self.chosen is None else self.chosen)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Names": ...
    def __getitem__(self, index: int | slice) -> "str | Names":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        number = range(len(self))[index]
        if self.chosen is not None:
            number = int(self.chosen[number])
        start = int(self.ends[number - 1]) if number else 0
        return self.text[start : int(self.ends[number])].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        places = range(len(self.ends)) if self.chosen is None else self.chosen
        for start in range(0, len(places), SMALL):  # a few at a time as Python's own numbers
            some = np.asarray(places[start : start + SMALL])
            starts = np.where(some > 0, self.ends[some - 1], 0)
            for begin, end in zip(starts.tolist(), self.ends[some].tolist(), strict=True):
                yield self.text[begin:end].tobytes().decode("utf-8", "surrogateescape")

    def take(self, places: np.ndarray) -> "Names":
        """The names at `places`, int64, in that order; the buffer is shared."""
        return Names(self.text, self.ends, places if self.chosen is None else self.chosen[places])


class Gathered:
    """Names as they are found, packed as `Names` wants them."""

    def __init__(self):
        self._text, self._ends = bytearray(), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, names: Iterable[str]) -> None:
        """Put them behind those that are there."""
        for name in names:
            self._text += name.encode("utf-8", "surrogateescape")
            self._ends.append(len(self._text))

    def arrays(self) -> dict[str, np.ndarray]:
        """`text` and `ends`; nothing can be added from now on."""
        return {"text": np.array(self._text, copy=False).view(np.uint8), "ends": np.array(self._ends, copy=False)}


def unpack(text: np.ndarray, ends: np.ndarray) -> Sequence[str]:
    """A tuple of few names, `Names` of many."""
    names = Names(text, ends)
    return tuple(names) if len(names) <= SMALL else names


def chosen(names: Sequence[str], places: np.ndarray) -> Sequence[str]:
    """The names at `places`, int64, in that order."""
    return names.take(places) if isinstance(names, Names) else tuple(names[int(place)] for place in places)
