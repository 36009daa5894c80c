"""Labels as files of many images state them, and the parts that such files belong to."""

import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .decode import shown
from .folder import PART_OF, natural
from .splits import PARTS


class Labels:
    """Integers or strings as they are found.

    numbers: those that differ, numbered as they come
    of: the number of each
    """

    def __init__(self, stated: Iterable[int | str] = (), of: Iterable[int] = ()):
        self.numbers = {label: number for number, label in enumerate(stated)}
        self.of = array("q", of)

    def __len__(self) -> int:
        return len(self.of)

    def add(self, labels: Iterable[int | str]) -> None:
        """Put them behind those that are there."""
        numbers = self.numbers
        self.of.extend(numbers.setdefault(label, len(numbers)) for label in labels)

    def resolve(
        self, classes: Sequence[str] | None, known: int, where: Callable[[int], str]
    ) -> tuple[tuple[str, ...], Tensor]:
        """The class names and the labels as indices into them, int64 (n,).

        A label is the name or the number of a class.  Where the classes are not given they are the first `known`
        labels themselves, in natural order.
        Raises DataError D11, which calls the image `where(index)`, for a label that is no class.
        """
        of, stated = np.array(self.of), list(self.numbers)
        if classes is None:
            classes = sorted({str(stated[number]) for number in np.unique(of[:known])}, key=natural)
            stated = [str(label) for label in stated]
        place = {name: number for number, name in enumerate(classes)} | {n: n for n in range(len(classes))}
        labels = np.array([place.get(label, -1) for label in stated], np.int64)[of]
        for first in np.flatnonzero(labels < 0)[:1].tolist():
            label = list(self.numbers)[of[first]]
            what = f"{where(first)} has the label {label!r}, which is none of the {len(classes)} classes"
            raise DataError("D11", what, "correct the label or the class names")
        return tuple(classes), torch.from_numpy(labels)


def file_parts(path: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """By part its files, train first; all files under the name of `path` unless they say train and another part.

    Raises DataError D11 for a file of no part beside others that have one.
    """
    parts: dict[str, list[Path]] = {part: [] for part in PARTS}
    for file in files:
        part = PART_OF.get(re.split("[^a-z]", file.stem)[0])
        if part:
            parts[part].append(file)
    given = {part: parts[part] for part in PARTS if parts[part]}
    if "train" not in given or len(given) == 1:
        return {path.stem: list(files)}
    if others := [file.name for file in files if not any(file in part for part in given.values())]:
        what = f"{shown(path)}: {shown(others[0])} lies beside {shown(given['train'][0].name)} but is of no part"
        raise DataError("D11", what, "let its name begin with train, val or test, or move it away")
    return given
