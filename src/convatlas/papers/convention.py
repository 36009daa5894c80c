"""A way to count: what a figure names, and what computes the exact value from a built network."""

from collections.abc import Callable
from dataclasses import dataclass

from .built import Built


@dataclass(frozen=True)
class Convention:
    """`count(built, part)` is the exact value: a number, or text in the notation of a paper's table."""

    quantity: str
    meaning: str
    count: Callable[[Built, str], int | float | str]
