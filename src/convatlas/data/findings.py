"""What an inspection means for training: each thing found is one value with its weight."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .decode import REMEDY, shown
from .inspect import Inspection
from .splits import PARTS

Level = Literal["error", "warning", "note"]
"""Training refuses it; it spoils what training is told to mean; worth knowing."""

UNEVEN = 5  # times as many images in the largest class as in the smallest

BAD = {
    "D1": "damaged or cut short",
    "D2": "empty",
    "D3": "no images",
    "D5": "too large to decode",
    "D9": "of samples whose black and white are unknown",
    "D14": "not readable",
    "D15": "gone since they were found",
}


@dataclass(frozen=True)
class Finding:
    """Something in a data set that one should know.

    id: the case of the fault catalogue, if it is one
    level: how bad it is
    what: one line
    remedy: one line, may be empty
    files: the names it is about, those that belong together in one tuple
    """

    id: str
    level: Level
    what: str
    remedy: str = ""
    files: tuple[tuple[str, ...], ...] = ()


def findings(inspection: Inspection, size: int | None = None) -> list[Finding]:
    """Everything that is to be said, the worst first.  `size` is the side in px that training would scale images to."""
    found = [
        *_bad_files(inspection),
        *_classes(inspection),
        *_copies(inspection),
        *_colours_and_sizes(inspection, size),
        *(Finding("D13", "note", warning) for warning in inspection.source.warnings),
    ]
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.level))


def _bad_files(inspection: Inspection) -> Iterable[Finding]:
    for id in sorted({file.id for file in inspection.bad}, key=lambda id: int(id[1:])):
        files = tuple((file.name,) for file in inspection.bad if file.id == id)
        what = f"{_count(len(files), 'file is', 'files are')} {BAD[id]} (first: {shown(files[0][0])})"
        yield Finding(id, "error", what, REMEDY.replace("it", "them", 1) if len(files) > 1 else REMEDY, files)


def _classes(inspection: Inspection) -> Iterable[Finding]:
    classes, counts = inspection.images.classes, inspection.counts()
    found = np.bincount(inspection.source.images.labels.numpy(), minlength=len(classes))
    if empty := [name for name, count in zip(classes, found, strict=True) if not count]:
        what = f"{_count(len(empty), 'class has', 'classes have')} no images: {_some(empty)}"
        yield Finding("D10", "error", what, "add images, delete the folder, or --allow-empty-class")
    needed = len(PARTS) - len(inspection.source.parts or {"train": ()}) + 1
    in_train = found if inspection.source.parts is None else _of_train(inspection)
    small = [f"{name} {n}" for name, n, all_ in zip(classes, in_train, found, strict=True) if all_ and n < needed]
    if small and inspection.refusal:
        what = f"{_count(len(small), 'class has', 'classes have')} fewer than {needed} good images: {_some(small)}"
        yield Finding("T8", "error", what, f"add images: {_or_none(needed)}")
    elif inspection.refusal:
        yield Finding(inspection.refusal.id, "error", inspection.refusal.what, inspection.refusal.remedy)
    for place, part in enumerate(PARTS[1:], 1):
        if part in (inspection.source.parts or {}):
            lacking = [name for name, row in zip(classes, counts, strict=True) if row.sum() and not row[place]]
            if lacking:
                what = f"{part} lacks {len(lacking)} of {len(classes)} classes: {_some(lacking)}"
                yield Finding("D11", "warning", what, "nothing is measured on them; add images or remove the classes")
    present = [(int(n), name) for name, n in zip(classes, counts.sum(1), strict=True) if n]
    if present and max(present)[0] >= UNEVEN * min(present)[0]:
        (most, largest), (least, smallest) = max(present), min(present)
        what = f"class {shown(largest)} has {most:,} images and {shown(smallest)} {least:,}, {most / least:.1f} times fewer"
        yield Finding("", "note", what, "judge by the figures of each class, not by the accuracy of all")
