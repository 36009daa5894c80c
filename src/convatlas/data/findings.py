"""What an inspection means for training: each thing found is one value with its weight."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .decode import REMEDY, shown
from .inspect import Inspection
from .manifest import Difference
from .splits import PARTS

Level = Literal["error", "warning", "note"]
"""Training refuses it; it spoils what training is told to mean; worth knowing."""

UNEVEN = 5  # times as many images in the largest class as in the smallest
BLANK = 0.002  # standard deviation, of 0..1: half a grey level

BAD = {
    "D1": "damaged or cut short",
    "D2": "empty",
    "D3": "something else than an image",
    "D5": "too large to decode",
    "D9": "in a form whose black and white are unknown",
    "D14": "not readable",
    "D15": "gone since the folder was listed",
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
        *_pictures(inspection, size),
        *(Finding("D13", "note", warning) for warning in inspection.source.warnings),
    ]
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.level))


def of_manifest(difference: Difference) -> list[Finding]:
    """Where the files are not those of a manifest."""
    sorts = (
        (difference.changed, "file has", "files have", "another content than the manifest says"),
        (difference.missing, "file of", "files of", "the manifest can't be read or found"),
        (difference.extra, "file is", "files are", "not in the manifest"),
    )
    remedy = "bring the files back, or write the manifest again if this is meant"
    return [
        Finding("D4", "error", f"{_count(len(names), one, many)} {what} (first: {shown(names[0])})", remedy,
                tuple((name,) for name in names))
        for names, one, many, what in sorts
        if names
    ]  # fmt: skip


def _bad_files(inspection: Inspection) -> Iterable[Finding]:
    for id in sorted({file.id for file in inspection.bad}, key=lambda id: int(id[1:])):
        files = tuple((file.name,) for file in inspection.bad if file.id == id)
        what = f"{_count(len(files), 'file is', 'files are')} {BAD[id]} (first: {shown(files[0][0])})"
        yield Finding(id, "error", what, REMEDY.replace("it", "them", 1) if len(files) > 1 else REMEDY, files)


def _classes(inspection: Inspection) -> Iterable[Finding]:
    classes, counts, given = inspection.images.classes, inspection.counts(), inspection.source.parts or {}
    found = np.bincount(inspection.source.images.labels.numpy(), minlength=len(classes))
    if empty := [shown(name) for name, n in zip(classes, found, strict=True) if not n]:
        what = f"{_count(len(empty), 'class has', 'classes have')} no images: {_some(empty)}"
        yield Finding("D10", "error", what, "add images, delete the folder, or train with --allow-empty-class")
    needed = 1 + len(PARTS) - max(1, len(given))  # one for train and for each part that is cut from it
    in_train = zip(classes, found, counts[:, 0], strict=True)
    small = [f"{shown(name)} ({good})" for name, n, good in in_train if n and good < needed]
    if small and inspection.refusal:
        what = f"{_count(len(small), 'class has', 'classes have')} fewer than {needed} good images: {_some(small)}"
        yield Finding("T8", "error", what, "add images to them or remove them")
    elif inspection.refusal:
        yield Finding(inspection.refusal.id, "error", inspection.refusal.what, inspection.refusal.remedy)
    for place, part in enumerate(PARTS):
        lacking = [shown(name) for name, row in zip(classes, counts, strict=True) if row.any() and not row[place]]
        if part in given and part != "train" and lacking:
            what = f"{part} lacks {len(lacking)} of {len(classes)} classes: {_some(lacking)}"
            yield Finding("D11", "warning", what, "nothing is measured on these; add images of them")
    most, least = counts.sum(1).max(), counts.sum(1).min(initial=len(inspection.seen), where=counts.any(1))
    if most >= UNEVEN * least > 0:
        largest, smallest = (shown(classes[counts.sum(1).tolist().index(n)]) for n in (most, least))
        what = f"{largest} has {most:,} images, {smallest} only {least:,}: {most / least:.1f} times as many"
        yield Finding("", "note", what, "look at the figures of each class; train with --class-weights=balanced")


def _copies(inspection: Inspection) -> Iterable[Finding]:
    yield from _groups(inspection, inspection.copies, "warning", ("picture is", "pictures are"))
    alike = ("group of lookalikes is", "groups of lookalikes are")
    yield from _groups(inspection, inspection.lookalikes, "note", alike)


def _groups(inspection: Inspection, groups: list[list[int]], level: Level, which: tuple[str, str]) -> Iterable[Finding]:
    labels, part, names = inspection.images.labels.tolist(), inspection.part.tolist(), inspection.images.names
    apart = [group for group in groups if len({labels[i] for i in group}) > 1]
    leaked = [group for group in groups if len({part[i] for i in group}) > 1]
    rest = [group for group in groups if len({(labels[i], part[i]) for i in group}) == 1]
    once_more = "more than once in one class and part" if level == "warning" else "in one class and part"
    sorts: tuple[tuple[list[list[int]], Level, str, str], ...] = (
        (apart, level, "in several classes", "decide which class is right"),
        (leaked, level, "in several parts", "keep them in one part, or the test measures what was learnt by heart"),
        (rest, "note", once_more, "keep one of each"),
    )
    for chosen, weight, where, remedy in sorts:
        if chosen:
            files = tuple(tuple(names[i] for i in group) for group in chosen)
            first = " = ".join(shown(name) for name in files[0][:3])
            yield Finding("D17", weight, f"{_count(len(files), *which)} {where} (first: {first})", remedy, files)


def _pictures(inspection: Inspection, size: int | None) -> Iterable[Finding]:
    seen, names = inspection.seen, inspection.images.names

    def of(chosen: np.ndarray, what: str, remedy: str = "", id: str = "") -> Iterable[Finding]:
        if chosen.any():
            files = tuple((names[i],) for i in np.flatnonzero(chosen).tolist())
            share = f"{len(files):,} of {len(seen):,} images: {what} (first: {shown(files[0][0])})"
            yield Finding(id, "note", share, remedy, files)

    blank = (seen["square"] - seen["mean"] ** 2).max(1, initial=0) < BLANK**2
    yield from of(blank, "of one colour", "remove what shows nothing")
    yield from of(seen["animated"], "animated or of several pages: the first is used", "", "D6")
    yield from of(seen["turned"], "set upright by their EXIF orientation", "", "D7")
    if 2 * seen["grey"].sum() < len(seen):
        yield from of(seen["grey"], "grey among coloured ones", "see that no class is told by that alone")
    if size is not None:
        small = np.minimum(seen["height"], seen["width"]) < size
        yield from of(small, f"smaller than the {size} px that training would use", "give a smaller --size")


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", ... {len(names) - most} more" if len(names) > most else "")
