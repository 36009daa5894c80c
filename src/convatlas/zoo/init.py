"""How weights begin.  Each function fills a built network in place and returns it."""

from torch import nn

from ..tree import Net


def he(net: Net) -> Net:
    """Convolutions N(0, 2 / (k^2 cout)), so that ReLU keeps the gradient's variance [arXiv:1502.01852, Sec. 2.2]."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
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
