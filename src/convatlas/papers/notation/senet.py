"""The notation of SENet's tables."""

from torch import nn

from ..built import Built, in_gate
from .base import kernel, notation


@notation("SE table", "stage_shape", "units as in SENet's Table 1")
def se_table(net: Built, part: str) -> str:
    """`[1x1,128;3x3,128,C=32;1x1,256; fc 16,256] x3` [arXiv:1709.01507, Table 1], where all units of a stage agree."""
    units = [_unit(net, f"{part}.{name}") for name, _ in net.net.get_submodule(part).named_children()]
    return f"{' '.join(sorted(set(units)))} x{len(units)}"


def _unit(net: Built, path: str) -> str:
    convs, gate = [], []
    for row, layer in net.layers(path):
        if isinstance(layer, nn.Conv2d) and in_gate(row):
            gate.append(str(layer.out_channels))
        elif isinstance(layer, nn.Conv2d):
            groups = f",C={layer.groups}" if layer.groups > 1 else ""
            convs.append(f"{kernel(layer)},{layer.out_channels}{groups}")
    return f"[{';'.join(convs)}; fc {','.join(gate)}]"


@notation("in gates", "params", "weights and biases in the gates of Squeeze-and-Excitation")
def params_in_gates(net: Built, part: str) -> int:
    """What SENet's eq. (5) counts."""
    return sum(row.weights + row.biases for row in net.rows(part) if in_gate(row))
