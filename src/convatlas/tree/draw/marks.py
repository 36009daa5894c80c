"""What a diagram is made of: marks to paint, and blocks of them that know where the signal enters and leaves.

Lengths are points (1/72 inch), x runs right and y down.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

GAP, STUB, PAD, RADIUS = 12.0, 5.0, 7.0, 4.5
SIZES = {"title": 10.0, "part": 8.5, "major": 7.5, "minor": 6.5}  # of text
BOLD = ("title", "part")
TIMES = "\N{MULTIPLICATION SIGN}"
Point = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """Something to paint, at one or more points."""

    points: tuple[Point, ...]

    def moved(self, dx: float, dy: float) -> "Mark":
        """The same mark elsewhere."""
        return replace(self, points=tuple((x + dx, y + dy) for x, y in self.points))


@dataclass(frozen=True)
class Panel(Mark):
    """A rounded rectangle between two corners; `kind` is its colour."""

    kind: str


@dataclass(frozen=True)
class Wire(Mark):
    """A line through the points, with an arrowhead at its end or without."""

    arrow: bool = False


@dataclass(frozen=True)
class Joint(Mark):
    """A circle in which two signals meet by the operation `sign`."""

    sign: str


@dataclass(frozen=True)
class Label(Mark):
    """One line of text, vertically centred on the point; `size` is a key of SIZES."""

    text: str
    size: str = "major"
    align: str = "center"

    @property
    def width(self) -> float:
        """An upper estimate, after the letters of DejaVu Sans, which are wide for a sans-serif."""
        ems = sum(
            0.4 if c in " .,·/-()fijlrt" else 0.85 if c in f"mw{TIMES}" or c.isupper() else 0.65 for c in self.text
        )
        return ems * SIZES[self.size] * (1.12 if self.size in BOLD else 1)


@dataclass(frozen=True)
class Block:
    """A finished piece, its marks counted from its top left corner.

    The signal enters at the top and leaves at the bottom, both at x = `spine`: straight lines join blocks.
    """

    width: float
    height: float
    spine: float
    marks: tuple[Mark, ...]

    def at(self, x: float, y: float) -> list[Mark]:
        """Its marks with the corner at (x, y)."""
        return [mark.moved(x, y) for mark in self.marks]


def paragraph(lines: Iterable[tuple[str, str]], x: float = 0, align: str = "left") -> Block:
    """Lines (text, size) below each other, aligned at x."""
    labels, y = [], 0.0
    for text, size in lines:
        labels.append(Label(((x, y + 0.65 * SIZES[size]),), text, size, align))
        y += 1.3 * SIZES[size]
    return Block(max((line.width for line in labels), default=0), y, x, tuple(labels))
