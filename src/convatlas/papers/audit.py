"""Every published figure against the network that this library builds."""

import fnmatch
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

from ..errors import ConfigError
from ..zoo import list_networks, spec
from ..zoo.spec import REGISTRY
from .built import Built, built
from .conventions import CONVENTIONS, REPORTED
from .tables import Figure, figures

SCALE = {"": 1, "%": 1, "K=1024": 1024, "M": 10**6, "G": 10**9}
ROUNDING = {"round": ROUND_HALF_UP, "floor": ROUND_FLOOR}


@dataclass(frozen=True)
class Finding:
    """A figure and what became of it.

    `arch` is the name in the registry, `exact` the value that our network has under `convention` (None where there is
    nothing to compute or nothing built).  Verdicts:

        agrees, agrees (floor)   the exact value, rounded or cut to the printed digits, is the printed one
        contradiction            it is not, or the paper contradicts itself; `note` says how that is resolved
        differs                  it is not, and nobody has explained why
        reported                 a training result or a setting
        not built                this library does not build the network yet, or nobody has said how to compute it
    """

    paper: str
    network: str
    arch: str
    dataset: str
    input: str
    quantity: str
    printed: str
    unit: str
    exact: int | float | str | None
    convention: str
    verdict: str
    where: str
    note: str


def audit(pattern: str = "*") -> list[Finding]:
    """The findings on the networks, or on the papers, whose name matches a shell pattern: `"resnet*"`, `"VGG"`.

    Raises ConfigError if no network and no paper is called so.
    """
    found = [f for f in figures() if any(fnmatch.fnmatchcase(name, pattern) for name in (f.arch, f.paper))]
    if not found and not list_networks(pattern):
        raise ConfigError(
            "L2", f"no network and no paper is called {pattern!r}", "see `convatlas list`, or try a pattern: 'resnet*'"
        )
    return [check(figure) for figure in found]


def check(figure: Figure) -> Finding:
    """One figure against the network built now."""
    exact, verdict = None, "not built"
    if figure.convention in REPORTED:
        verdict = "contradiction" if figure.resolution else "reported"
    elif figure.arch in REGISTRY:
        net = _built(figure)
        exact = CONVENTIONS[figure.convention].count(net, figure.part)
        verdict = _verdict(figure, exact)
    return Finding(
        paper=figure.paper,
        network=figure.network,
        arch=figure.arch,
        dataset=figure.dataset,
        input=figure.input,
        quantity=figure.quantity,
        printed=figure.printed,
        unit=figure.unit,
        exact=exact,
        convention=figure.convention,
        verdict=verdict,
        where=figure.where,
        note=figure.resolution or figure.note,
    )


def _verdict(figure: Figure, exact: int | float | str) -> str:
    if isinstance(exact, str):
        agrees = exact == figure.printed
    else:
        printed = Decimal(figure.printed)
        agrees = (Decimal(exact) / SCALE[figure.unit]).quantize(printed, ROUNDING[figure.rounding]) == printed
    if agrees:
        return "agrees (floor)" if figure.rounding == "floor" else "agrees"
    return "contradiction" if figure.resolution else "differs"


def _built(figure: Figure) -> Built:
    """The network that a figure is about: `"classes=100"` changes the spec, `"count_aux=1"` counts auxiliary heads."""
    changes = {name: int(value) for name, value in (change.split("=") for change in figure.changes.split())}
    aux = bool(changes.pop("count_aux", 0))
    return built(spec(figure.arch, **changes), aux=aux)
