"""Linear layers in a row computed on fewer pixels: what a pooling or a stride throws away need not be computed."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import nn

from ...tree import Net, Residual, ZeroPad
from ...tree.transform import chains
from .walk import ACTIVATIONS, flat, is_1x1, is_mean

POINTWISE = (nn.BatchNorm2d, *ACTIVATIONS)  # look at one pixel of one channel


def pool_before_convolution(net: Net) -> Net:
    """Average before a 1x1 convolution and not behind it, where nothing but the two is there: means of sums are sums of
    means.  In DenseNet's transitions the convolution then has a quarter of the pixels.

    Only if the pooling does not count what lies over the edge, where a bias would be missing.
    """
    for chain in chains(net):
        for (owner, name, layer), (owner_after, after, pool) in pairwise(chain):
            if is_1x1(layer) and layer.stride == (1, 1) and is_mean(pool):
                owner.set_submodule(name, pool)
                owner_after.set_submodule(after, layer)
    return net


def stride_early(net: Net) -> Net:
    """Let a layer whose readers all skip pixels not compute these: the stride of the 1x1 convolutions at the beginning
    of a unit moves back to the last 3x3 of the unit before, through its addition.

    So it is in bottlenecks whose first 1x1 has the stride [arXiv:1512.03385, Sec. 4.1]: in ResNet-50, three units save
    three quarters of their last two convolutions, together a tenth of the network's multiply-accumulates.
    """
    for chain in chains(net):
        layers = [layer for _, _, layer in chain]
        for i in reversed(range(len(layers))):  # and the chains of what is in a unit come after the one it is in
            stride, relax = _skips(layers[i])
            thin = _thinned(layers[:i], stride) if stride > 1 else None
            for change in [*relax, *thin] if thin else []:
                change()
    return net


Changes = list[Callable[[], None]]


def _skips(layer: nn.Module) -> tuple[int, Changes]:
    """Of how many pixels in a row (or column) a layer reads only the first, and what makes it read them all."""
    if is_1x1(layer) and layer.stride[0] == layer.stride[1]:
        return layer.stride[0], [partial(setattr, layer, "stride", (1, 1))]
    if isinstance(layer, ZeroPad):
        return layer.stride, [partial(setattr, layer, "stride", 1)]
    if isinstance(layer, nn.Sequential):
        return _skips(next((m for m in flat(layer) if not isinstance(m, POINTWISE)), nn.Identity()))
    if isinstance(layer, Residual):
        found = [_skips(child) for child in layer.children()]
        if len({stride for stride, _ in found}) == 1:
            return found[0][0], [change for _, changes in found for change in changes]
    return 1, []


def _thinned(layers: list[nn.Module], stride: int) -> Changes | None:
    """What makes the last of these layers put out only every `stride`-th pixel; None if that cannot be."""
    while layers and isinstance(layers[-1], POINTWISE):
        layers = layers[:-1]
    last = layers[-1] if layers else None
    if isinstance(last, nn.Conv2d):
        return [partial(setattr, last, "stride", tuple(stride * s for s in last.stride))]
    if isinstance(last, Residual):
        body = _thinned(flat(last.body), stride)
        if isinstance(last.skip, nn.Identity):
            skip = [partial(last.set_submodule, "skip", nn.MaxPool2d(1, stride))]
        else:
            skip = _thinned(flat(last.skip), stride)
        return body + skip if body and skip else None
    return None
