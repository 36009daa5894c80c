"""What a paper's table would print for a part of a built network, in that table's own notation."""

from collections.abc import Callable

from torch import nn

from ...tree import Concat, Gate, Highway, Net, Residual
from ..built import Built
from ..convention import Convention

NOTATIONS: dict[str, Convention] = {}
Count = Callable[[Built, str], int | float | str]


def notation(name: str, quantity: str, meaning: str) -> Callable[[Count], Count]:
    """Decorator: `count(built, part)` is the convention `name`."""

    def add(count: Count) -> Count:
        NOTATIONS[name] = Convention(quantity, meaning, count)
        return count

    return add


@notation("stage maps", "stage_shape", "CxHxW after each stage")
def stage_maps(net: Built, part: str) -> str:
    """`64x112x112 128x56x56`: the shapes (C, H, W) after the parts called stage."""
    return " ".join("x".join(map(str, out.shape)) for name, out in net.cost.parts.items() if name.startswith("stage"))


@notation("map", "stage_shape", "HxWxC after a part")
def map_shape(net: Built, part: str) -> str:
    """`28x28x256`: the shape after the module `part`."""
    out = net.cost.outputs[part]
    return f"{out.h}x{out.w}x{out.c}"


@notation("input map", "stage_input", "HxWxC before a part")
def input_shape(net: Built, part: str) -> str:
    """`28x28x192`: the shape before the module `part`."""
    x = net.cost.inputs[part]
    return f"{x.h}x{x.w}x{x.c}"


@notation("depth", "layers", "convolutions and FC layers on the longest path")
def depth(net: Built, part: str) -> int:
    """22 for GoogLeNet: layers side by side count once."""
    return longest(net.net, (nn.Conv2d, nn.Linear))


def longest(m: nn.Module, counted: tuple[type, ...]) -> int:
    """How many leaves of some types lie on the longest path through a module; gates are beside it."""
    match m:
        case Net():
            return sum(longest(m.get_submodule(part), counted) for part in m.parts)
        case nn.Sequential():
            return sum(longest(child, counted) for child in m)
        case Concat() | Residual():
            return max(longest(child, counted) for child in m.children())
        case Highway():
            return max(longest(m.body, counted), longest(m.skip, counted))
        case Gate():
            return 0
    return int(isinstance(m, counted))


def repeated(net: Built, part: str, unit: Callable[[list[nn.Conv2d]], str]) -> str:
    """`[...] x3` for a stage of three units that `unit` writes alike, from their convolutions; else one by one."""
    convs: dict[str, list[nn.Conv2d]] = {}
    for row, layer in net.layers(part):
        if isinstance(layer, nn.Conv2d):
            convs.setdefault(row.path.split(".")[1], []).append(layer)
    listed = [f"[{unit(layers)}]" for layers in convs.values()]
    return f"{listed[0]} x{len(listed)}" if len(set(listed)) == 1 else " ".join(listed)


def kernel(conv: nn.Conv2d) -> str:
    """`3x3`."""
    return "x".join(map(str, conv.kernel_size))


def map_size(net: Built, part: str) -> str:
    """`28x28`: the size of the map after the module `part`."""
    out = net.cost.outputs[part]
    return f"{out.h}x{out.w}"
