"""MobileNet v1 [arXiv:1704.04861]: a 3x3 convolution taken apart into a depthwise and a 1x1 (pointwise) one.

    unit:  x -> 3x3 depthwise-bn-relu -> 1x1-bn-relu        [Fig. 3]

For C channels in and N out that costs 1/N + 1/9 of the MACs of a 3x3 convolution [Sec. 3.1].
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import Net, batch_norm_eps, classifier, conv_bn_act, same_padding, seq
from . import init
from .spec import Arch, family, register

WIDTHS = (64, 128, 256, 512, 1024)  # of the five stages [Table 1]


@family
@dataclass(frozen=True, kw_only=True)
class MobileNetV1(Arch):
    """`depths` are the units per stage; `width` is the width multiplier alpha, which scales all channels.  The
    resolution multiplier rho is just another `size`.

    Without `separable` every unit is one 3x3 convolution: the network that the paper compares with [Table 4].  `stem`
    is "imagenet" or "cifar": with stride 1, as then has stage 2.  `tensorflow` is the form of the authors' release and
    of keras.applications: ReLU6, TensorFlow's padding where a convolution has a stride, 1e-3 added to the variances.
    """

    SE_AT = "stage*.*"

    depths: tuple[int, int, int, int, int] = (1, 2, 2, 6, 2)
    width: float = 1.0
    separable: bool = True
    stem: str = "imagenet"
    tensorflow: bool = False

    def assemble(self) -> Net:
        """Weights begin as in the authors' release, N(0, 0.09^2) cut at two deviations; the paper does not say."""
        stride, *strides = (2, 1, 2, 2, 2, 2) if self.stem == "imagenet" else (1, 1, 1, 2, 2, 2)
        c = round(32 * self.width)
        parts = {"stem": self.layer(self.in_channels, c, 3, stride=stride)}
        for i, (channels, depth) in enumerate(zip(WIDTHS, self.depths, strict=True)):
            units = []
            for j in range(depth):
                units.append(self.unit(c, round(channels * self.width), stride=strides[i] if j == 0 else 1))
                c = round(channels * self.width)
            parts[f"stage{i + 1}"] = nn.Sequential(*units)
        net = init.truncated(Net(parts | {"head": classifier(c, self.classes)}), 0.09)
        return batch_norm_eps(same_padding(net), 1e-3) if self.tensorflow else net

    def unit(self, cin: int, cout: int, stride: int) -> nn.Module:
        """A convolution, taken apart or whole."""
        if not self.separable:
            return self.layer(cin, cout, 3, stride=stride)
        return seq(
            depthwise=self.layer(cin, cin, 3, stride=stride, groups=cin),
            pointwise=self.layer(cin, cout, 1),
        )

    def layer(self, cin: int, cout: int, k: int, **kw) -> nn.Sequential:
        """Convolution, BatchNorm, ReLU or ReLU6: so is every layer but the last [Sec. 3.2]."""
        return conv_bn_act(cin, cout, k, act=nn.ReLU6 if self.tensorflow else nn.ReLU, **kw)


PAPER = MobileNetV1(name="mobilenet_v1", paper="arXiv:1704.04861", use="photos; small and cheap, for a phone")
SCALED = tuple(
    replace(PAPER, name=f"mobilenet_v1.x{width}".replace("0.", "0_"), width=width, use=f"photos; {width} as wide")
    for width in (0.75, 0.5, 0.25)
)
COMPARED = (
    replace(PAPER, name="mobilenet_v1.conv", separable=False, use="to see what taking convolutions apart saves"),
    replace(PAPER, name="mobilenet_v1.shallow", depths=(1, 2, 2, 1, 2), use="to see what depth does at equal cost"),
)
KERAS = replace(PAPER, name="mobilenet_v1.keras", tensorflow=True, use="photos; as the release and keras.applications")
CIFAR = replace(
    PAPER, name="mobilenet_v1.cifar", stem="cifar", classes=10, size=32, use="small images, 32x32 and below"
)
register(PAPER, *SCALED, *COMPARED, KERAS, CIFAR)
