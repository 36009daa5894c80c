"""The notation of MobileNet v2's tables."""

from torch import nn

from ..built import Built
from .base import notation


def strided(net: Built, part: str) -> nn.Conv2d:
    """The convolution of a part with the largest stride, the first of several."""
    convs = [layer for _, layer in net.layers(part) if isinstance(layer, nn.Conv2d)]
    return max(convs, key=lambda conv: conv.stride[0])


def units(net: Built) -> dict[str, int]:
    """How many units each stage has."""
    stages = [name for name in net.cost.parts if name.startswith("stage")]
    return {name: len({row.path.split(".")[1] for row in net.rows(name)}) for name in stages}


@notation("MobileNet v2 table", "stage_shape", "a row of MobileNet v2's Table 2 with bottlenecks")
def bottleneck_row(net: Built, part: str) -> str:
    """`t=6 c=24 n=2 s=2; input 112^2` [arXiv:1801.04381, Table 2]."""
    x, out = net.cost.inputs[part], net.cost.outputs[part]
    inner = net.cost.outputs[f"{part}.0.body.depthwise"].c
    s = strided(net, part).stride[0]
    return f"t={inner // x.c} c={out.c} n={units(net)[part]} s={s}; input {x.h}^2"


@notation("MobileNet v2 conv", "stage_shape", "a row of MobileNet v2's Table 2 with a convolution")
def conv_row(net: Built, part: str) -> str:
    """`224^2x3 -> 32, s2` [arXiv:1801.04381, Table 2]; a stride of 1 is not written."""
    x, out, s = net.cost.inputs[part], net.cost.outputs[part], strided(net, part).stride[0]
    return f"{x.h}^2x{x.c} -> {out.c}" + (f", s{s}" if s > 1 else "")


@notation("bottlenecks", "layers", "the units of all stages")
def bottlenecks(net: Built, part: str) -> str:
    """`17 residual bottleneck layers` [arXiv:1801.04381, Sec. 4]."""
    return f"{sum(units(net).values())} residual bottleneck layers"


@notation("map memory", "memory", "channels and KB (1000 bytes, 16 bits a value) after a part, cut to two digits")
def map_memory(net: Built, part: str) -> str:
    """`64/1600` [arXiv:1801.04381, Table 3]."""
    out = net.cost.outputs[part]
    kilobytes = out.elements * 2 // 1000
    unit = 10 ** max(0, len(str(kilobytes)) - 2)
    return f"{out.c}/{kilobytes // unit * unit}"
