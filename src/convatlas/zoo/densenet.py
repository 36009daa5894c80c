"""DenseNet [arXiv:1608.06993]: every layer sees the feature maps of all layers before it, and adds a few of its own.

    layer:       x -> [x, conv3x3(relu(bn(x)))]                    [eq. 2; Fig. 1]
    transition:  x -> avgpool2x2(conv1x1(relu(bn(x))))             [Sec. 3; Fig. 2]

DenseNet-B has a 1x1 bottleneck in each layer, DenseNet-C compresses in the transitions, DenseNet-BC does both.
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import Concat, Net, bn_act_conv, classifier, conv, conv_bn_act, seq
from . import init
from .spec import Arch, family, register


@family
@dataclass(frozen=True, kw_only=True)
class DenseNet(Arch):
    """`depths` are the layers of each dense block; each adds `growth_rate` channels to the `width` of the stem.

    With `bottleneck` a 1x1 convolution to 4 x `growth_rate` channels comes before the 3x3.  A transition puts out
    `theta` times its channels, rounded down.  `stem` is "imagenet" (7x7/2 and a max pool) or "cifar" (3x3, whose
    BatchNorm and ReLU are those of the first layer).  `dropout` is the rate after every convolution but the stem's.
    """

    SE_AT = "block*.*.new"

    growth_rate: int
    depths: tuple[int, ...]
    width: int
    bottleneck: bool = True
    theta: float = 0.5
    stem: str = "imagenet"
    dropout: float = 0.0

    def assemble(self) -> Net:
        """Weights begin as in the authors' densenet.lua: He, counted over the outputs, and the FC layer's bias 0."""
        c = self.width
        if self.stem == "imagenet":
            parts = {"stem": conv_bn_act(self.in_channels, c, 7, stride=2), "pool": nn.MaxPool2d(3, 2, 1)}
        else:
            parts = {"stem": seq(conv=conv(self.in_channels, c, 3))}
        for i, depth in enumerate(self.depths, 1):
            if i > 1:
                compressed = int(self.theta * c)
                parts[f"transition{i - 1}"] = self.transition(c, compressed)
                c = compressed
            parts[f"block{i}"] = nn.Sequential(*(self.layer(c + j * self.growth_rate) for j in range(depth)))
            c += depth * self.growth_rate
        parts["final"] = seq(norm=nn.BatchNorm2d(c), act=nn.ReLU(inplace=True))
        head = classifier(c, self.classes)
        nn.init.zeros_(head.get_parameter("fc.bias"))
        return init.he(Net(parts | {"head": head}))

    def layer(self, cin: int) -> Concat:
        """One layer of a dense block: (N, cin, H, W) -> (N, cin + growth_rate, H, W)."""
        k, inner = self.growth_rate, 4 * self.growth_rate
        if self.bottleneck:
            new = seq(
                conv1=bn_act_conv(cin, inner, 1),
                drop1=self.drop(),
                conv2=bn_act_conv(inner, k, 3),
                drop2=self.drop(),
            )
        else:
            new = seq(conv=bn_act_conv(cin, k, 3), drop=self.drop())
        return Concat(x=nn.Identity(), new=new)

    def transition(self, cin: int, cout: int) -> nn.Sequential:
        """Between two dense blocks: (N, cin, H, W) -> (N, cout, H / 2, W / 2)."""
        return seq(conv=bn_act_conv(cin, cout, 1), drop=self.drop(), pool=nn.AvgPool2d(2))

    def drop(self) -> nn.Module | None:
        """Dropout, if the network has it."""
        return nn.Dropout(self.dropout) if self.dropout else None


def imagenet(depth: int, *depths: int, k: int = 32, use: str = "photos; the paper's network") -> DenseNet:
    """One column of Table 1, all of them DenseNet-BC."""
    return DenseNet(
        name=f"densenet{depth}", paper="arXiv:1608.06993", use=use, growth_rate=k, depths=depths, width=2 * k
    )


def cifar(kind: str, depth: int, k: int, use: str = "small images, 32x32 and below") -> DenseNet:
    """The network of Sec. 4.2 with `depth` layers: three dense blocks after 16 channels, or 2k in DenseNet-BC.

    `kind` is "", "b", "c" or "bc"; all layers but the stem, two transitions and the FC layer are in the blocks.
    """
    n = (depth - 4) // (6 if "b" in kind else 3)
    return DenseNet(
        name=f"densenet{f'_{kind}' if kind else ''}{depth}_k{k}",
        paper="arXiv:1608.06993",
        use=use,
        growth_rate=k,
        depths=(n, n, n),
        width=2 * k if kind == "bc" else 16,
        bottleneck="b" in kind,
        theta=0.5 if "c" in kind else 1.0,
        stem="cifar",
        classes=10,
        size=32,
    )


IMAGENET = (
    imagenet(121, 6, 12, 24, 16),
    imagenet(169, 6, 12, 32, 32),
    imagenet(201, 6, 12, 48, 32),
    imagenet(264, 6, 12, 64, 48),
    imagenet(161, 6, 12, 36, 24, k=48, use="photos; the widest of the authors' released weights"),
)
CIFAR = (cifar("", 40, 12), cifar("", 100, 12), cifar("", 100, 24))
CIFAR_BC = (cifar("bc", 100, 12), cifar("bc", 250, 24), cifar("bc", 190, 40))
HALF = (
    cifar("b", 100, 12, use="to see what the bottleneck alone does [Fig. 4]"),
    cifar("c", 100, 12, use="to see what compression alone does [Fig. 4]"),
)
DROPOUT = tuple(
    replace(a, name=f"{a.name}.dropout", use="small images, trained without augmentation", dropout=0.2)
    for a in (CIFAR[0], CIFAR_BC[0])
)
register(*IMAGENET, *CIFAR, *CIFAR_BC, *HALF, *DROPOUT)
