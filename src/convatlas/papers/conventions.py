"""What the papers count when they print a number.  They rarely say, and they differ, so every convention has a name.

A figure names its convention; the convention computes the exact value from the built tree.
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import notation
from .built import Built


@dataclass(frozen=True)
class Convention:
    """`count(built, part)` is the exact value: an integer, or text in the notation of a paper's table."""

    quantity: str
    meaning: str
    count: Callable[[Built, str], int | str]


def total(*columns: str) -> Callable[[Built, str], int]:
    """Count the sum of columns of the cost table."""
    return lambda net, part: sum(net.cost.total(column) for column in columns)


def ops(*combinators: str) -> Callable[[Built, str], int]:
    """Count the MACs and one operation per element of the outputs of some combinators."""
    return lambda net, part: net.cost.macs + sum(net.cost.total("elements", kind) for kind in combinators)


CONVENTIONS = {
    "W": Convention("params", "weights of convolutions and FC layers", total("weights")),
    "W+b": Convention("params", "weights and biases", total("weights", "biases")),
    "W+b+BN": Convention("params", "all trainable parameters", total("params")),
    "W+b+BN+stats": Convention("params", "trainable parameters and BN running statistics", total("params", "stats")),
    "BN stats": Convention("params", "BN running statistics", total("stats")),
    "conv+FC": Convention("macs", "MACs of convolutions and FC layers", total("macs")),
    "conv only": Convention("macs", "MACs of convolutions", lambda net, part: net.cost.total("macs", "Conv2d")),
    "conv+FC+add": Convention("macs", "MACs, and one operation per residual addition", ops("Residual")),
    "conv+FC+add+scale": Convention(
        "macs", "MACs, and one operation per residual addition and per scaled element", ops("Residual", "Gate")
    ),
    "weight layers": Convention(
        "layers",
        "convolutions and FC layers that are not on a shortcut",
        lambda net, part: len(net.weight_layers(part)),
    ),
    "stage maps": Convention("stage_shape", "CxHxW after each stage", notation.stage_maps),
    "VGG table": Convention("stage_shape", "layers as in VGG's Table 1", notation.vgg_table),
    "ResNet table": Convention("stage_shape", "map and units as in ResNet's Table 1", notation.resnet_table),
    "ResNet stem": Convention("stage_shape", "map and layers as in ResNet's Table 1", notation.resnet_stem),
    "ResNet CIFAR table": Convention(
        "stage_shape", "filters and layers as in ResNet's Sec. 4.2", notation.resnet_cifar_table
    ),
}
REPORTED = {  # nothing to compute from a tree
    "result": "measured by the authors after training",
    "setting": "stated by the authors for training",
}
