"""The notation of GoogLeNet's Table 1 and Sec. 5."""

from torch import nn

from ...tree import AvgPoolTo
from ..built import Built
from .base import kernel, longest, notation


@notation("GoogLeNet module", "channels", "widths as in GoogLeNet's Table 1")
def googlenet_module(net: Built, part: str) -> str:
    """`in 192: #1x1 64; #3x3red 96; #3x3 128; #5x5red 16; #5x5 32; pool proj 32` [arXiv:1409.4842, Table 1]."""
    words = []
    for branch, convs in convolutions(net, part).items():
        if branch == "pool":
            words.append(f"pool proj {convs[-1].out_channels}")
            continue
        size = kernel(convs[-1])
        words += [f"#{size}red {reduce.out_channels}" for reduce in convs[:-1]]
        words.append(f"#{size} {convs[-1].out_channels}")
    return f"in {net.cost.inputs[part].c}: {'; '.join(words)}"


@notation("GoogLeNet aux", "architecture", "the auxiliary heads as in GoogLeNet's Sec. 5")
def googlenet_aux(net: Built, part: str) -> str:
    """`avgpool 5x5/3 -> 4x4x512 (4a) / 4x4x528 (4d); 1x1 conv 128 + ReLU; FC 1024 + ReLU; dropout 70%; linear 1000`."""
    pooled = {name: net.cost.outputs[f"aux.{name}.pool"] for name in net.net.aux}
    maps = " / ".join(f"{x.h}x{x.w}x{x.c} ({name.removeprefix('inception')})" for name, x in pooled.items())
    layers = {"; ".join(_layers(head)) for head in net.net.aux.values()}
    return " or ".join(words.replace("MAPS", maps) for words in layers)


@notation("depth with pools", "layers_with_pooling", "convolutions, FC layers and poolings on the longest path")
def depth_with_pools(net: Built, part: str) -> int:
    """27 for GoogLeNet [arXiv:1409.4842, Sec. 5]."""
    return longest(net.net, (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d))


def convolutions(net: Built, part: str) -> dict[str, list[nn.Conv2d]]:
    """The convolutions of a module by branch."""
    found: dict[str, list[nn.Conv2d]] = {}
    for row, layer in net.layers(part):
        if isinstance(layer, nn.Conv2d):
            found.setdefault(row.path.removeprefix(f"{part}.").split(".")[0], []).append(layer)
    return found


def _layers(head: nn.Module) -> list[str]:
    words: list[str] = []
    for layer in [m for m in head.modules() if not list(m.children())]:
        match layer:
            case AvgPoolTo():
                words.append(f"avgpool {layer.k}x{layer.k}/{layer.stride} -> MAPS")
            case nn.Conv2d():
                words.append(f"{kernel(layer)} conv {layer.out_channels}")
            case nn.Linear():
                words.append(f"FC {layer.out_features}")
            case nn.ReLU():
                words[-1] += " + ReLU"
            case nn.Dropout():
                words.append(f"dropout {layer.p:.0%}")
    return [*words[:-1], words[-1].replace("FC", "linear")]
