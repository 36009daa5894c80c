"""An experiment: a claim that could turn out false, what is exact about it, what is measured, and who decides."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .trials import Lab

SUPPORTED, OPEN, REFUTED = "supported", "not supported at this budget", "refuted"
CONFIDENCE = 0.95

Measured = dict[str, Any]  # JSON-able


@dataclass(frozen=True)
class Fact:
    """What follows from the structure alone: a value, and the one that the claim says it has."""

    what: str
    value: Any
    expected: Any

    @property
    def holds(self) -> bool:
        """Whether they are the same."""
        return self.value == self.expected

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "holds": self.holds}


@dataclass(frozen=True)
class Finding:
    """A difference or ratio of which the claim says that it is above `bound`: its mean and 95 % interval."""

    what: str
    mean: float
    low: float | None  # None: a single seed has no interval
    high: float | None
    bound: float = 0.0

    @property
    def verdict(self) -> str:
        """Supported or refuted if the whole interval is on one side of the bound."""
        if self.low is None or self.high is None:
            return OPEN
        return SUPPORTED if self.low > self.bound else REFUTED if self.high < self.bound else OPEN

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One claim.

    claim: one sentence
    notes: the sentence of the study notes that it comes from
    source: paper, section, table or figure
    refuted_if: what would refute it, one sentence
    exact: the facts; one that does not hold refutes the claim
    measure: what is to be measured in a lab, JSON-able, so that it can be judged and drawn again from the record
    judge: the findings in what was measured
    draw: fills a matplotlib figure of `size` inches from what was measured
    reading: how the picture is read: what a dot, a line, a band is
    starred: recorded at full budget too
    """

    number: int
    name: str
    claim: str
    notes: str
    source: str
    refuted_if: str
    exact: Callable[[], Sequence[Fact]]
    measure: Callable[[Lab], Measured]
    judge: Callable[[Measured], Sequence[Finding]]
    draw: Callable[[Any, Measured], None]
    reading: str = ""
    size: tuple[float, float] = (7.0, 3.2)
    starred: bool = False

    @property
    def title(self) -> str:
        """`05-degradation`: what its files are called."""
        return f"{self.number:02}-{self.name}"


def verdict(facts: Sequence[Fact], findings: Sequence[Finding]) -> str:
    """Refuted if a fact does not hold or a finding is refuted; supported if all findings are, or only facts are asked
    for.
    """
    verdicts = {finding.verdict for finding in findings}
    if not all(fact.holds for fact in facts) or REFUTED in verdicts:
        return REFUTED
    return OPEN if OPEN in verdicts else SUPPORTED


def above(what: str, values: Sequence[float], bound: float = 0.0) -> Finding:
    """That the values of several seeds are above a bound: their mean and its interval by Student's t."""
    return Finding(what, statistics.mean(values), *interval(values), bound)


def better(what: str, these: Sequence[float], those: Sequence[float], bound: float = 0.0) -> Finding:
    """That these are greater than those, seed by seed (what a pair shares, data order and test images, cancels)."""
    return above(what, [a - b for a, b in zip(these, those, strict=True)], bound)


def interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of the mean by Student's t; (None, None) for a single value."""
    if len(values) < 2:
        return None, None
    from scipy import stats

    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    reach = quantile * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.mean(values)
    return mean - reach, mean + reach
