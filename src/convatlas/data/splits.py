"""Train, validation and test images: as given, cut by seed, or exactly as an earlier run had them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import DataError, ResourceError
from .check import BadFile
from .decode import shown
from .images import Images

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Source:
    """What a reader found: the images, and which of them belong to the parts it was given (`train`, `val`, `test`).

    `shares` are the fractions of each class to cut for validation and test where they are not given.
    """

    name: str
    images: Images
    parts: Mapping[str, Sequence[str]] | None = None
    shares: tuple[float, float] = (0.15, 0.15)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set.

    name: of the data set
    train, val, test: the weights are fitted to the first and chosen by the second; the third only ever measures
    how: one sentence for the user on where the parts came from
    seed: of the cut
    warnings: one line each
    bad: the files left out
    """

    name: str
    train: Images
    val: Images
    test: Images
    how: str
    seed: int
    warnings: tuple[str, ...] = ()
    bad: tuple[BadFile, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, common to all parts."""
        return self.train.classes

    def record(self) -> dict[str, Any]:
        """The parts as JSON-able names, by which `restore` cuts the same data in the same way."""
        return {
            "seed": self.seed,
            "classes": list(self.classes),
            "how": self.how,
            **{part: list(getattr(self, part).names) for part in PARTS},
            "bad": [asdict(file) for file in self.bad],
        }


def split(source: Source, images: Images, seed: int, bad: tuple[BadFile, ...] = ()) -> Splits:
    """Cut `images`, those of `source` without the bad ones, into parts: the given ones, the missing ones by seed.

    A single given part beside train is the test set, so that nothing is ever chosen by it; val is cut from train.
    Raises DataError T8 where a class or a part has too few images.
    """
    val_share, test_share = source.shares
    if source.parts is None:
        train, val, test = cut(images, range(len(images)), {"val": val_share, "test": test_share}, seed)
        how = f"val is {val_share:.0%} and test {test_share:.0%} of each class, cut by seed {seed}; train is the rest"
    else:
        place = {name: index for index, name in enumerate(images.names)}
        given = {part: [place[name] for name in names if name in place] for part, names in source.parts.items()}
        if given.keys() == set(PARTS):
            train, val, test = (given[part] for part in PARTS)
            how = "train, val and test are the given parts"
        else:
            (held_out,) = given.keys() - {"train"}
            test = given[held_out]
            train, val = cut(images, given["train"], {"val": val_share}, seed)
            how = (
                f"test is the given {held_out} part; val is {val_share:.0%} of each class of train, cut by seed {seed}"
            )
    train, val, test = (images.subset(part) for part in (train, val, test))
    splits = Splits(source.name, train, val, test, how, seed, source.warnings, bad)
    _refuse_gaps(splits, source.images)
    return splits


def restore(source: Source, images: Images, record: Mapping[str, Any]) -> Splits:
    """Cut `images`, those of `source` with or without the bad ones, exactly as `record` (of `Splits.record`) says.

    Raises DataError D11 if the classes differ, D15 if an image is gone or new since then.
    """
    if list(images.classes) != list(record["classes"]):
        raise differing_classes(source.name, images.classes, "the recorded splits", record["classes"])
    place = {name: index for index, name in enumerate(images.names)}
    bad = tuple(BadFile(**file) for file in record["bad"])
    recorded = {name for part in PARTS for name in record[part]}
    gone, new = recorded - place.keys(), place.keys() - recorded - {file.name for file in bad}
    if gone or new:
        change = f"gone or unreadable {_some(sorted(gone))}, new {_some(sorted(new))}"
        what = f"{source.name}: not the images of the recorded splits: {change}"
        raise DataError("D15", what, "bring the data back to that state, or make new splits")
    train, val, test = (images.subset([place[name] for name in record[part]]) for part in PARTS)
    return Splits(source.name, train, val, test, record["how"], record["seed"], source.warnings, bad)


def cut(images: Images, indices: Sequence[int], shares: Mapping[str, float], seed: int) -> list[list[int]]:
    """Cut `indices` into the rest and one list per share, class by class, at random by `seed`, each in ascending order.

    Each class present has at least one image in every list.  Raises DataError T8 where it has too few images for that.
    """
    try:
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ResourceError("L5", "scikit-learn is not installed", "pip install 'convatlas[train]'") from error
    places = np.asarray(indices, dtype=np.int64)
    labels = images.labels.numpy()[places]
    ends = np.bincount(labels, minlength=len(images.classes)).cumsum()
    members = np.split(places[labels.argsort(kind="stable")], ends[:-1])
    lists: list[list[int]] = [[] for _ in range(1 + len(shares))]
    random = np.random.RandomState(seed)
    for name, rest in zip(images.classes, members, strict=True):
        if not len(rest):
            continue
        if len(rest) < len(lists):
            parts = ", ".join(["train", *shares])
            what = (
                f"class {shown(name)!r} has {len(rest)} images, but {parts} need one each ({len(rest)} < {len(lists)})"
            )
            raise DataError("T8", what, "add images to the class or remove it")
        counts = [max(1, round(share * len(rest))) for share in shares.values()]
        for part, count in zip(lists[1:], counts, strict=True):
            rest, taken = train_test_split(rest, test_size=count, random_state=random)
            part += map(int, taken)
        lists[0] += map(int, rest)
    return [sorted(part) for part in lists]


def differing_classes(here: str, found: Sequence[str], there: str, expected: Sequence[str]) -> DataError:
    """The DataError D11 that names what is missing, what is extra or, for the same classes, the first out of order."""
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    if missing or extra:
        difference = f"missing {_some(missing)}, extra {_some(extra)}"
    else:
        number, name, other = next((n, a, b) for n, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        difference = f"other order, class {number} is {shown(name)} and not {shown(other)}"
    return DataError("D11", f"{here}: classes differ from {there}: {difference}", "rename, add or remove class folders")


def _some(names: Sequence[str], most: int = 5) -> str:
    listed = ", ".join(ascii(name) for name in names[:most])
    return f"[{listed}{f', ... {len(names) - most} more' if len(names) > most else ''}]"


def _refuse_gaps(splits: Splits, whole: Images) -> None:
    """Refuse an empty part, a single class, and a class that train lacks (perhaps because all its files are bad)."""
    for part in PARTS:
        if not getattr(splits, part):
            raise DataError("T8", f"{splits.name}: {part} has no images (0 < 1)", "add images to it")
    present = set(whole.labels.tolist())
    if len(present) < 2:
        what = f"{splits.name}: only one class has images, a classifier needs two (1 < 2)"
        raise DataError("T8", what, "give the folder that holds one folder per class")
    for label in sorted(present - set(splits.train.labels.tolist())):
        what = f"{splits.name}: class {shown(splits.classes[label])!r} has no readable image in train (0 < 1)"
        raise DataError("T8", what, "add images to the class or remove it")
