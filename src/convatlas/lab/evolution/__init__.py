"""The line of networks from AlexNet to MobileNet v2: what each brought, what it costs, and what it reached."""

import json
import re
import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from ...papers import tables
from ...papers.counts import counts
from ...zoo import Arch, spec
from ..timing import race_of

TABLE = Path(tables.__file__).parent / "data" / "evolution.toml"
TOP = {"top1_error": "top1", "top1_accuracy": "top1", "test_error": "top1", "top5_error": "top5"}
CIFAR = ("network", "size", "recipe", "epochs", "seeds", "mean", "std")
UNIT = "resnet50"  # whose time is 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """A network of the line; the fields are explained in papers/data/evolution.toml."""

    network: str
    name: str
    family: str
    idea: str = ""
    error: Mapping[str, str]
    setting: str = ""
    on: Sequence[str] = ()
    takes: Mapping[str, str] = field(default_factory=dict)
    cifar: str = ""
    label: tuple[float, float] | None = None
    bend: Mapping[str, float] = field(default_factory=dict)

    @property
    def spec(self) -> Arch:
        """The registered network."""
        return spec(self.network)

    @property
    def date(self) -> tuple[int, int]:
        """Year and month of the paper, as its number in arXiv says; NIPS 2012 was in December."""
        number = re.match(r"arXiv:(\d\d)(\d\d)\.", self.spec.paper)
        return (2000 + int(number[1]), int(number[2])) if number else (int(self.spec.paper[-4:]), 12)

    @cached_property
    def paper_error(self) -> dict[str, Any]:
        """Published errors in %, `top5` None where nobody printed it, with data set, setting and source."""
        chosen = [f for f in tables.figures() if f.quantity in TOP and self.error.items() <= vars(f).items()]
        found: dict[str, Any] = {"top1": None, "top5": None}
        for f in chosen:
            value = Decimal(f.printed)
            found[TOP[f.quantity]] = json.loads(str(100 - value if f.quantity.endswith("accuracy") else value))
        paper = next(c.key for c in tables.citations() if c.paper == chosen[0].paper)
        where = chosen[0].where
        source = where.removesuffix(" (not in paper)") if "(not in paper)" in where else f"{paper}, {where}"
        setting = self.setting or chosen[0].input
        return {**found, "dataset": chosen[0].dataset, "setting": setting, "source": source}

    def row(self) -> dict[str, Any]:
        """JSON-able: all that needs no measuring; MACs are those of one image of `input` px."""
        params, macs = counts(self.spec)
        year, month = self.date
        return {"network": self.network, "name": self.name, "year": year, "month": month, "paper": self.spec.paper,
                "idea": self.idea, "input": self.spec.size, "params": params, "macs": macs,
                "paper_error": self.paper_error}  # fmt: skip

    def cifar10(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """What of the rows of a results/cifar10.json is about this network's form for CIFAR-10; None if nothing is."""
        of_it = [row for row in results if row["network"] == self.cifar]
        return {key: of_it[0][key] for key in CIFAR} if of_it else None


@cache
def steps() -> tuple[Step, ...]:
    """The networks in the order of their papers."""
    return tuple(Step(**row) for row in tomllib.loads(TABLE.read_text("utf-8"))["network"])


def latencies(
    networks: Sequence[str], seconds: float, note: Callable[[str], object] = lambda name: None
) -> dict[str, dict[str, Any]]:
    """Processor milliseconds of one image through each network as it is built, in eval mode, on one thread.

    They take turns for about so many seconds, nine turns at least; `note` is told who is on.  Medians, quartiles, and
    the median over the turns of the ratio to ResNet-50, which is run too.
    """

    def runner(name: str) -> Callable[[], object]:
        arch = spec(name)
        net, image = arch.build().eval(), torch.randn(1, arch.in_channels, arch.size, arch.size)
        return lambda: (note(name), net(image))

    torch.manual_seed(0)
    with torch.inference_mode():
        taken = race_of({name: runner(name) for name in dict.fromkeys((UNIT, *networks))}, seconds)
    return {name: summary(taken[name], taken[UNIT]) for name in networks}


def summary(these: Sequence[float], those: Sequence[float]) -> dict[str, Any]:
    """Of the seconds of some turns, and those of ResNet-50 in the same turns."""
    low, middle, high = (round(1000 * q, 2) for q in statistics.quantiles(these, n=4))
    ratio = statistics.median(a / b for a, b in zip(these, those, strict=True))
    return {"latency_ms": middle, "latency_spread": [low, high], "ratio": round(ratio, 3)}


def rows(
    results: Sequence[Mapping[str, Any]] = (), measured: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict]:
    """JSON-able: a row a network; `results` are the rows of a results/cifar10.json, `measured` is of `latencies`."""
    nothing = dict.fromkeys(("latency_ms", "latency_spread", "ratio"))
    return [
        {**step.row(), "cifar10": step.cifar10(results), **((measured or {}).get(step.network) or nothing)}
        for step in steps()
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The cells of each column of such rows, those left out of which no row has anything; numbers' columns end in #."""

    def error(row: Mapping[str, Any]) -> str:
        e = row["paper_error"]
        return f"{e['top1']} / {e['top5']}" if e["top5"] else f"{e['top1']}"

    def source(row: Mapping[str, Any]) -> str:
        e = row["paper_error"]
        images = "" if e["dataset"].startswith("ILSVRC-2012 val") else f"{e['dataset']}; "
        return f"{images}{e['setting']}; {e['source']}"

    def cifar10(row: Mapping[str, Any]) -> str:
        c = row["cifar10"]
        spread = f" ± {c['std']:.1%}" if c and c["std"] is not None else ""
        return f"{c['mean']:.1%}{spread} {c['network']}" if c else ""

    def latency(row: Mapping[str, Any]) -> str:
        return f"{row['latency_ms']:.0f} ({' to '.join(f'{q:.0f}' for q in row['latency_spread'])})"

    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "date": lambda row: f"{row['year']}-{row['month']:02}",
        "network": lambda row: row["name"],
        "what it brought": lambda row: row["idea"],
        "input #": lambda row: str(row["input"]),
        "parameters #": lambda row: f"{row['params']:,}",
        "MACs #": lambda row: f"{row['macs']:,}",
        "error, % #": error,
        "of": source,
        "CIFAR-10, ours": cifar10,
        "ms (quartiles) #": lambda row: latency(row) if row["latency_ms"] else "",
        "/ ResNet-50 #": lambda row: f"{row['ratio']:.2f}" if row["ratio"] else "",
    }
    cells = {name: [cell(row) for row in rows] for name, cell in columns.items()}
    return {name: column for name, column in cells.items() if any(column)}
