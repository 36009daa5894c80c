"""ShuffleNet [arXiv:1707.01083]: 1x1 convolutions in groups, and a shuffle of channels so that the groups mix.

unit:  1x1 group conv-bn-relu -> shuffle -> 3x3 depthwise-bn -> 1x1 group conv-bn        [Fig. 2b, 2c]
       stride 1: + x, relu;    stride 2: beside the 3x3 average pool of x, relu
"""

from dataclasses import dataclass, replace
from itertools import product

from torch import nn

from ..tree import Concat, Net, Residual, Shuffle, classifier, conv_bn, conv_bn_act, seq
from . import init
from .spec import Arch, family, register

WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # of stage 2, by the number of groups [Table 1]
STEMS = {0.25: 12, 0.5: 12, 1: 24, 1.5: 24, 2: 48}  # only with these do the printed complexities come out


@family
@dataclass(frozen=True, kw_only=True)
class ShuffleNet(Arch):
    """`width` are the channels of stage 2, doubled in each further one; `depths` the units of the three stages.

    `stem` is "imagenet" (3x3/2 and a max pool) or "cifar" (3x3), of `stem_width` channels.  A width that a group
    convolution cannot divide is rounded up to the next multiple of `groups`: the bottleneck, and the stem's.
    """

    SE_AT = "stage*.*.*.body"

    groups: int
    width: int
    stem_width: int = 24
    depths: tuple[int, int, int] = (4, 8, 4)
    shuffle: bool = True
    stem: str = "imagenet"

    def assemble(self) -> Net:
        """Weights begin as in ResNeXt, whose settings the paper follows [Sec. 4]: He."""
        c = self.divisible(self.stem_width)
        if self.stem == "imagenet":
            parts = {"stem": conv_bn_act(self.in_channels, c, 3, stride=2), "pool": nn.MaxPool2d(3, 2, 1)}
        else:
            parts = {"stem": conv_bn_act(self.in_channels, c, 3)}
        for i, depth in enumerate(self.depths):
            units, cout = [], self.width * 2**i
            for j in range(depth):
                units.append(self.unit(c, cout, stride=2 if j == 0 else 1, first=i == j == 0))
                c = cout
            parts[f"stage{i + 2}"] = nn.Sequential(*units)
        return init.he(Net(parts | {"head": classifier(c, self.classes)}))

    def unit(self, cin: int, cout: int, stride: int, first: bool) -> nn.Module:
        """The bottleneck has a quarter of the unit's channels.  The very first 1x1 sees too few to be grouped."""
        inner = self.divisible(cout / 4)
        body = seq(
            conv1=conv_bn_act(cin, inner, 1, groups=1 if first else self.groups),
            shuffle=Shuffle(self.groups) if self.shuffle and self.groups > 1 else None,
            conv2=conv_bn(inner, inner, 3, stride=stride, groups=inner),
            conv3=conv_bn(inner, cout - cin if stride == 2 else cout, 1, groups=self.groups),
        )
        if stride == 2:
            return seq(mix=Concat(skip=nn.AvgPool2d(3, 2, 1), body=body), act=nn.ReLU(inplace=True))
        return seq(res=Residual(body), act=nn.ReLU(inplace=True))

    def divisible(self, c: float) -> int:
        """The smallest multiple of `groups` that is not below c."""
        return -int(-c // self.groups) * self.groups


def cell(groups: int, scale: float) -> ShuffleNet:
    """One cell of Table 2 or 5: `scale` multiplies the widths of all stages."""
    scaled = "" if scale == 1 else ".x" + f"{scale}".replace(".", "_")
    grouped = "not grouped" if groups == 1 else f"{groups} groups"
    return ShuffleNet(
        name=f"shufflenet.g{groups}{scaled}",
        paper="arXiv:1707.01083",
        use=f"photos; {grouped}, {scale}x the channels" if scaled else f"photos; small and cheap, {grouped}",
        groups=groups,
        width=round(WIDTHS[groups] * scale),
        stem_width=STEMS[scale],
    )


CELLS = tuple(cell(groups, scale) for groups, scale in product(WIDTHS, STEMS))
NO_SHUFFLE = tuple(
    replace(cell(groups, scale), name=f"{cell(groups, scale).name}.noshuffle", shuffle=False,
            use="to see what the shuffle does: the groups never mix [Table 3]")
    for groups, scale in product((3, 8), (0.25, 0.5, 1))
)  # fmt: skip
SHALLOW = replace(cell(3, 0.5), name="shufflenet.g3.x0_5.shallow", depths=(2, 4, 2),
                  use="half of the units: 26 layers for 50 [Sec. 4.3]")  # fmt: skip
CIFAR = replace(cell(3, 1), name="shufflenet.g3.cifar", stem="cifar", classes=10, size=32,
                use="small images, 32x32 and below")  # fmt: skip
register(*CELLS, *NO_SHUFFLE, SHALLOW, CIFAR)
