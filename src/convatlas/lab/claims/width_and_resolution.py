"""MobileNet's two multipliers, width alpha and resolution rho [arXiv:1704.04861, Sec. 3.3, 3.4 and 4.2]."""

import statistics
from fractions import Fraction
from itertools import product

from torch import nn

from ...papers.audit import check
from ...papers.tables import figures
from ...tree import Cost, Net, cost
from ...zoo import Arch, spec
from ..experiment import Experiment, Fact, Finding, better
from ..pictures import DOTS, PALETTE, column
from ..trials import Lab, values

ALPHAS = (1.0, 0.75, 0.5, 0.25)
SIZES = (224, 192, 160, 128)  # px
TABLES = ("Table 6", "Table 7", "Table 9")  # of the paper
DECADES = (10, 20, 50, 100, 200, 500)  # million multiply-adds
WIDTH = 0.25  # of the small networks: their alpha = 1


def folded(alpha: float, size: int) -> Cost:
    """The cost of MobileNet v1 with these multipliers."""
    return cost(spec("mobilenet_v1", width=alpha).skeleton(), size)


def macs(network: Cost, name: str) -> int:
    """Multiply-adds of its convolutions of some name, "pointwise" or "depthwise"; of all ("")."""
    return sum(row.macs for row in network.rows if row.kind == "Conv2d" and name in row.path)


def exact() -> list[Fact]:
    grid = {(alpha, size): folded(alpha, size) for alpha, size in product(ALPHAS, SIZES)}
    full = grid[1.0, 224]
    tables = [figure for figure in figures() if figure.paper == "MobileNetV1" and figure.where in TABLES]
    printed = [check(figure) for figure in tables if figure.quantity in ("macs", "params")]
    ratio = {(alpha, size): macs(each, "") / macs(full, "") / (alpha * size / 224) ** 2
             for (alpha, size), each in grid.items()}  # fmt: skip
    return [
        Fact("figures of the paper's Tables 6, 7 and 9 that these networks have, to the digits printed",
             sum(f.verdict == "agrees" for f in printed), len(printed)),
        *(Fact(f"multiply-adds of {name} convolutions, alpha^{power} rho^2 of those at 1 and 224: in 16 networks",
               sum(Fraction(macs(each, name), macs(full, name)) == Fraction(alpha) ** power * Fraction(size, 224) ** 2
                   for (alpha, size), each in grid.items()), 16)
          for name, power in (("pointwise", 2), ("depthwise", 1))),
        Fact("multiply-adds of all convolutions for alpha^2 rho^2: the same at every resolution",
             all(round(ratio[alpha, size], 9) == round(ratio[alpha, 224], 9) for alpha, size in grid), True),
        Fact("least and greatest of these ratios within 1.0 and 1.2",
             round(min(ratio.values()), 9) >= 1 and max(ratio.values()) < 1.2, True),
    ]  # fmt: skip


def network(arch: Arch, rho: float) -> Net:
    """A network behind a shrinking of the image, as if that had been smaller."""
    net, side = arch.build(), round(rho * arch.size)
    return Net({"shrink": nn.AdaptiveAvgPool2d(side), **{part: net.get_submodule(part) for part in net.parts}})


def measure(lab: Lab) -> dict:
    alphas, rhos = ((1, 0.5, 0.25), (1, 0.75, 0.5)) if lab.full else ((1, 0.5), (1, 0.5))
    arms = {}
    for alpha, rho in product(alphas, rhos):
        arch = lab.spec("mobilenet_v1.cifar", width=alpha * WIDTH, depths=(1, 1, 1, 1, 1))
        arms[f"alpha {alpha:g}, rho {rho:g}"] = lab.built(f"{alpha} {rho}", lambda _, a=arch, r=rho: network(a, r))
    return {
        "macs": {name: cost(arch.skeleton(), arch.size, arch.in_channels).macs for name, arch in arms.items()},
        "accuracy": values(lab.trials(arms), "accuracy"),
    }


def judge(measured: dict) -> list[Finding]:
    accuracy = measured["accuracy"]
    full = accuracy["alpha 1, rho 1"]
    return [
        better("test accuracy, full less half width", full, accuracy["alpha 0.5, rho 1"]),
        better("test accuracy, full less half resolution", full, accuracy["alpha 1, rho 0.5"]),
    ]


def draw(figure, measured: dict) -> None:
    left, right = figure.subplots(1, 2)
    for size, colour in zip(SIZES, PALETTE, strict=False):
        left.plot(ALPHAS, [folded(alpha, size).macs / 1e6 for alpha in ALPHAS], "o", color=colour, label=f"{size} px")
        left.plot(ALPHAS, [folded(1.0, 224).macs / 1e6 * (alpha * size / 224) ** 2 for alpha in ALPHAS], color=colour)
    left.set(xscale="log", yscale="log", xlabel="alpha", ylabel="million multiply-adds",
             title="MobileNet v1; lines: alpha² rho²")  # fmt: skip
    left.set_xticks(ALPHAS, [f"{alpha:g}" for alpha in ALPHAS])
    left.set_yticks(DECADES, [str(tick) for tick in DECADES])
    left.minorticks_off()
    left.legend(fontsize=7)
    rhos = sorted({name.split(", ")[1] for name in measured["accuracy"]}, reverse=True)
    for rho, colour in zip(rhos, PALETTE[4:], strict=False):
        arms = [name for name in measured["accuracy"] if name.endswith(rho)]
        xs, samples = [measured["macs"][arm] / 1e6 for arm in arms], [measured["accuracy"][arm] for arm in arms]
        right.plot(xs, [statistics.mean(each) for each in samples], color=colour, label=rho)
        for x, each, arm in zip(xs, samples, arms, strict=True):
            column(right, x, each, colour)
            side, offset = ("left", 7) if rho == rhos[0] else ("right", -7)
            right.annotate(arm.split(",")[0], (x, min(each)), (offset, 0), textcoords="offset points", va="center",
                           ha=side, size=7)  # fmt: skip
    right.set(xscale="log", xlabel="million multiply-adds", ylabel="test accuracy", title="Small networks, trained")
    right.xaxis.set_major_formatter("{x:g}")
    right.yaxis.set_major_formatter("{x:.0%}")
    right.margins(0.4, 0.2)
    right.set_ylim(top=1.005)
    right.legend(loc="lower right", fontsize=7)


EXPERIMENT = Experiment(
    number=12,
    name="width-and-resolution",
    claim="The multipliers of width, alpha, and of resolution, rho, scale the multiply-adds by about their squares, and"
    " accuracy falls with both.",
    notes="文中通过设置缩小因子 α 统一的减少 channel 数到 αC。",
    source="arXiv:1704.04861, Sec. 3.3, 3.4 and 4.2, Tables 6 and 7",
    refuted_if="the counts are not the published ones, or are a fifth off the squares, or half the width or resolution"
    " is more accurate",
    reading="On the right a line joins the means. " + DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
)
