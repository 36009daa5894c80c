"""How weights begin.  Each function fills a built network in place and returns it."""

from typing import Literal, TypeVar

from torch import nn

from ..tree import Net

M = TypeVar("M", bound=nn.Module)


def he(net: Net, fan: Literal["fan_out", "fan_in"] = "fan_out") -> Net:
    """Convolutions N(0, 2 / fan), biases 0: with the fan out, k^2 cout, ReLU keeps the variance of the gradient, with
    the fan in, k^2 cin, that of the signal [arXiv:1502.01852, Sec. 2.2].
    """
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode=fan, nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return net


def glorot(net: Net) -> Net:
    """Weights N(0, 2 / (fan in + fan out)), biases 0 [Glorot and Bengio 2010, eq. 12]."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return net


def gaussian(net: Net, std: float = 0.01) -> Net:
    """Weights N(0, std^2), biases 0 [AlexNet, Sec. 5]."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.normal_(m.weight, std=std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return net


def truncated(net: M, std: float) -> M:
    """Weights N(0, std^2) cut off at two deviations, biases 0: TensorFlow's truncated normal."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(m.weight, std=std, a=-2 * std, b=2 * std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return net
