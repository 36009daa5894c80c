"""Parameters and multiply-accumulates of the registered networks, from a table: building all takes seconds.

The table is written by `docs/generate.py`; a test compares every row with the built network.
"""

import csv
import functools
from pathlib import Path

from ..zoo import Arch
from ..zoo.spec import REGISTRY
from .built import built

TABLE = Path(__file__).parent / "data" / "counts.csv"


def counts(arch: Arch) -> tuple[int, int]:
    """(parameters, MACs) of a spec, auxiliary heads left out; built if it is not a registered one."""
    known = _table()
    if arch.name in known and REGISTRY.get(arch.name) == arch:
        return known[arch.name]
    return counted(arch)


def counted(arch: Arch) -> tuple[int, int]:
    """The same, from the network itself."""
    cost = built(arch).cost
    return cost.params, cost.macs


@functools.cache
def _table() -> dict[str, tuple[int, int]]:
    with TABLE.open(newline="") as file:
        return {row["network"]: (int(row["params"]), int(row["macs"])) for row in csv.DictReader(file)}
