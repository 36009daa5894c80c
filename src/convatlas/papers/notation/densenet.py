"""The notation of DenseNet's Table 1."""

from torch import nn

from ..built import Built
from .base import kernel, map_size, notation, repeated


@notation("DenseNet blocks", "architecture", "layers in each dense block")
def densenet_blocks(net: Built, part: str) -> str:
    """`6-12-24-16` [arXiv:1608.06993, Table 1]."""
    blocks = [m for name, m in net.net.named_children() if name.startswith("block")]
    return "-".join(str(sum(1 for _ in block.children())) for block in blocks)


@notation("DenseNet block", "stage_shape", "map and layers of a dense block as in DenseNet's Table 1")
def densenet_block(net: Built, part: str) -> str:
    """`56x56 [1x1,3x3] x6` [arXiv:1608.06993, Table 1]; layers that differ are listed one by one."""
    return f"{map_size(net, part)} {repeated(net, part, lambda convs: ','.join(map(kernel, convs)))}"


@notation("DenseNet transition", "stage_shape", "maps and layers of a transition as in DenseNet's Table 1")
def densenet_transition(net: Built, part: str) -> str:
    """`56x56 1x1 conv; 28x28 avg pool 2/2` [arXiv:1608.06993, Table 1]."""
    words = []
    for row, layer in net.layers(part):
        _, h, w = row.shape
        if isinstance(layer, nn.Conv2d):
            words.append(f"{h}x{w} {kernel(layer)} conv")
        elif isinstance(layer, nn.AvgPool2d):
            words.append(f"{h}x{w} avg pool {layer.kernel_size}/{layer.stride}")
    return "; ".join(words)
