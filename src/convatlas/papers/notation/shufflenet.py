"""The notation of ShuffleNet's tables."""

from torch import nn

from ..built import Built
from .base import kernel, map_size, notation


@notation("ShuffleNet table", "stage_shape", "map, channels and units as in ShuffleNet's Table 1")
def shufflenet_table(net: Built, part: str) -> str:
    """`28x28, 144 ch, repeat 1 (s2) + 3` [arXiv:1707.01083, Table 1]: the units with stride 2, and the others."""
    kinds = [row.kind for row in net.rows(part)]
    halving, others = kinds.count("Concat"), kinds.count("Residual")
    return f"{map_size(net, part)}, {net.cost.outputs[part].c} ch, repeat {halving} (s2) + {others}"


@notation("ShuffleNet stem", "stage_shape", "map, kernel and stride of each layer as in ShuffleNet's Table 1")
def shufflenet_stem(net: Built, part: str) -> str:
    """`112x112 3x3/2 24 ch; 56x56 3x3/2` [arXiv:1707.01083, Table 1]."""
    words = []
    for row, layer in net.layers(part):
        _, h, w = row.shape
        if isinstance(layer, nn.Conv2d):
            words.append(f"{h}x{w} {kernel(layer)}/{layer.stride[0]} {layer.out_channels} ch")
        elif isinstance(layer, nn.MaxPool2d):
            words.append(f"{h}x{w} {layer.kernel_size}x{layer.kernel_size}/{layer.stride}")
    return "; ".join(words)
