"""Pre-activation ResNet [arXiv:1603.05027]: nothing but additions is left on the way from the first unit to the last.

    unit:  x -> bn-relu-conv ... bn-relu-conv -> (+ x)        [Fig. 4e]

The units it is compared with are here too: other orders of the same layers [Fig. 4] and other shortcuts [Fig. 2].
"""

from dataclasses import dataclass, replace

from torch import nn

from ..errors import ConfigError
from ..tree import Gate, Highway, Net, Residual, Scale, ZeroPad, classifier, conv, seq
from . import init
from .spec import Arch, family, register

KERNELS = {1: (3,), 2: (3, 3), 3: (1, 3, 1)}  # of a unit with so many convolutions
BOTH = ("norm", "act")
# Between two convolutions of a unit there always are a BN and a ReLU.  The remaining BN and ReLU are before the first
# convolution, behind the last one, or behind the addition [Fig. 4a to e].
ORDERS = {
    "original": ((), ("norm",), ("act",)),
    "bn_after_addition": ((), (), BOTH),
    "relu_before_addition": ((), BOTH, ()),
    "relu_only_preactivation": (("act",), ("norm",), ()),
    "full_preactivation": (BOTH, (), ()),
}
GATED = ("exclusive_gating", "shortcut_only_gating")
SHORTCUTS = ("identity", "constant_scaling", "frozen_gating", *GATED, "conv_shortcut", "dropout_shortcut")  # [Table 1]


@family
@dataclass(frozen=True, kw_only=True)
class PreActResNet(Arch):
    """`depths` are the units per stage, `width` the channels of the first stage (doubled in each further one).

    A unit has 1, 2 or 3 `layers`, 3 being the bottleneck; `stride_in` is the kernel of its convolution that carries the
    stride.  `stem` is "imagenet" (7x7/2 and a max pool) or "cifar" (3x3).  The first BN and ReLU are in the stem, as in
    the paper; `first_act` can also put them into the first "unit", behind the pool, or into "both".

    `order` is a name in ORDERS, `shortcut` one in SHORTCUTS, `gate_bias` the b with which gates begin.  Where the
    width changes, units of 1 or 2 layers pad with zero channels, bottlenecks project.  Raises ConfigError for another
    order or shortcut.
    """

    SE_AT = "stage*.*.res.body"

    depths: tuple[int, ...]
    layers: int = 3
    order: str = "full_preactivation"
    shortcut: str = "identity"
    gate_bias: float = 0.0
    stride_in: int = 1
    first_act: str = "stem"
    width: int = 64
    stem: str = "imagenet"

    def __post_init__(self):
        for value, known in ((self.order, ORDERS), (self.shortcut, SHORTCUTS)):
            if value not in known:
                raise ConfigError("L2", f"{self.name} cannot have {value!r}", f"choose one of {', '.join(known)}")

    def assemble(self) -> Net:
        """Weights begin as He's [Appendix], the last layer's biases at 0 as in KaimingHe/resnet-1k-layers."""
        c, (before, _, _) = self.width, ORDERS[self.order]
        first_act = leaves(() if self.first_act == "unit" else BOTH, c)
        if self.stem == "imagenet":
            first = conv(self.in_channels, c, 7, stride=2)
            parts = {"stem": seq(conv=first, **first_act), "pool": nn.MaxPool2d(3, 2, 1)}
        else:
            parts = {"stem": seq(conv=conv(self.in_channels, c, 3), **first_act)}
        for i, depth in enumerate(self.depths):
            units = []
            for j in range(depth):
                pre = () if i == j == 0 and self.first_act == "stem" else before
                unit, c = self.unit(c, self.width * 2**i, 2 if i > 0 and j == 0 else 1, pre)
                units.append(unit)
            parts[f"stage{i + 1}"] = nn.Sequential(*units)
        if before:
            parts["final"] = seq(**leaves(before, c))
        head = classifier(c, self.classes)
        nn.init.zeros_(head.get_parameter("fc.bias"))
        net = init.he(Net(parts | {"head": head}))
        for m in net.modules():
            if isinstance(m, Highway | Gate):  # a Gate is 1 - sigmoid(z) = sigmoid(-z)
                bias = self.gate_bias if isinstance(m, Highway) else -self.gate_bias
                nn.init.constant_(m.get_parameter("gate.conv.bias"), bias)
        return net

    def unit(self, cin: int, width: int, stride: int, before: tuple[str, ...]) -> tuple[nn.Module, int]:
        """One unit, which begins with the leaves `before`, and the number of channels that it puts out."""
        _, behind, after = ORDERS[self.order]
        cout = 4 * width if self.layers == 3 else width
        strided = 2 if self.layers == 3 and self.stride_in == 3 else 1
        convs, c = {}, cin
        for i, k in enumerate(KERNELS[self.layers], 1):
            c_next, then = (cout, behind) if i == self.layers else (width, BOTH)
            layer = conv(c, c_next, k, stride=stride if i == strided else 1)
            convs[f"conv{i}"], c = seq(conv=layer, **leaves(then, c_next)), c_next
        scale = Scale(0.5) if self.shortcut == "frozen_gating" else None
        pre = leaves(before, cin, in_place="norm" in before)  # a ReLU alone would overwrite what the shortcut reads
        projects = self.shortcut == "conv_shortcut" or (self.layers == 3 and cin != cout)
        shared, own = (pre, {}) if projects else ({}, pre)  # projections read the pre-activated input too [Appendix]
        body, skip = seq(**own, **convs, scale=scale), self.skip(cin, cout, stride, projects)
        if self.shortcut == "exclusive_gating":
            res = Highway(body, gate(cin, cout, stride), skip)
        else:
            res = Residual(body, skip)
        return seq(**shared, res=res, **leaves(after, cout)), cout

    def skip(self, cin: int, cout: int, stride: int, projects: bool) -> nn.Module | None:
        """The shortcut of a unit; None is the identity.  A projection has a BN where the body ends with one."""
        _, behind, _ = ORDERS[self.order]
        path = None if (cin, stride) == (cout, 1) else ZeroPad(cin, cout, stride)
        if projects:
            norm = nn.BatchNorm2d(cout) if "norm" in behind else None
            path = seq(conv=conv(cin, cout, stride=stride), norm=norm)
        match self.shortcut:
            case "constant_scaling" | "frozen_gating":
                return seq(path=path, scale=Scale(0.5))
            case "shortcut_only_gating":  # zero channels need no gate
                return seq(gate=Gate(gate(cin, cin, 1)), path=path)
            case "dropout_shortcut":
                return seq(path=path, drop=nn.Dropout(0.5))
        return path


