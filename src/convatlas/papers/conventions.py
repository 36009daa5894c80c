"""What the papers count when they print a number.  They rarely say, and they differ, so every convention has a name.

A figure names its convention; the convention computes the exact value from the built tree, or from the part of it
that the figure is about.
"""

from collections.abc import Callable

from .built import Built
from .convention import Convention
from .notation import NOTATIONS


def total(*columns: str) -> Callable[[Built, str], int]:
    """Count the sum of columns of the cost table."""
    return lambda net, part: sum(getattr(row, column) for row in net.rows(part) for column in columns)


def ops(*combinators: str) -> Callable[[Built, str], int]:
    """Count the MACs and one operation per element of the outputs of some combinators."""
    return lambda net, part: sum(row.macs + row.elements * (row.kind in combinators) for row in net.rows(part))


def of_convolutions(net: Built, part: str) -> int:
    """The MACs of the convolutions that take more than a single pixel: gates have fully connected layers."""
    inputs = net.cost.inputs
    return sum(r.macs for r in net.rows(part) if r.kind == "Conv2d" and (inputs[r.path].h, inputs[r.path].w) != (1, 1))


CONVENTIONS = {
    "W": Convention("params", "weights of convolutions and FC layers", total("weights")),
    "W+b": Convention("params", "weights and biases", total("weights", "biases")),
    "W+b+BN": Convention("params", "all trainable parameters", total("params")),
    "W+b+BN+stats": Convention("params", "trainable parameters and BN running statistics", total("params", "stats")),
    "BN stats": Convention("params", "BN running statistics", total("stats")),
    "conv+FC": Convention("macs", "MACs of convolutions and FC layers", total("macs")),
    "conv only": Convention("macs", "MACs of convolutions; of a single pixel they are FC layers", of_convolutions),
    "conv+FC+add": Convention("macs", "MACs, and one operation per residual addition", ops("Residual")),
    "conv+FC+add+scale": Convention(
        "macs", "MACs, and one operation per residual addition and per scaled element", ops("Residual", "Gate")
    ),
    "weight layers": Convention(
        "layers",
        "convolutions and FC layers that are on no shortcut and in no gate",
        lambda net, part: len(net.weight_layers(part)),
    ),
    **NOTATIONS,
}
REPORTED = {  # nothing to compute from a tree
    "result": "measured by the authors after training",
    "setting": "stated by the authors for training",
    "outside": "of a network that this library does not cover",
}
