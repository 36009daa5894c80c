"""What goes through a bottleneck: ResNet's is thin inside, MobileNet v2's at its ends [arXiv:1801.04381, Fig. 3]."""

from fractions import Fraction
from typing import Any

from ...tree import Cost, cost
from ...tree.draw.paint import INK, MUTED
from ...zoo import spec
from ..experiment import Experiment, Fact
from ..pictures import PALETTE
from ..trials import Lab

UNITS = {"ResNet-50": ("resnet50", "stage2.1.res.body"), "MobileNet v2": ("mobilenet_v2", "stage3.1.body")}  # 28x28


def folded(name: str) -> Cost:
    """The cost of a registered network at its own size."""
    return cost(spec(name).skeleton())


def body(network: Cost, path: str) -> list[int]:
    """The channels that enter a unit, and those behind each of its convolutions."""
    convolutions = [row for row in network.rows if row.path.startswith(f"{path}.") and row.kind == "Conv2d"]
    return [network.inputs[path].c, *(row.shape[0] for row in convolutions)]


def identities(network: Cost) -> list[list[int]]:
    """The bodies of all units whose shortcut is the identity."""
    paths = [p for p in network.outputs if p.endswith(".body") and network.inputs[p].shape == network.outputs[p].shape]
    return [body(network, path) for path in paths]


def widening(channels: list[int]) -> Fraction:
    """The channels of the 3x3 over those at the ends."""
    return Fraction(channels[2], channels[0])


def between(network: Cost) -> int:
    """Bytes, at 16 bits a value, of the largest map that one unit hands to the next."""
    units = [out for path, out in network.outputs.items() if path.startswith("stage") and path.count(".") == 1]
    return max(unit.elements for unit in units) * 2


def largest(network: Cost) -> int:
    """Bytes, at 16 bits a value, of the largest map of all."""
    return max(row.elements for row in network.rows) * 2


def exact() -> list[Fact]:
    resnet, v1, v2 = (folded(name) for name in ("resnet50", "mobilenet_v1", "mobilenet_v2"))
    return [
        Fact("ResNet-50's identity units by channels of the 3x3 over those at the ends",
             sorted({str(ratio) for ratio in map(widening, identities(resnet))}), ["1/4"]),
        Fact("MobileNet v2's", sorted({str(ratio) for ratio in map(widening, identities(v2))}), ["6"]),
        Fact("such units, of 16 and of 17", [len(identities(resnet)), len(identities(v2))], [12, 10]),
        Fact("a unit of ResNet-50 on 28x28", body(resnet, UNITS["ResNet-50"][1]), [512, 128, 128, 512]),
        Fact("a unit of MobileNet v2 on 28x28", body(v2, UNITS["MobileNet v2"][1]), [32, 192, 192, 32]),
        Fact("largest map between units, KB at 16 bits, of MobileNet v1 and v2, to two digits [Table 3]",
             [round(between(v1) / 1000, -2), round(between(v2) / 1000, -2)], [1600, 400]),
        Fact("largest map in MobileNet v2, bytes: six times that, unless it is made in pieces [Sec. 5.1]",
             largest(v2), 6 * between(v2)),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    shapes = {name: body(folded(arch), path) for name, (arch, path) in UNITS.items()}
    memory = {name: [between(net), largest(net), net.live // 2] for name, net in
              {"ResNet-50": folded("resnet50"), "MobileNet v1": folded("mobilenet_v1"),
               "MobileNet v2": folded("mobilenet_v2")}.items()}  # fmt: skip
    return {"shapes": shapes, "memory": memory}


def judge(measured: dict) -> list:
    return []


def hourglass(axes: Any, channels: list[int], colour: str) -> None:
    """The channels through a unit as the height of a body, layer by layer, and its shortcut."""
    half = [c / 2 for c in channels]
    axes.fill_between(range(4), [-h for h in half], half, color=colour, alpha=0.3, linewidth=0)
    axes.vlines(range(4), [-h for h in half], half, color=colour, linewidth=5)
    for x, c in enumerate(channels):
        axes.annotate(str(c), (x, -275), ha="center", va="top", size=8, color=INK)
    arrow = {"arrowstyle": "->", "color": MUTED, "connectionstyle": "arc3,rad=-0.5", "shrinkA": 3, "shrinkB": 3}
    axes.annotate("", (3, half[-1]), (0, half[0]), arrowprops=arrow)
    axes.set_xticks([0.5, 1.5, 2.5], ["1x1", "3x3", "1x1"])
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-0.4, 3.4), ylim=(-330, 480), yticks=[])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)


def draw(figure, measured: dict) -> None:
    *units, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    for axes, colour, (name, channels) in zip(units, PALETTE, measured["shapes"].items(), strict=False):
        hourglass(axes, channels, colour)
        axes.set_title(name)
        axes.set_xlabel("channels, layer by layer")
    kinds = ("between units", "largest map", "alive at once")
    for i, (kind, colour) in enumerate(zip(kinds, PALETTE[2:], strict=False)):
        rows = [row + 0.25 * (i - 1) for row in range(len(measured["memory"]))]
        bars = right.barh(
            rows, [sizes[i] / 1e6 for sizes in measured["memory"].values()], 0.22, color=colour, label=kind
        )
        right.bar_label(bars, fmt="%.1f", size=7, padding=2, color=INK)
    right.set_yticks(range(len(measured["memory"])), list(measured["memory"]))
    right.set(ylim=(4.1, -0.5), xlabel="MB at 16 bits, eager, 224x224 image", title="Memory of activations")
    right.tick_params(axis="y", length=0, labelcolor=INK)
    right.grid(visible=False, axis="y")
    right.margins(x=0.15)
    right.legend(loc="lower right", fontsize=7)


EXPERIMENT = Experiment(
    number=15,
    name="bottleneck-shapes",
    claim="ResNet narrows its units before the 3x3 convolution, to a quarter; MobileNet v2 widens them, sixfold,"
    " and hands thinner maps from unit to unit.",
    notes="最大的区别在于 ResNet 在 3x3 卷积前是降维，而 MobileNet 是升维。",
    source="arXiv:1512.03385, Fig. 5; arXiv:1801.04381, Fig. 3, Table 3 and Sec. 5.1",
    refuted_if="a unit of the real networks has other widths, or the maps between units are no smaller",
    reading="A shape is as high as its unit has channels there. Memory is of the activations of one image.",
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    size=(8.4, 3.2),
)