def leaves(names: tuple[str, ...], c: int, in_place: bool = True) -> dict[str, nn.Module]:
    """A BN and a ReLU, one of them, or none."""
    return {name: nn.BatchNorm2d(c) if name == "norm" else nn.ReLU(inplace=in_place) for name in names}


def gate(cin: int, cout: int, stride: int) -> nn.Sequential:
    """sigmoid(W x + b), a number for every pixel and channel [Sec. 3.1]."""
    return seq(conv=conv(cin, cout, stride=stride, bias=True), sigmoid=nn.Sigmoid())


def cifar(depth: int, layers: int) -> PreActResNet:
    """Three stages of 16, 32 and 64 channels, of four times as many in bottlenecks [Appendix]."""
    n, use = (depth - 2) // (3 * layers), "small images, 32x32 and below; full pre-activation"
    return PreActResNet(name=f"preact_resnet{depth}", paper="arXiv:1603.05027", use=use, depths=(n, n, n),
                        layers=layers, width=16, stem="cifar", classes=10, size=32)  # fmt: skip


def imagenet(depth: int, *depths: int) -> PreActResNet:
    """Bottlenecks as in ResNet's Table 1; 200 layers have 16 more of them than 152 [Sec. 5]."""
    use = "photos; full pre-activation"
    return PreActResNet(name=f"preact_resnet{depth}", paper="arXiv:1603.05027", use=use, depths=depths)


def original(arch: PreActResNet) -> PreActResNet:
    """The same network with the original units."""
    use = "to see what pre-activation does"
    return replace(arch, name=arch.name.removeprefix("preact_"), use=use, order="original")


def variant(arch: PreActResNet, suffix: str, use: str, **fields) -> PreActResNet:
    """The same network with other values of some fields."""
    return replace(arch, name=f"{arch.name}.{suffix}", use=use, **fields)


P110, P164, P1001 = cifar(110, 2), cifar(164, 3), cifar(1001, 3)
P50, P101 = imagenet(50, 3, 4, 6, 3), imagenet(101, 3, 4, 23, 3)
P152, P200 = imagenet(152, 3, 8, 36, 3), imagenet(200, 3, 24, 36, 3)
ORDERED = tuple(
    variant(original(arch), order, "to compare orders [Fig. 4]", order=order)
    for arch, orders in ((P110, list(ORDERS)[1:4]), (P164, list(ORDERS)[1:4]), (P101, ["bn_after_addition"]))
    for order in orders
)
CONNECTED = tuple(  # gates begin with the best bias that the paper found
    variant(original(P110), shortcut, "to compare shortcuts [Table 1]", shortcut=shortcut,
            gate_bias=-6.0 if shortcut in GATED else 0.0)
    for shortcut in SHORTCUTS[1:]
)  # fmt: skip
ONE_LAYER = tuple(
    variant(arch, "one_layer", "units of one layer [Table 3]", depths=(36, 36, 36), layers=1)
    for arch in (P110, original(P110))
)
RELEASED = (
    *(variant(a, "pytorchcv", "photos; for pytorchcv's weights", first_act="both") for a in (P50, P101, P152, P200)),
    variant(P164, "pytorchcv", "small images; for pytorchcv's weights", first_act="unit", stride_in=3),
    *(variant(a, "timm", "photos; for timm's weights", first_act="unit", stride_in=3) for a in (P50, P101, P152)),
    variant(P200, "v1_5", "photos; stride in the 3x3, as fb.resnet.torch", stride_in=3),
)
register(P110, P164, P1001, P50, P101, P152, P200, *map(original, (P164, P1001, P200)))  # resnet110 is in `resnet`
register(*ORDERED, *CONNECTED, *ONE_LAYER, *RELEASED)
