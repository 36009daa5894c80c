"""Squeeze-and-Excitation [arXiv:1709.01507]: every channel is scaled by a number in (0, 1) that all channels decide.

    x * sigmoid(fc2(relu(fc1(mean of every channel of x))))        [eq. 2 to 4]

It goes into any network: on the output of a module, in a residual unit before the addition [Fig. 2, 3].  So the
networks here are values: another family's network and an `SE`.  Only SENet-154 is a network of its own.
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import SE, Net, Residual, classifier, conv_bn, conv_bn_act, seq
from . import (  # noqa: F401 - they register the networks that SE goes into
    bn_inception,
    densenet,
    googlenet,
    inception_v3,
    init,
    mobilenet_v1,
    mobilenet_v2,
    preact_resnet,
    resnet,
    shufflenet,
    vgg,
)
from .spec import Arch, family, register, spec

PAPER = "arXiv:1709.01507"
R16 = SE(16, bias=False)  # the paper's; its tables count no biases [Sec. 6]
R4 = SE(4, bias=False)  # for units of few channels: 16 and 32 would be squeezed into one or two numbers


@family
@dataclass(frozen=True, kw_only=True)
class SENet154(Arch):
    """The network of ILSVRC 2017 [Table 8, appendix]: ResNeXt-152 of 64 groups of 4 channels, with

    - half the channels in the first 1x1 of every unit;
    - three 3x3 for the 7x7 of the stem, the last with 128 channels, and a max pool without padding, as released;
    - 3x3 / 2 for the 1x1 / 2 of the projections;
    - dropout 0.2 before the last layer.

    154 layers: 3 in the stem, 3 in each of the 50 units, 1 in the head.
    """

    SE_AT = "stage*.*.res.body"

    def assemble(self) -> Net:
        """Weights begin as the paper says [Sec. 5.1]: He."""
        stem = seq(
            conv1=conv_bn_act(self.in_channels, 64, 3, stride=2),
            conv2=conv_bn_act(64, 64, 3),
            conv3=conv_bn_act(64, 128, 3),
        )
        parts, c = {"stem": stem, "pool": nn.MaxPool2d(3, 2, ceil_mode=True)}, 128
        for i, depth in enumerate((3, 8, 36, 3)):
            units = []
            for j in range(depth):
                units.append(unit(c, 256 * 2**i, stride=2 if i > 0 and j == 0 else 1))
                c = 256 * 2**i
            parts[f"stage{i + 1}"] = nn.Sequential(*units)
        return init.he(Net(parts | {"head": classifier(c, self.classes, dropout=0.2)}))


def unit(cin: int, cout: int, stride: int) -> nn.Sequential:
    """A bottleneck of SENet-154.  Its shortcut is a 3x3 where it strides, a 1x1 where only the width changes."""
    body = seq(
        conv1=conv_bn_act(cin, cout // 2, 1),
        conv2=conv_bn_act(cout // 2, cout, 3, stride=stride, groups=64),
        conv3=conv_bn(cout, cout, 1),
    )
    skip = None if cin == cout else conv_bn(cin, cout, 3 if stride > 1 else 1, stride=stride)
    return seq(res=Residual(body, skip), act=nn.ReLU(inplace=True))


def with_se(base: str, se: SE, use: str, suffix: str = "") -> Arch:
    """A registered network with Squeeze-and-Excitation."""
    return replace(spec(base), name=f"se_{base}{suffix}", paper=PAPER, use=use, se=se)


SENET154 = SENet154(name="senet154", paper=PAPER, use="photos; the released winner of ILSVRC 2017", se=SE(16))
RESNET = tuple(
    with_se(base, R16, "photos; a ResNet that weighs its channels")
    for base in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d")
)
RELEASED = tuple(
    with_se(base, SE(16), "photos; with biases in the gates, as released", ".bias")
    for base in ("resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d")
)
PEERS = tuple(
    with_se(base, SE(16), f"photos; as {peer}", ".bias")
    for base, peer in (
        ("resnet18.b", "pytorchcv"),
        ("resnet34.b", "pytorchcv"),
        ("resnet50.v1_5", "timm and pytorchcv"),
    )
)
ABLATIONS = tuple(
    with_se("resnet50", replace(R16, **changes), use, f".{suffix}")
    for suffix, changes, use in (
        *((f"r{r}", {"reduction": r}, f"reduction {r} [Table 10]") for r in (2, 4, 8, 32)),
        ("max", {"squeeze": "max"}, "the squeeze takes maxima [Table 11]"),
        ("relu", {"excite": "relu"}, "ReLU for the sigmoid [Table 12]"),
        ("tanh", {"excite": "tanh"}, "tanh for the sigmoid [Table 12]"),
        *((f"stage{s}", {"at": f"stage{s - 1}.*.res.body"}, f"only in the paper's stage {s} [Table 13]")
          for s in (2, 3, 4)),
        ("pre", {"first": True}, "before the residual branch [Table 14, SE-PRE]"),
        ("post", {"at": "stage*.*"}, "after the addition and its ReLU [Table 14, SE-POST]"),
        ("identity", {"at": "stage*.*.res.skip"}, "on the shortcut [Table 14, SE-Identity]"),
        ("3x3", {"at": "stage*.*.res.body.conv2"}, "right after the 3x3 [Table 15]"),
        ("no_squeeze", {"squeeze": None}, "a gate for every pixel, not for the image [Table 16]"),
        ("single_fc", {"reduction": None}, "one fully connected layer without a bottleneck"),
    )
)  # fmt: skip
CIFAR = tuple(
    with_se(f"resnet{depth}", R4, "small images; a CIFAR ResNet that weighs its channels")
    for depth in (20, 32, 44, 56, 110)
)
OTHERS = tuple(
    with_se(base, se, use)
    for base, se, use in (
        ("vgg16_bn", R16, "to see SE in a network without shortcuts [Table 2]"),
        ("googlenet", R16, "photos; SE on the output of every module, without BatchNorm"),
        ("bn_inception.608", R16, "photos; SE on the output of every module [Table 2]"),
        ("inception_v3", R16, "photos; SE on the output of every module"),
        ("preact_resnet110", R16, "small images; the paper's SE-ResNet-110 [Tables 4 and 5]"),
        ("preact_resnet164", R16, "small images; the paper's SE-ResNet-164 [Tables 4 and 5]"),
        ("densenet121", R4, "to see SE in the layers of a dense block"),
        ("mobilenet_v1", R16, "photos; more accurate than MobileNet at 0.6% more operations [Table 3]"),
        ("mobilenet_v2", R4, "photos; SE before the addition of an inverted residual"),
        ("shufflenet.g3", R16, "photos; more accurate than ShuffleNet at 2% more operations [Table 3]"),
    )
)
register(*RESNET, *RELEASED, *PEERS, *ABLATIONS, SENET154, *CIFAR, *OTHERS)
