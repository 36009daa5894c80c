"""The words that network files are written in: conv, conv_bn_act, classifier, SE, and the leaves torch lacks.

Shapes are (N, C, H, W).  Convolutions pad "same" for odd kernels unless told.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .combinators import Gate, seq


def conv(cin: int, cout: int, k: int | tuple[int, int] = 1, *, stride: int = 1, groups: int = 1, bias: bool = False):
    """Convolution k x k, or (h, w), padded by half its size."""
    kh, kw = (k, k) if isinstance(k, int) else k
    return nn.Conv2d(cin, cout, (kh, kw), stride, (kh // 2, kw // 2), groups=groups, bias=bias)


def conv_act(cin: int, cout: int, k: int | tuple[int, int] = 1, **kw) -> nn.Sequential:
    """Convolution with bias, ReLU: the layer of the networks before batch normalisation."""
    return seq(conv=conv(cin, cout, k, bias=True, **kw), act=nn.ReLU(inplace=True))


def conv_bn(cin: int, cout: int, k: int | tuple[int, int] = 1, **kw) -> nn.Sequential:
    """Convolution, BatchNorm."""
    return seq(conv=conv(cin, cout, k, **kw), norm=nn.BatchNorm2d(cout))


def conv_bn_act(cin: int, cout: int, k: int | tuple[int, int] = 1, **kw) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU [arXiv:1502.03167, Sec. 3.2]."""
    return seq(conv=conv(cin, cout, k, **kw), norm=nn.BatchNorm2d(cout), act=nn.ReLU(inplace=True))


def classifier(cin: int, classes: int) -> nn.Sequential:
    """Global average pooling and one linear layer."""
    return seq(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), fc=nn.Linear(cin, classes))


class ZeroPad(nn.Module):
    """Shortcut A: every `stride`-th pixel, filled up with zero channels; no parameters [arXiv:1512.03385, Sec. 3.3].

    The paper does not say where the zeros go (all places are the same network up to a permutation of channels); half
    of them are put before and half behind, as in the public CIFAR weights.
    """

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.cin, self.cout, self.stride = cin, cout, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, ceil(H / stride), ceil(W / stride))."""
        before = (self.cout - self.cin) // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.cout - self.cin - before))

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"{self.cin}, {self.cout}, stride={self.stride}"


class Shuffle(nn.Module):
    """Channel shuffle: interleave the channels of `groups` groups [arXiv:1707.01083, Fig. 1c]."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); C must be divisible by groups."""
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"groups={self.groups}"


@dataclass(frozen=True)
class SE:
    """Squeeze-and-Excitation [arXiv:1709.01507, Fig. 3]: a value that, called with C, builds the layer.

    The two fully connected layers are 1x1 convolutions on the squeezed (N, C, 1, 1); `bias` as in the released models.
    """

    reduction: int = 16
    bias: bool = True

    def __call__(self, c: int) -> Gate:
        """The gate for (N, c, H, W)."""
        squeezed = max(1, c // self.reduction)
        return Gate(
            seq(
                squeeze=nn.AdaptiveAvgPool2d(1),
                fc1=conv(c, squeezed, bias=self.bias),
                act=nn.ReLU(inplace=True),
                fc2=conv(squeezed, c, bias=self.bias),
                sigmoid=nn.Sigmoid(),
            )
        )
