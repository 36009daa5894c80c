"""ResNet [arXiv:1512.03385]: units that learn a residual, and the plain networks that they are compared with.

    unit:  x -> conv-bn-relu ... conv-bn -> (+ shortcut) -> relu        [Fig. 5]

Shortcuts where the width changes [Sec. 3.3 and 4.1]: "A" zero-padded identity, "B" 1x1 projection, "C" projections
everywhere; None is a plain network.
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import Net, Residual, ZeroPad, classifier, conv_bn, conv_bn_act, seq
from . import init
from .spec import Arch, family, register


@family
@dataclass(frozen=True, kw_only=True)
class ResNet(Arch):
    """`depths` are the units per stage, `width` the channels of the first stage (doubled in each further one).

    `stride_in` is the kernel of the bottleneck's convolution that carries the stride: the first 1x1 as in the paper,
    or the 3x3 ("v1.5").  `stem` is "imagenet" (7x7/2 and a max pool) or "cifar" (3x3).

    With a `cardinality` the 3x3 of the bottleneck is grouped, in the first stage into that many groups of `group_width`
    channels: ResNeXt [arXiv:1611.05431, Table 1].
    """

    SE_AT = "stage*.*.res.body"

    depths: tuple[int, ...]
    bottleneck: bool = False
    shortcut: str | None = "A"
    stride_in: int = 1
    width: int = 64
    stem: str = "imagenet"
    cardinality: int = 1
    group_width: int = 64

    def assemble(self) -> Net:
        """Weights begin as in the paper's reference [13]: He."""
        c = self.width
        if self.stem == "imagenet":
            parts = {"stem": conv_bn_act(self.in_channels, c, 7, stride=2), "pool": nn.MaxPool2d(3, 2, 1)}
        else:
            parts = {"stem": conv_bn_act(self.in_channels, c, 3)}
        for i, depth in enumerate(self.depths):
            units = []
            for j in range(depth):
                unit, c = self.unit(c, self.width * 2**i, stride=2 if i > 0 and j == 0 else 1)
                units.append(unit)
            parts[f"stage{i + 1}"] = nn.Sequential(*units)
        return init.he(Net(parts | {"head": classifier(c, self.classes)}))

    def unit(self, cin: int, width: int, stride: int) -> tuple[nn.Module, int]:
        """One unit and the number of channels that it puts out."""
        if self.bottleneck:
            cout, inner = 4 * width, self.cardinality * self.group_width * width // 64
            on_1x1, on_3x3 = (stride, 1) if self.stride_in == 1 else (1, stride)
            body = seq(
                conv1=conv_bn_act(cin, inner, 1, stride=on_1x1),
                conv2=conv_bn_act(inner, inner, 3, stride=on_3x3, groups=self.cardinality),
                conv3=conv_bn(inner, cout, 1),
            )
        else:
            cout = width
            body = seq(conv1=conv_bn_act(cin, width, 3, stride=stride), conv2=conv_bn(width, width, 3))
        if self.shortcut is None:
            return seq(body=body, act=nn.ReLU(inplace=True)), cout
        return seq(res=Residual(body, self.skip(cin, cout, stride)), act=nn.ReLU(inplace=True)), cout

    def skip(self, cin: int, cout: int, stride: int) -> nn.Module | None:
        """The shortcut of a unit; None is the identity."""
        if stride == 1 and cin == cout and self.shortcut != "C":
            return None
        return ZeroPad(cin, cout, stride) if self.shortcut == "A" else conv_bn(cin, cout, 1, stride=stride)


def imagenet(depth: int, *depths: int, bottleneck: bool) -> ResNet:
    """One column of Table 1.  Its FLOPs are those of shortcut A in 18 and 34 and of B in the deeper ones."""
    return ResNet(
        name=f"resnet{depth}",
        paper="arXiv:1512.03385",
        use="photos; the paper's network",
        depths=depths,
        bottleneck=bottleneck,
        shortcut="B" if bottleneck else "A",
    )


def cifar(depth: int) -> ResNet:
    """The network of Sec. 4.2 with 6n + 2 layers: three stages of n units, 16, 32 and 64 channels."""
    n = (depth - 2) // 6
    use = "small images, 32x32 and below; the paper's CIFAR-10 network"
    return ResNet(name=f"resnet{depth}", paper="arXiv:1512.03385", use=use, depths=(n, n, n), width=16, stem="cifar",
                  classes=10, size=32)  # fmt: skip


def plain(arch: ResNet) -> ResNet:
    """The same network without shortcuts, as in the paper's comparisons [Fig. 4, Fig. 6]."""
    use = "to see what shortcuts do: the same layers without them"
    return replace(arch, name=arch.name.replace("resnet", "plain"), use=use, shortcut=None)


BASIC = (imagenet(18, 2, 2, 2, 2, bottleneck=False), imagenet(34, 3, 4, 6, 3, bottleneck=False))
BOTTLENECK = (
    imagenet(50, 3, 4, 6, 3, bottleneck=True),
    imagenet(101, 3, 4, 23, 3, bottleneck=True),
    imagenet(152, 3, 8, 36, 3, bottleneck=True),
)
SHORTCUT_B = tuple(replace(a, name=f"{a.name}.b", shortcut="B", use="photos; as torchvision and timm") for a in BASIC)
SHORTCUT_C = tuple(
    replace(a, name=f"{a.name}.c", shortcut="C", use="to compare shortcuts [Table 3]") for a in (*BASIC, *BOTTLENECK)
)
V1_5 = tuple(
    replace(a, name=f"{a.name}.v1_5", stride_in=3, use="photos; stride in the 3x3, as torchvision and timm")
    for a in BOTTLENECK
)
CIFAR = tuple(cifar(depth) for depth in (20, 32, 44, 56, 110, 1202))
CIFAR_B = tuple(replace(a, name=f"{a.name}.b", shortcut="B", use="small images, with projections") for a in CIFAR)
RESNEXT = tuple(
    replace(a, name=a.name.replace("resnet", "resnext") + "_32x4d", paper="arXiv:1611.05431",
            use="photos; grouped convolutions: more accurate than a ResNet of the same cost", stride_in=3,
            cardinality=32, group_width=4)
    for a in BOTTLENECK[:2]
)  # fmt: skip
PLAIN = tuple(plain(a) for a in (*BASIC, *CIFAR[:-1]))
register(*BASIC, *BOTTLENECK, *SHORTCUT_B, *SHORTCUT_C, *V1_5, *CIFAR, *CIFAR_B, *PLAIN, *RESNEXT)
