"""The words that network files are written in: conv, conv_bn_act, classifier, SE, and the leaves torch lacks.

Shapes are (N, C, H, W).  Convolutions pad "same" for odd kernels unless told.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .combinators import Gate, seq

Kernel = int | tuple[int, int]


def conv(cin: int, cout: int, k: Kernel = 1, *, stride: int = 1, groups: int = 1, bias: bool = False,
         padding: int | None = None) -> nn.Conv2d:  # fmt: skip
    """Convolution k x k, or (h, w), padded by half its size unless `padding` says otherwise."""
    kh, kw = (k, k) if isinstance(k, int) else k
    pad = (kh // 2, kw // 2) if padding is None else (padding, padding)
    return nn.Conv2d(cin, cout, (kh, kw), stride, pad, groups=groups, bias=bias)


def conv_act(cin: int, cout: int, k: Kernel = 1, **kw) -> nn.Sequential:
    """Convolution with bias, ReLU: the layer of the networks before batch normalisation."""
    return seq(conv=conv(cin, cout, k, bias=True, **kw), act=nn.ReLU(inplace=True))


def conv_bn(cin: int, cout: int, k: Kernel = 1, **kw) -> nn.Sequential:
    """Convolution, BatchNorm."""
    return seq(conv=conv(cin, cout, k, **kw), norm=nn.BatchNorm2d(cout))


def conv_bn_act(cin: int, cout: int, k: Kernel = 1, *, act: Callable[..., nn.Module] = nn.ReLU, **kw) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU [arXiv:1502.03167, Sec. 3.2] or what else `act(inplace=True)` builds."""
    return seq(conv=conv(cin, cout, k, **kw), norm=nn.BatchNorm2d(cout), act=act(inplace=True))


def bn_act_conv(cin: int, cout: int, k: Kernel = 1, **kw) -> nn.Sequential:
    """BatchNorm, ReLU, convolution: full pre-activation [arXiv:1603.05027, Fig. 4e]."""
    return seq(norm=nn.BatchNorm2d(cin), act=nn.ReLU(inplace=True), conv=conv(cin, cout, k, **kw))


def local_response_norm() -> nn.LocalResponseNorm:
    """AlexNet's: k = 2, n = 5, alpha = 1e-4, beta = 0.75 [AlexNet, Sec. 3.3].  torch divides alpha by n: hence 5e-4."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def classifier(cin: int, classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Global average pooling, dropout if there is any, and one linear layer."""
    drop = nn.Dropout(dropout) if dropout else None
    return seq(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), drop=drop, fc=nn.Linear(cin, classes))


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
        """(N, C, H, W) -> (N, C, H, W) in the same memory format; C must be divisible by groups.

        Exported, it is always the reshape, transpose and reshape that runtimes know as a shuffle.
        """
        n, c, h, w = x.shape
        if x.is_contiguous(memory_format=torch.channels_last) and not torch.compiler.is_exporting():
            return torch.stack(x.permute(0, 2, 3, 1).chunk(self.groups, 3), 4).flatten(3).permute(0, 3, 1, 2)
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"groups={self.groups}"


class Scale(nn.Module):
    """Multiplication by a constant [arXiv:1603.05027, Sec. 3.1, constant scaling]."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.factor

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"{self.factor:g}"


class SamePad(nn.Module):
    """Zeros around the image so that a window k x k with `stride`, unpadded, puts out ceil(size / stride): TensorFlow's
    "same", whose odd row and column lie at the bottom and on the right.
    """

    def __init__(self, k: int, stride: int):
        super().__init__()
        self.k, self.stride = k, stride

    def total(self, n: int) -> int:
        """How many zeros are added to n pixels, on both sides together."""
        return max(0, (-(-n // self.stride) - 1) * self.stride + self.k - n)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H + total(H), W + total(W))."""
        h, w = self.total(x.shape[2]), self.total(x.shape[3])
        return F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"{self.k}, stride={self.stride}"


class AvgPoolTo(nn.Module):
    """Average pooling k x k / stride that always puts out `out` x `out`, as the linear layer behind it needs.

    On a map of the size that the paper has, it is just that pooling; on any other, bins as equal as possible.
    """

    def __init__(self, k: int, stride: int, out: int):
        super().__init__()
        self.k, self.stride, self.out = k, stride, out

    def fits(self, n: int) -> bool:
        """Whether the paper's windows on n pixels put out `out`."""
        return n >= self.k and (n - self.k) // self.stride + 1 == self.out

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, out, out)."""
        if self.fits(x.shape[2]) and self.fits(x.shape[3]):
            return F.avg_pool2d(x, self.k, self.stride)
        return F.adaptive_avg_pool2d(x, self.out)

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"{self.k}, stride={self.stride}, out={self.out}"


@dataclass(frozen=True)
class SE:
    """Squeeze-and-Excitation [arXiv:1709.01507, Fig. 3]: a value that, called with C, builds the layer.

    `reduction` is the ratio r of the bottleneck between the two fully connected layers; None is a single one of C x C
    instead.  They are 1x1 convolutions on the squeezed (N, C, 1, 1), with `bias` as in the released models, and begin
    as He's.  `squeeze` is the pooling, "avg" or "max" [Table 11]; None is no pooling, so a gate of its own for every
    pixel [Table 16].  `excite` is the last activation: "sigmoid", "tanh" or "relu" [Table 12].

    In a spec, `at` names the Sequentials that it is appended to (`first`: put before), instead of the family's usual
    ones; see `insert_se`.
    """

    reduction: int | None = 16
    bias: bool = True
    squeeze: str | None = "avg"
    excite: str = "sigmoid"
    at: str = ""
    first: bool = False

    def __call__(self, c: int) -> Gate:
        """The gate for (N, c, H, W)."""
        if self.reduction is None:
            layers = {"fc": conv(c, c, bias=self.bias)}
        else:
            squeezed = max(1, c // self.reduction)
            layers = {
                "fc1": conv(c, squeezed, bias=self.bias),
                "act": nn.ReLU(inplace=True),
                "fc2": conv(squeezed, c, bias=self.bias),
            }
        for layer in layers.values():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        squeeze = SQUEEZES[self.squeeze](1) if self.squeeze else None
        return Gate(seq(squeeze=squeeze, **layers, **{self.excite: EXCITES[self.excite]()}))


SQUEEZES: dict[str, Callable[..., nn.Module]] = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}
EXCITES: dict[str, Callable[..., nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
