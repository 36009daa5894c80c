"""BN-Inception [arXiv:1502.03167]: GoogLeNet with BatchNorm, and two 3x3 convolutions in the place of each 5x5.

    module:            x -> [1x1 | 1x1, 3x3 | 1x1, 3x3, 3x3 | 3x3 pool, 1x1] -> concatenation       [Appendix, Fig. 5]
    stride-2 module:   x -> [1x1, 3x3/2 | 1x1, 3x3, 3x3/2 | 3x3/2 max pool] -> concatenation

Two 3x3 see what one 5x5 sees, with 18 C^2 instead of 25 C^2 weights.
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import Concat, Net, SamePad, classifier, conv_bn_act, seq
from . import init
from .googlenet import stem
from .spec import Arch, family, register

MODULES = {  # 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool proj [Fig. 5]; without the ends: stride 2
    "inception3a": (64, 64, 64, 64, 96, 32),
    "inception3b": (64, 64, 96, 64, 96, 64),
    "inception3c": (0, 128, 160, 64, 96, 0),
    "inception4a": (224, 64, 96, 96, 128, 128),
    "inception4b": (192, 96, 128, 96, 128, 128),
    "inception4c": (160, 128, 160, 128, 160, 128),
    "inception4d": (96, 128, 192, 160, 192, 128),
    "inception4e": (0, 128, 192, 192, 256, 0),
    "inception5a": (352, 192, 320, 160, 224, 128),
    "inception5b": (352, 192, 320, 192, 224, 128),
}
TOO_WIDE = ("inception4c", "inception4d")  # 608 channels in Fig. 5, which prints 576 behind them
MAX_POOL = "inception5b"  # the others average


@family
@dataclass(frozen=True, kw_only=True)
class BNInception(Arch):
    """`proj` is the width of the pool projection in modules 4c and 4d: 96 gives the 576 channels that Fig. 5 prints
    behind them, 128 is what it prints inside.  `stem` as GoogLeNet's.
    """

    SE_AT = "inception*"

    proj: int = 96
    stem: str = "imagenet"

    def assemble(self) -> Net:
        """Weights begin as in the authors' later release (TF-slim): He's by fan in."""
        parts, c = stem(self.stem, self.in_channels, conv_bn_act), 192
        for name, (*widths, proj) in MODULES.items():
            if proj:
                pool = nn.MaxPool2d(3, 1, 1) if name == MAX_POOL else nn.AvgPool2d(3, 1, 1)
                parts[name], c = module(c, widths, pool, self.proj if name in TOO_WIDE else proj)
            else:
                parts[name], c = reduction(c, widths)
        return init.he(Net(parts | {"head": classifier(c, self.classes)}), "fan_in")


def module(cin: int, widths: list[int], pool: nn.Module, proj: int) -> tuple[Concat, int]:
    """A module that keeps the map, and the number of channels that it puts out."""
    one, reduce3, three, reduce_double, double = widths
    branches = Concat(
        one=conv_bn_act(cin, one),
        three=seq(reduce=conv_bn_act(cin, reduce3), conv=conv_bn_act(reduce3, three, 3)),
        double3x3=seq(
            reduce=conv_bn_act(cin, reduce_double),
            conv1=conv_bn_act(reduce_double, double, 3),
            conv2=conv_bn_act(double, double, 3),
        ),
        pool=seq(pool=pool, proj=conv_bn_act(cin, proj)),
    )
    return branches, one + three + double + proj


def reduction(cin: int, widths: list[int]) -> tuple[Concat, int]:
    """A module that halves the map: stride 2 in the last 3x3 of each branch, and a max pool that keeps all channels.

    The pool pads as TensorFlow, so that its map is as large as that of the convolutions at every input size.
    """
    _, reduce3, three, reduce_double, double = widths
    branches = Concat(
        three=seq(reduce=conv_bn_act(cin, reduce3), conv=conv_bn_act(reduce3, three, 3, stride=2)),
        double3x3=seq(
            reduce=conv_bn_act(cin, reduce_double),
            conv1=conv_bn_act(reduce_double, double, 3),
            conv2=conv_bn_act(double, double, 3, stride=2),
        ),
        pool=seq(pad=SamePad(3, 2), pool=nn.MaxPool2d(3, 2)),
    )
    return branches, three + double + cin


FULL = BNInception(
    name="bn_inception", paper="arXiv:1502.03167", use="photos; the paper's Fig. 5 with an ordinary first convolution"
)
register(
    FULL,
    replace(FULL, name="bn_inception.separable", use="photos; the first convolution separable, as trained in the paper",
            stem="separable"),
    replace(FULL, name="bn_inception.608", use="Fig. 5 to the letter: the network of SENet's paper", proj=128),
    replace(FULL, name="bn_inception.cifar", use="small images, 32x32 and below", stem="cifar", classes=10, size=32),
)  # fmt: skip
