"""The notation of MobileNet v1's Tables 1 and 2."""

from torch import nn

from ..built import Built
from .base import input_shape, notation


@notation("MobileNet v1 table", "stage_shape", "rows of MobileNet v1's Table 1")
def mobilenet_v1_table(net: Built, part: str) -> str:
    """`dw 3x3x32 s1; pw 1x1x32x64; input 112x112x32` [arXiv:1704.04861, Table 1]."""
    words = []
    for _, layer in net.layers(part):
        if isinstance(layer, nn.Conv2d):
            (h, w), (stride, _) = layer.kernel_size, layer.stride
            cin, cout = layer.in_channels, layer.out_channels
            if layer.groups == cin:
                words.append(f"dw {h}x{w}x{cout} s{stride}")
            else:
                words.append(f"{'pw ' if h == w == 1 else ''}{h}x{w}x{cin}x{cout}")
    return f"{'; '.join(words)}; input {input_shape(net, part)}"


@notation("share of MACs", "share_macs", "part of all MACs, in percent, that one kind of layer has")
def share_of_macs(net: Built, part: str) -> float:
    """`part` is a kind of Table 2: Conv 1x1, Conv DW 3x3, Conv 3x3 or Fully Connected."""
    return share(net, part, "macs")


@notation("share of weights", "share_params", "part of all weights, in percent, that one kind of layer has")
def share_of_weights(net: Built, part: str) -> float:
    """`part` as in "share of MACs"."""
    return share(net, part, "weights")


def share(net: Built, wanted: str, column: str) -> float:
    """The share of a column of the cost table."""
    rows = [row for row, layer in net.layers() if kind(layer) == wanted]
    return 100 * sum(getattr(row, column) for row in rows) / net.cost.total(column)


def kind(layer: nn.Module) -> str | None:
    """What Table 2 calls a layer."""
    if isinstance(layer, nn.Linear):
        return "Fully Connected"
    if isinstance(layer, nn.Conv2d):
        h, w = layer.kernel_size
        return f"Conv {'DW ' if layer.groups > 1 else ''}{h}x{w}"
    return None
