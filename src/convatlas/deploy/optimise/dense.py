"""DenseNet's concatenations, each of which copies all that was there before."""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from ...tree import Concat, Net, rule
from ...tree.fold import fresh, join
from .clamp import Clamp
from .walk import flat


def preallocate(net: Net) -> Net:
    """Let the layers of a dense block write their channels into one tensor: O(L) copied channels instead of O(L^2).

    Only for PyTorch, only without gradients, and only where the layers begin with a clamp: a BatchNorm is slow to read
    a part of a tensor.  To ONNX Runtime and OpenVINO, each write into a part of a tensor is a copy of the whole.
    """
    for path, block in list(net.named_modules()):
        if isinstance(block, nn.Sequential) and len(block) > 1 and all(_adds_channels(layer) for layer in block):
            net.set_submodule(path, DenseBlock(block))
    return net


class DenseBlock(nn.Module):
    """Layers each of which reads the channels so far and adds some behind them [arXiv:1608.06993, eq. 2]."""

    def __init__(self, block: nn.Sequential):
        super().__init__()
        for name, layer in block.named_children():
            _, new = layer.children()
            self.add_module(name, new)
        last = [flat(layer)[-1] for layer in self.children()]
        self.widths = [conv.out_channels for conv in last if isinstance(conv, nn.Conv2d)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + sum of the layers' channels, H, W)."""
        maps, c = F.pad(x, (0, 0, 0, 0, 0, sum(self.widths))), x.shape[1]
        for layer, width in zip(self.children(), self.widths, strict=True):
            maps[:, c : c + width] = layer(maps[:, :c])
            c += width
        return maps


@rule(DenseBlock)
def _dense_block(fold, m, x, path, held):
    maps = fresh(x, x.c + sum(m.widths))
    so_far = replace(maps, c=x.c)
    for name, layer in m.named_children():
        new = fold.flow(layer, so_far, join(path, name), held | {x.buffer, maps.buffer})
        so_far = replace(so_far, c=so_far.c + new.c, rf=new.rf)
    return fold.leaf(m, path, held, x, so_far)


def _adds_channels(layer: nn.Module) -> bool:
    match [flat(branch) for branch in layer.children()] if isinstance(layer, Concat) else []:
        case [nn.Identity()], [Clamp(), *_, nn.Conv2d()]:
            return True
    return False
