"""The published data, read from the tables beside this file.

figures.csv     what the papers print, a row a figure
exact.csv       exact integers derived from the papers, a row a network, a column a convention
citations.csv   the papers
remarks.toml    where sources disagree, and what this library chose
"""

import csv
import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .conventions import CONVENTIONS


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published figure.

    `arch` is the registered network that it describes, with the spec fields `changes` ("classes=100"); `part` names
    its parts, joined by "+", where the figure is about a part.  `convention` is a name in CONVENTIONS or REPORTED, or
    empty where nobody has said yet how to compute it.  `resolution` explains a contradiction.
    """

    paper: str
    network: str
    dataset: str = ""
    input: str = ""
    quantity: str
    printed: str
    unit: str = ""
    where: str
    arch: str
    changes: str
    part: str = ""
    convention: str
    rounding: str
    resolution: str = ""
    note: str
    source: str


@dataclass(frozen=True)
class Citation:
    """A paper: `paper` is its name in figures, `key` its name in specs."""

    paper: str
    key: str
    title: str
    authors: str
    year: int
    link: str


@dataclass(frozen=True)
class Remark:
    """Where sources disagree or are silent, and what this library chose, for the networks that match the patterns."""

    networks: tuple[str, ...]
    text: str
    source: str


@functools.cache
def figures() -> tuple[Figure, ...]:
    """The printed figures, then the exact integers (`where` is "derived")."""
    return tuple(Figure(**row) for row in _csv("figures.csv")) + tuple(_exact())


@functools.cache
def citations() -> tuple[Citation, ...]:
    """The papers."""
    return tuple(
        Citation(row["paper"], row["key"], row["title"], row["authors"], int(row["year"]), row["link"])
        for row in _csv("citations.csv")
    )


@functools.cache
def remarks() -> tuple[Remark, ...]:
    """The remarks on all networks."""
    table = tomllib.loads(_text("remarks.toml"))["remark"]
    return tuple(Remark(tuple(row["networks"]), row["text"], row["source"]) for row in table)


def _exact() -> Iterator[Figure]:
    for row in _csv("exact.csv"):
        for name, convention in CONVENTIONS.items():
            if value := row.get(name):
                yield Figure(
                    paper=row["paper"],
                    network=row["network"],
                    quantity=convention.quantity,
                    printed=value,
                    where="derived",
                    arch=row["arch"],
                    changes=row["changes"],
                    convention=name,
                    rounding="round" if value.isdigit() else "",
                    note=f"the same in {row['same in']}" if row["same in"] and value.isdigit() else "",
                    source="derived",
                )


def _csv(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(name).splitlines()))


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")
