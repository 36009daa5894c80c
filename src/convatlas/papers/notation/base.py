"""What a paper's table would print for a part of a built network, in that table's own notation."""

from collections.abc import Callable

from ..built import Built
from ..convention import Convention

NOTATIONS: dict[str, Convention] = {}
Count = Callable[[Built, str], int | str]


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


def map_size(net: Built, part: str) -> str:
    """`28x28`: the size of the map after the module `part`."""
    out = net.cost.outputs[part]
    return f"{out.h}x{out.w}"
