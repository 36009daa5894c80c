"""The notation of VGG's tables."""

from torch import nn

from ..built import Built
from .base import notation


@notation("VGG table", "stage_shape", "layers as in VGG's Table 1")
def vgg_table(net: Built, part: str) -> str:
    """`conv3-64; conv3-64; maxpool` [arXiv:1409.1556, Table 1]."""
    words = []
    for _, layer in net.layers(part):
        if isinstance(layer, nn.Conv2d):
            words.append(f"conv{layer.kernel_size[0]}-{layer.out_channels}")
        elif isinstance(layer, nn.Linear):
            words.append(f"FC-{layer.out_features}")
        elif isinstance(layer, nn.LocalResponseNorm):
            words.append("LRN")
        elif isinstance(layer, nn.MaxPool2d):
            words.append("maxpool")
    return "; ".join(words)
