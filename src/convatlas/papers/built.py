"""A network as the audit sees it: built once on the meta device, with its cost."""

import functools
from dataclasses import dataclass

from torch import nn

from ..tree import Cost, Net, Row, cost
from ..zoo import Arch


@dataclass(frozen=True)
class Built:
    """A spec, its tree without storage, and the cost of one image of the spec's size."""

    spec: Arch
    net: Net
    cost: Cost

    def rows(self, part: str = "") -> list[Row]:
        """The rows of some modules ("stem+pool", "inception3a"), or all (empty)."""
        parts = part.split("+") if part else []
        return [r for r in self.cost.rows if not parts or any(f"{r.path}.".startswith(f"{p}.") for p in parts)]

    def layers(self, part: str = "") -> list[tuple[Row, nn.Module]]:
        """The leaves and their costs, shortcuts left out, under some modules or everywhere."""
        on_path = [row for row in self.rows(part) if "skip" not in row.path.split(".")]
        return [(row, self.net.get_submodule(row.path)) for row in on_path]

    def weight_layers(self, part: str = "") -> list[Row]:
        """The convolutions and linear layers among `layers` that are in no gate: those that the papers count."""
        return [r for r, layer in self.layers(part) if isinstance(layer, nn.Conv2d | nn.Linear) and not in_gate(r)]


def in_gate(row: Row) -> bool:
    """Whether a layer is in a gate: of Squeeze-and-Excitation, or of a gated shortcut."""
    return "gate" in row.path.split(".")


def built(arch: Arch, *, aux: bool = False) -> Built:
    """Build `arch` and fold its cost, with `aux` that of its auxiliary heads too; the second time it costs nothing."""
    return _built(arch, aux)


@functools.cache
def _built(arch: Arch, aux: bool) -> Built:
    net = arch.skeleton()
    return Built(arch, net, cost(net, arch.size, arch.in_channels, aux=aux))
