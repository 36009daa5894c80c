"""GoogLeNet [arXiv:1409.4842]: modules that look at the same map with several kernels at once.

    module:  x -> [1x1 | 1x1, 3x3 | 1x1, 5x5 | 3x3 max pool, 1x1] -> concatenation        [Fig. 2b]

The 1x1 in front of a large kernel reduces the channels that it sees, hence its cost [Sec. 4].
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from ..tree import (
    AvgPoolTo,
    Concat,
    Net,
    batch_norm_eps,
    classifier,
    conv,
    conv_act,
    conv_bn_act,
    local_response_norm,
    seq,
)
from . import init
from .spec import Arch, family, register

MODULES = {  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj [Table 1]; None is a max pool
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "pool3": None,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "pool4": None,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
AUX_ON = ("inception4a", "inception4d")  # [Sec. 5]


@family
@dataclass(frozen=True, kw_only=True)
class GoogLeNet(Arch):
    """`form` is "paper" (LRN, biases), "bn" (BatchNorm after every convolution instead) or "torchvision".

    The last is TensorFlow's release of the BN form, whose weights torchvision carries: 3x3 in the place of 5x5, BN with
    eps 1e-3, a last max pool of 2x2, dropout 0.2, and auxiliary heads that pool evenly.

    `stem` is "imagenet" (7x7/2, two max pools), "separable" (the 7x7 as depthwise and pointwise) or "cifar" (3x3).
    """

    SE_AT = "inception*"

    form: str = "paper"
    stem: str = "imagenet"

    def assemble(self) -> Net:
        """The paper does not say how weights begin: He's by fan in, which keeps the signal without BatchNorm."""
        block = conv_act if self.form == "paper" else conv_bn_act
        released = self.form == "torchvision"
        parts = stem(self.stem, self.in_channels, block, lrn=self.form == "paper")
        c, aux = 192, {}
        for name, widths in MODULES.items():
            if widths:
                parts[name], c = module(c, widths, block, five=3 if released else 5)
            else:
                parts[name] = max_pool(2 if released and name == "pool4" else 3)
            if name in AUX_ON:
                aux[name] = aux_head(c, self.classes, block, even=released)
        parts["head"] = classifier(c, self.classes, dropout=0.2 if released else 0.4)
        net = init.he(Net(parts, aux), "fan_in")
        return batch_norm_eps(net, 1e-3) if released else net


def stem(kind: str, cin: int, block: Callable[..., nn.Sequential], lrn: bool = False) -> dict[str, nn.Module]:
    """The parts before the modules: (N, cin, 224, 224) -> (N, 192, 28, 28), or with "cifar" at the image's size."""
    if kind == "cifar":
        return {"conv1": block(cin, 64, 3), "conv2": seq(reduce=block(64, 64), conv=block(64, 192, 3))}
    if kind == "separable":
        depthwise = conv(cin, 8 * cin, 7, stride=2, groups=cin)
        conv1 = seq(depthwise=depthwise, **dict(block(8 * cin, 64).named_children()))
    else:
        conv1 = block(cin, 64, 7, stride=2)
    norms = [local_response_norm() if lrn else None for _ in range(2)]
    return {
        "conv1": conv1,
        "pool1": seq(pool=max_pool(), lrn=norms[0]),
        "conv2": seq(reduce=block(64, 64), conv=block(64, 192, 3), lrn=norms[1]),
        "pool2": max_pool(),
    }


def max_pool(k: int = 3) -> nn.MaxPool2d:
    """k x k / 2; the sizes of Table 1 (112, 56, 28, 14, 7) need the last window to reach over the edge."""
    return nn.MaxPool2d(k, 2, ceil_mode=True)


def module(cin: int, widths: tuple[int, ...], block: Callable[..., nn.Sequential], five: int) -> tuple[Concat, int]:
    """One inception module and the number of channels that it puts out."""
    one, reduce3, three, reduce5, wide, proj = widths
    branches = Concat(
        one=block(cin, one),
        three=seq(reduce=block(cin, reduce3), conv=block(reduce3, three, 3)),
        five=seq(reduce=block(cin, reduce5), conv=block(reduce5, wide, five)),
        pool=seq(pool=nn.MaxPool2d(3, 1, 1), proj=block(cin, proj)),
    )
    return branches, one + three + wide + proj


def aux_head(cin: int, classes: int, block: Callable[..., nn.Sequential], even: bool) -> nn.Sequential:
    """An auxiliary classifier [Sec. 5]: its loss counts 0.3 in training.  (N, cin, 14, 14) -> (N, classes)."""
    return seq(
        pool=nn.AdaptiveAvgPool2d(4) if even else AvgPoolTo(5, 3, out=4),
        conv=block(cin, 128),
        flatten=nn.Flatten(1),
        fc1=nn.Linear(128 * 4 * 4, 1024),
        act=nn.ReLU(inplace=True),
        drop=nn.Dropout(0.7),
        fc2=nn.Linear(1024, classes),
    )


PAPER = GoogLeNet(name="googlenet", paper="arXiv:1409.4842", use="photos; the paper's network")
BN = replace(PAPER, name="googlenet.bn", use="photos; with BatchNorm: trains without care", form="bn")
register(
    PAPER,
    replace(PAPER, name="googlenet.separable", use="the stem that the paper's costs are those of", stem="separable"),
    BN,
    replace(BN, name="googlenet.torchvision", use="photos; carries torchvision's weights", form="torchvision"),
    replace(BN, name="googlenet.cifar", use="small images, 32x32 and below", stem="cifar", classes=10, size=32),
)
