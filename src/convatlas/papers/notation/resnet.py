"""The notation of ResNet's tables."""

from torch import nn

from ..built import Built
from .base import kernel, map_size, notation, repeated


@notation("ResNet table", "stage_shape", "map and units as in ResNet's Table 1")
def resnet_table(net: Built, part: str) -> str:
    """`56x56 [3x3,64; 3x3,64] x3` [arXiv:1512.03385, Table 1]; units that differ are listed one by one."""
    units = repeated(net, part, lambda convs: "; ".join(f"{kernel(conv)},{conv.out_channels}" for conv in convs))
    return f"{map_size(net, part)} {units}"


@notation("ResNet stem", "stage_shape", "map and layers as in ResNet's Table 1")
def resnet_stem(net: Built, part: str) -> str:
    """`112x112 7x7,64,stride 2; 3x3 max pool stride 2` [arXiv:1512.03385, Table 1]."""
    words = []
    for _, layer in net.layers(part):
        if isinstance(layer, nn.Conv2d):
            words.append(f"{kernel(layer)},{layer.out_channels},stride {layer.stride[0]}")
        elif isinstance(layer, nn.MaxPool2d):
            words.append(f"{layer.kernel_size}x{layer.kernel_size} max pool stride {layer.stride}")
    return f"{map_size(net, part.split('+')[0])} {'; '.join(words)}"


@notation("ResNet CIFAR table", "stage_shape", "filters and layers as in ResNet's Sec. 4.2")
def resnet_cifar_table(net: Built, part: str) -> str:
    """`16 filters, 1+2n layers`, where the network has 6n + 2 [arXiv:1512.03385, Sec. 4.2]."""
    n = (len(net.weight_layers()) - 2) // 6
    layers = net.weight_layers(part)
    filters = " or ".join(str(c) for c in sorted({row.shape[0] for row in layers}))
    in_n = {2 * n: "2n", 1 + 2 * n: "1+2n"}
    return f"{filters} filters, {in_n.get(len(layers), len(layers))} layers"
