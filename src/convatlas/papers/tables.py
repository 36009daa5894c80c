"""The published data, read from the tables in `data/`: citations.csv lists the papers, each of which has a folder.

figures.csv     what the paper prints, a row a figure
exact.csv       exact integers derived from the paper, a row a network, a column a convention
remarks.toml    where sources disagree or are silent, and what this library chose
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

    `arch` is the registered network that it describes, with the spec fields `changes` ("classes=100"), or with its
    auxiliary heads counted ("count_aux=1"); `part` names its parts, joined by "+", where the figure is about a part.
    `convention` is a name in CONVENTIONS or REPORTED, or empty where nobody has said yet how to compute it.
    `resolution` explains a contradiction.
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

    @property
    def folder(self) -> str:
        """Where its tables are."""
        return self.paper.lower().replace("-", "_")


@dataclass(frozen=True)
class Remark:
    """Where sources disagree or are silent, and what this library chose, for the networks that match the patterns."""

    networks: tuple[str, ...]
    text: str
    source: str


@functools.cache
def figures() -> tuple[Figure, ...]:
    """The printed figures of all papers, then the exact integers (`where` is "derived")."""
    printed = (Figure(paper=c.paper, **row) for c in citations() for row in _csv(f"{c.folder}/figures.csv"))
    exact = (figure for c in citations() for row in _csv(f"{c.folder}/exact.csv") for figure in _exact(c.paper, row))
    return (*printed, *exact)


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
    tables = (tomllib.loads(_text(f"{c.folder}/remarks.toml")).get("remark", []) for c in citations())
    return tuple(Remark(tuple(row["networks"]), row["text"], row["source"]) for table in tables for row in table)


def _exact(paper: str, row: dict[str, str]) -> Iterator[Figure]:
    """A figure for every convention in which the exact value is known."""
    for name, convention in CONVENTIONS.items():
        if value := row.get(name):
            yield Figure(
                paper=paper,
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
    """A table beside this file; a paper that has none of its kind has no file."""
    path = Path(__file__).parent / "data" / name
    return path.read_text("utf-8") if path.exists() else ""
