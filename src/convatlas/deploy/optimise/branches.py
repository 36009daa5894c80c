"""An activation behind a concatenation, moved into the branches: a runtime runs it as part of their convolutions."""

from torch import nn

from ...tree import Concat, Net, seq
from ...tree.transform import chains
from .walk import ACTIVATIONS, POOLS


def activate_branches(net: Net) -> Net:
    """Move a ReLU behind a `Concat` to the ends of its branches, but not to poolings of what is 0 or more already.

    That is ShuffleNet's units of stride 2, whose other branch is the average pool of a ReLU's output.
    """
    for chain in chains(net):
        layers = [layer for _, _, layer in chain]
        for i, (owner, name, layer) in enumerate(chain[1:], 1):
            join = layers[i - 1]
            if isinstance(layer, nn.ReLU) and isinstance(join, Concat) and isinstance(owner, nn.Sequential):
                for branch, child in list(join.named_children()):
                    if not (isinstance(child, POOLS) and _positive(layers[: i - 1])):
                        join.set_submodule(branch, seq(layers=child, act=nn.ReLU(inplace=True)))
                delattr(owner, name)
    return net


def _positive(layers: list[nn.Module]) -> bool:
    """Whether the output of these layers, one behind another, is nowhere below 0."""
    last = next((layer for layer in reversed(layers) if not isinstance(layer, POOLS)), None)
    return isinstance(last, ACTIVATIONS)
