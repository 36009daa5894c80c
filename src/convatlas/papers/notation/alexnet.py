"""The notation of AlexNet's Sec. 3."""

from itertools import pairwise

from torch import nn

from ..built import Built
from .base import notation


@notation("neurons", "neurons", "outputs of convolutions and FC layers")
def neurons(net: Built, part: str) -> int:
    """The values that the layers with weights put out [AlexNet, Sec. 3.5]."""
    return sum(row.elements for row in net.weight_layers(part))


@notation("input neurons", "neurons", "values of an image")
def input_neurons(net: Built, part: str) -> int:
    """The network's "input is 150,528-dimensional" [AlexNet, Fig. 2]."""
    return net.cost.inputs[""].elements


@notation("AlexNet layer", "architecture", "a layer as in AlexNet's Sec. 3.5")
def alexnet_layer(net: Built, part: str) -> int | str:
    """`96 kernels 11x11x3 stride 4`, or the number of neurons of an FC layer."""
    ((_, layer),) = [(row, m) for row, m in net.layers(part) if isinstance(m, nn.Conv2d | nn.Linear)]
    if isinstance(layer, nn.Linear):
        return layer.out_features
    (h, w), (stride, _) = layer.kernel_size, layer.stride
    kernels = f"{layer.out_channels} kernels {h}x{w}x{layer.in_channels // layer.groups}"
    return kernels if stride == 1 else f"{kernels} stride {stride}"


@notation("AlexNet normalisation", "architecture", "response normalisation as in AlexNet's Sec. 3.3")
def alexnet_normalisation(net: Built, part: str) -> str:
    """`k=2 n=5 alpha=1e-4 beta=0.75 after ReLU of conv1, conv2`; torch's alpha is n times the paper's."""
    found: dict[str, list[str]] = {}
    for (before, act), (_, m) in pairwise(net.layers(part)):
        if isinstance(m, nn.LocalResponseNorm):
            alpha = f"{m.alpha / m.size:.0e}".replace("e-0", "e-")
            words = f"k={m.k:g} n={m.size} alpha={alpha} beta={m.beta:g} after {type(act).__name__} of"
            found.setdefault(words, []).append(before.path.split(".")[-2])
    return "; ".join(f"{words} {', '.join(layers)}" for words, layers in found.items())


@notation("AlexNet pooling", "architecture", "pooling as in AlexNet's Sec. 3.4 and 3.5")
def alexnet_pooling(net: Built, part: str) -> str:
    """`overlapping max 3x3 stride 2 after LRN1, LRN2 and conv5`."""
    found: dict[str, list[str]] = {}
    for (before, _), (_, m) in pairwise(net.layers(part)):
        match m:
            case nn.MaxPool2d(kernel_size=int(k), stride=int(stride)):
                words = f"{'overlapping ' if k > stride else ''}max {k}x{k} stride {stride} after"
                layer = before.path.removesuffix(".act").split(".")[-1].replace("lrn", "LRN")
                found.setdefault(words, []).append(layer)
    return "; ".join(f"{words} {', '.join(layers[:-1])} and {layers[-1]}" for words, layers in found.items())
