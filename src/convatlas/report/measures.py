"""The figures on the page that are counted from the rows of the test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..train.evaluate import BINS

Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share, given `right` of `n` [Wilson, JASA 22 (1927) 209]."""
    share, z2 = right / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def confusion(classes: Sequence[str], rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """(classes, classes): how many images of each class (first axis) were taken for each (second axis)."""
    place = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), int)
    for row in rows:
        counts[place[row["label"]], place[row["predicted"]]] += 1
    return counts


@dataclass(frozen=True)
class ClassScore:
    """How one class fared; None where nothing was predicted as it (precision) or no image is of it (recall)."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


def class_scores(classes: Sequence[str], counts: np.ndarray) -> list[ClassScore]:
    """Precision, recall, F1 (their harmonic mean) and number of images of each class."""
    hits, images, guesses = counts.diagonal().tolist(), counts.sum(1).tolist(), counts.sum(0).tolist()
    return [
        ClassScore(name, _ratio(hit, guessed), _ratio(hit, n), _ratio(2 * hit, n + guessed), n)
        for name, hit, n, guessed in zip(classes, hits, images, guesses, strict=True)
    ]


@dataclass(frozen=True)
class Confusion:
    """`count` images of class `label`, a `share` of all of it, were taken for `predicted`."""

    label: str
    predicted: str
    count: int
    share: float


def confusions(classes: Sequence[str], counts: np.ndarray, most: int) -> list[Confusion]:
    """The pairs of classes that were confused most often, at most so many."""
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return [
        Confusion(classes[i], classes[j], int(wrong[i, j]), float(wrong[i, j] / counts[i].sum()))
        for i, j in pairs
        if wrong[i, j]
    ]


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in [low, high): how many, their mean confidence and accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def calibration(rows: Sequence[dict[str, Any]]) -> list[Bin]:
    """The bins of confidence that hold images, of equal width, from low to high."""
    members: list[list[dict[str, Any]]] = [[] for _ in range(BINS)]
    for row in rows:
        members[min(int(row["confidence"] * BINS), BINS - 1)].append(row)
    return [
        Bin(
            low=i / BINS,
            high=(i + 1) / BINS,
            images=len(inside),
            confidence=sum(row["confidence"] for row in inside) / len(inside),
            accuracy=sum(row["label"] == row["predicted"] for row in inside) / len(inside),
        )
        for i, inside in enumerate(members)
        if inside
    ]


def _ratio(a: int, b: int) -> float | None:
    return a / b if b else None
