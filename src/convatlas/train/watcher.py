"""Who looks on while a network trains."""

from typing import Any, Protocol

from .checkpoint import State


class Watcher(Protocol):
    """Who looks on while a network trains."""

    def begin(self, state: State, total: int, notes: list[str]) -> None:
        """Training starts, or goes on, at `state.step` of `total`."""

    def step(self, state: State, total: int, images: int) -> None:
        """A step is done."""

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """An epoch is done and validated."""


class Silent:
    """A watcher that shows nothing."""

    def begin(self, state: State, total: int, notes: list[str]) -> None:
        """Nothing."""

    def step(self, state: State, total: int, images: int) -> None:
        """Nothing."""

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Nothing."""
