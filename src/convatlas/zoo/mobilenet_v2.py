"""MobileNet v2 [arXiv:1801.04381]: inverted residuals, thin at their ends and wide inside, with linear bottlenecks.

unit:  x -> 1x1 expand-bn-relu6 -> 3x3 depthwise-bn-relu6 -> 1x1 project-bn (-> + x)        [Table 1, Fig. 4d]
"""

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import NamedTuple

from torch import nn

from ..tree import Net, Residual, batch_norm_eps, classifier, conv_bn, conv_bn_act, same_padding, seq
from . import init
from .spec import Arch, family, register

STAGES = (  # expansion factor t, channels c, units n, stride s of the first unit [Table 2]
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Unit(NamedTuple):
    """The channels at the ends and inside of a unit, and its stride."""

    stage: int
    cin: int
    inner: int
    cout: int
    stride: int


@family
@dataclass(frozen=True, kw_only=True)
class MobileNetV2(Arch):
    """`width` multiplies all channels, except that the last convolution never has fewer than 1280.

    `linear` leaves out the activation after the projection; without it the network is the other curve of Fig. 6a.
    `shortcut` joins "bottlenecks", the thin ends, or "expansions", the wide maps inside, or nothing (None) [Fig. 6b].
    Between expansions, each unit is cut one layer later, depthwise-project-expand, so a stage ends expanded.

    `stem` is "imagenet" or "cifar": with stride 1, as then has stage 2.  `tensorflow` is the form of the authors'
    release and of keras.applications: TensorFlow's padding where a convolution has a stride, 1e-3 added to variances.
    """

    SE_AT = "stage*.*.body"

    width: float = 1.0
    linear: bool = True
    shortcut: str | None = "bottlenecks"
    stem: str = "imagenet"
    tensorflow: bool = False

    def assemble(self) -> Net:
        """Weights begin as in the authors' release, N(0, 0.09^2) cut at two deviations, and dropout is as there: the
        paper does not say.  Its last 1x1 convolution is a linear layer here.
        """
        units = self.units()
        last = max(1280, divisible(1280 * self.width))
        stages = {f"stage{i}": nn.Sequential() for i in range(1, len(STAGES) + 1)}
        for unit, after in zip_longest(units, units[1:]):
            stages[f"stage{unit.stage}"].append(self.module(unit, after))
        stem = {"stem": relu6(self.in_channels, units[0].cin, 3, stride=2 if self.stem == "imagenet" else 1)}
        ends = {"conv": relu6(units[-1].cout, last), "head": classifier(last, self.classes, dropout=0.2)}
        net = init.truncated(Net(stem | stages | ends), 0.09)
        return batch_norm_eps(same_padding(net), 1e-3) if self.tensorflow else net

    def units(self) -> list[Unit]:
        """The rows of Table 2, a unit each."""
        units, c = [], divisible(32 * self.width)
        for i, (t, width, depth, stride) in enumerate(STAGES, 1):
            for j in range(depth):
                keeps = j > 0 or (self.stem == "cifar" and i == 2)
                units.append(Unit(i, c, t * c, divisible(width * self.width), 1 if keeps else stride))
                c = units[-1].cout
        return units

    def module(self, unit: Unit, after: Unit | None) -> nn.Module:
        """One unit; `after` is the one behind it."""
        project = conv_bn if self.linear else relu6
        layers = {
            "depthwise": relu6(unit.inner, unit.inner, 3, stride=unit.stride, groups=unit.inner),
            "project": project(unit.inner, unit.cout),
        }
        if self.shortcut == "expansions":
            same = after is not None and unit.inner == after.inner
            body = seq(**layers, expand=expansion(after))
        else:
            same = unit.cin == unit.cout
            body = seq(expand=expansion(unit), **layers)
        return Residual(body) if self.shortcut and same and unit.stride == 1 else seq(body=body)


def expansion(unit: Unit | None) -> nn.Module | None:
    """The 1x1 convolution at the beginning of a unit.  With t = 1 there is none: only then 300M MACs come out."""
    return None if unit is None or unit.inner == unit.cin else relu6(unit.cin, unit.inner)


def relu6(cin: int, cout: int, k: int = 1, **kw) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU6."""
    return conv_bn_act(cin, cout, k, act=nn.ReLU6, **kw)


def divisible(c: float) -> int:
    """The multiple of 8 nearest to c, but none below 90% of it."""
    nearest = max(8, int(c + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * c else nearest + 8


PAPER = MobileNetV2(
    name="mobilenet_v2", paper="arXiv:1801.04381", use="photos; small, cheap and accurate: the first choice on a phone"
)
SCALED = tuple(
    replace(
        PAPER, name="mobilenet_v2.x" + f"{width}".replace(".", "_"), width=width, use=f"photos; {width}x the channels"
    )
    for width in (0.35, 0.5, 0.75, 1.3, 1.4)
)
ABLATED = (
    replace(PAPER, name="mobilenet_v2.nonlinear", linear=False, use="to see what linear bottlenecks do [Fig. 6a]"),
    replace(PAPER, name="mobilenet_v2.expansions", shortcut="expansions",
            use="to see what inverting the residual does: shortcuts between the wide maps [Fig. 6b]"),
    replace(PAPER, name="mobilenet_v2.no_shortcut", shortcut=None, use="to see what shortcuts do [Fig. 6b]"),
)  # fmt: skip
KERAS = replace(PAPER, name="mobilenet_v2.keras", tensorflow=True, use="photos; as the release and keras.applications")
CIFAR = replace(PAPER, name="mobilenet_v2.cifar", stem="cifar", classes=10, size=32,
                use="small images, 32x32 and below")  # fmt: skip
register(PAPER, *SCALED, *ABLATED, KERAS, CIFAR)
