"""What inference does not need."""

from torch import nn

from ...tree import Net
from ...tree.transform import chains


def drop_dead(net: Net) -> Net:
    """Remove the auxiliary heads, and from every Sequential the dropouts and identities."""
    net.aux = nn.ModuleDict()
    for chain in chains(net):
        for owner, name, layer in chain:
            if isinstance(layer, nn.Dropout | nn.Identity) and isinstance(owner, nn.Sequential):
                delattr(owner, name)
    return net
