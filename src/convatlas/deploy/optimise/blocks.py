"""Channels in the blocks that ONNX Runtime computes in: of 8 or 16, depending on the processor."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ...tree import Concat, Net, rule, seq
from ...tree.fold import fresh
from ...tree.transform import chains
from .walk import ACTIVATIONS, POOLS, flat

BLOCK = 16


def fill_block(net: Net) -> Net:
    """Give a convolution before a pooling filters of zeros up to the next multiple of 16.

    A pooling of another width leaves the blocked layout, by copies and to slow code; a convolution does not.  In
    ShuffleNet, the stem's 24 channels become 32.  Convolutions that read them get zeros for the new ones; a pooling
    that reads them in a branch of its own, the next one's shortcut, is followed by a `Take`.
    """
    for chain in chains(net):
        layers = [layer for _, _, layer in chain if not isinstance(layer, ACTIVATIONS)]
        for (conv, pool), reader in zip(pairwise(layers), layers[2:], strict=False):
            if isinstance(conv, nn.Conv2d) and isinstance(pool, POOLS) and _can_drop(reader):
                more = -conv.out_channels % BLOCK if conv.groups == 1 else 0
                _drop(reader, conv.out_channels, more)
                _grow(conv, more, dim=0)
    return net


class Take(nn.Module):
    """The first channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H, W)."""
        return x[:, : self.channels]

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"{self.channels}"


@rule(Take)
def _take(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, fresh(x, m.channels))


def _can_drop(reader: nn.Module) -> bool:
    if isinstance(reader, Concat):
        return all(isinstance(child, POOLS) or _can_drop(flat(child)[0]) for child in reader.children())
    return isinstance(reader, nn.Conv2d) and reader.groups == 1


def _drop(reader: nn.Module, channels: int, more: int) -> None:
    """Make a layer that takes `channels` take `more`, and use nothing of these."""
    if isinstance(reader, nn.Conv2d):
        _grow(reader, more, dim=1)
    elif more:
        for name, child in list(reader.named_children()):
            if isinstance(child, POOLS):
                reader.set_submodule(name, seq(pool=child, take=Take(channels)))
            else:
                _drop(flat(child)[0], channels, more)


def _grow(conv: nn.Conv2d, more: int, dim: int) -> None:
    """`more` outputs (dim 0) or inputs (dim 1) with weights of 0."""
    for name, weights in list(conv.named_parameters()):
        if dim < weights.dim():
            zeros = weights.new_zeros(*weights.shape[:dim], more, *weights.shape[dim + 1 :])
            conv.register_parameter(name, nn.Parameter(torch.cat([weights, zeros], dim)))
    conv.out_channels, conv.in_channels = conv.weight.shape[0], conv.weight.shape[1]
