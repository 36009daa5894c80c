"""A BatchNorm in front of a ReLU and a convolution, which cannot be folded into a convolution before it."""

from typing import TypeGuard

import torch
from torch import Tensor, nn

from ...tree import Net, rule
from ...tree.fold import fresh
from ...tree.transform import chains
from .walk import is_mean


def clamp_before_convolution(net: Net) -> Net:
    """Turn BatchNorm, ReLU and an unpadded convolution (or an average and a linear layer) into a clamp and it.

    Where the BatchNorm is s x + b, relu(s x + b) = s max(x, -b / s) + b for s > 0, with min for s < 0: the scale goes
    into the weights, the shift into the bias.  Exact only without padding, whose zeros stand for zeros behind the ReLU.
    This is the beginning of DenseNet's layers and of pre-activation bottlenecks, and the end of both networks.
    """
    for chain in chains(net):
        for (owner, name, norm), (act_owner, act_name, act), *rest in (chain[i:] for i in range(len(chain) - 1)):
            reader = next(
                (layer for _, _, layer in rest if not (is_mean(layer) or isinstance(layer, nn.Flatten))), None
            )
            if isinstance(norm, nn.BatchNorm2d) and isinstance(act, nn.ReLU) and _takes(reader, norm.num_features):
                low, high, scale, shift = _parts(norm)
                _absorb(reader, scale, shift)
                owner.set_submodule(name, Clamp(low, high))
                delattr(act_owner, act_name)
    return net


class Clamp(nn.Module):
    """Every channel kept between two values of its own, (C,) each; without `high` only from below."""

    def __init__(self, low: Tensor, high: Tensor | None):
        super().__init__()
        self.low = nn.Parameter(low[:, None, None])
        self.high = None if high is None else nn.Parameter(high[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x.maximum(self.low) if self.high is None else x.clamp(self.low, self.high)


@rule(Clamp)
def _clamp(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, fresh(x))


def _takes(layer: nn.Module | None, channels: int) -> TypeGuard[nn.Conv2d | nn.Linear]:
    """Whether a scale and a shift of its input channels can go into the layer's weights and bias."""
    if isinstance(layer, nn.Linear):
        return layer.in_features == channels
    return isinstance(layer, nn.Conv2d) and layer.padding == (0, 0) and layer.groups == 1


def _parts(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Bounds low and high (None if no channel needs one), scale and shift: relu(norm(x)) is x clamped, scaled, shifted.

    A channel that is scaled by (nearly) 0 is a constant.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - scale * norm.running_mean
    bound = -shift / scale
    constant = ~bound.isfinite()
    scale, shift = scale.masked_fill(constant, 0), shift.where(~constant, shift.relu())
    low = bound.masked_fill(scale <= 0, -torch.inf)
    high = bound.masked_fill(scale >= 0, torch.inf)
    return low, high if (scale < 0).any() else None, scale, shift


def _absorb(layer: nn.Conv2d | nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """Give a layer that takes s x + b, s and b per channel, the weights with which it takes x."""
    with torch.no_grad():
        weight = layer.weight.flatten(2).sum(2) if isinstance(layer, nn.Conv2d) else layer.weight
        bias = weight @ shift if layer.bias is None else weight @ shift + layer.bias
        layer.weight.mul_(scale.view(1, -1, *[1] * (layer.weight.dim() - 2)))
        layer.bias = nn.Parameter(bias)
