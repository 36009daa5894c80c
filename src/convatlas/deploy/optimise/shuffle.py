"""ShuffleNet's channel shuffle, without the shuffle or with a cheaper one."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ...tree import Net, Shuffle, rule
from ...tree.fold import fresh
from ...tree.transform import chains
from .walk import ACTIVATIONS


def absorb_shuffle(net: Net) -> Net:
    """Let an ungrouped convolution put out its channels in the order into which they would be shuffled.

    That is the first unit's.  The filters of a grouped one cannot change places across the groups.
    """
    for chain in chains(net):
        for (_, _, conv), (owner, name, shuffle) in pairwise(_without_activations(chain)):
            if isinstance(conv, nn.Conv2d) and conv.groups == 1 and isinstance(shuffle, Shuffle):
                order = shuffled(conv.out_channels, shuffle.groups)
                for weights in (conv.weight, conv.bias):
                    if weights is not None:
                        weights.data = weights.data[order]
                delattr(owner, name)
    return net


def gather_shuffle(net: Net) -> Net:
    """Shuffle in one operation instead of three (reshape, transpose, reshape)."""
    for chain in chains(net):
        for (_, _, conv), (owner, name, shuffle) in pairwise(_without_activations(chain)):
            if isinstance(conv, nn.Conv2d) and isinstance(shuffle, Shuffle):
                owner.set_submodule(name, Permute(shuffled(conv.out_channels, shuffle.groups)))
    return net


def shuffled(channels: int, groups: int) -> Tensor:
    """Which channel comes to each place: (channels,) int64."""
    return torch.arange(channels).view(groups, -1).T.flatten()


class Permute(nn.Module):
    """Channels in another order."""

    order: Tensor

    def __init__(self, order: Tensor):
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x.index_select(1, self.order)


@rule(Permute)
def _permute(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, fresh(x))


def _without_activations(chain):
    return [entry for entry in chain if not isinstance(entry[2], ACTIVATIONS)]
