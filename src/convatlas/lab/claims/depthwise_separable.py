"""MobileNet's argument for taking a convolution apart [arXiv:1704.04861, Sec. 3.1]: its price, and its time."""

from dataclasses import replace
from fractions import Fraction

import torch
from torch import nn

from ...tree import Cost, cost
from ...zoo import spec
from ...zoo.mobilenet_v1 import PAPER
from ..experiment import Experiment, Fact, Finding
from ..pictures import PALETTE, TURNS, ratios
from ..timing import race, times_as_long
from ..trials import Lab

SIDE = 28  # px, of the maps that are timed
WIDTHS = (16, 32, 64, 128, 256, 512)  # channels, in and out
FORMS = {"standard": False, "separable": True}


def unit(cin: int, cout: int, separable: bool) -> nn.Module:
    """A unit of MobileNet v1, 3x3, with its BatchNorms and ReLUs; or the one convolution that it stands for."""
    return replace(PAPER, separable=separable).unit(cin, cout, stride=1)


def times_fewer(c: int) -> float:
    """By which factor a separable 3x3 has fewer multiply-adds, at c channels out."""
    return 1 / (1 / c + 1 / 9)


def macs(folded: Cost, path: str) -> int:
    """Multiply-adds of a module."""
    return sum(row.macs for row in folded.rows if row.path.startswith(f"{path}."))


def exact() -> list[Fact]:
    whole, apart = (cost(spec(name).skeleton()) for name in ("mobilenet_v1.conv", "mobilenet_v1"))
    units = [path for path in apart.outputs if path.startswith("stage") and path.count(".") == 1]
    saved = {path: Fraction(macs(apart, path), macs(whole, path)) for path in units}
    formula = {path: Fraction(1, apart.outputs[path].c) + Fraction(1, 9) for path in units}
    example = {form: cost(unit(3, 16, separable), SIDE) for form, separable in FORMS.items()}
    return [
        Fact("weights of a 3x3, 3 -> 16 channels", example["standard"].total("weights"), 432),
        Fact("weights of it taken apart: depthwise, pointwise",
             [row.weights for row in example["separable"].rows if row.kind == "Conv2d"], [27, 48]),
        Fact("MobileNet v1's units whose multiply-adds are 1/C_out + 1/9 of a 3x3's, of 13",
             sum(saved[path] == formula[path] for path in units), 13),
        Fact("times fewer multiply-adds in its units, least and greatest, rounded",
             [round(float(1 / of(saved.values()))) for of in (max, min)], [8, 9]),
        Fact("multiply-adds of the whole network, times fewer", round(whole.macs / apart.macs, 1),
             round(4866 / 569, 1)),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    seconds = {}
    for c in WIDTHS:
        images = torch.randn(1, c, SIDE, SIDE, generator=torch.Generator().manual_seed(c))
        times = race({form: unit(c, c, separable) for form, separable in FORMS.items()}, images, seconds=1.5)
        seconds[str(c)] = {form: [round(t, 7) for t in taken[:200]] for form, taken in times.items()}
    return {"seconds": seconds}


def judge(measured: dict) -> list[Finding]:
    return [
        times_as_long(
            f"time of the standard convolution for the separable one's, {c} channels"
            f" (multiply-adds: {times_fewer(int(c)):.1f})",
            taken["standard"],
            taken["separable"],
        )
        for c, taken in measured["seconds"].items()
    ]


def draw(figure, measured: dict) -> None:
    axes = figure.subplots()
    axes.plot(WIDTHS, [times_fewer(c) for c in WIDTHS], "--", color=PALETTE[-1], label="multiply-adds")
    pairs = {int(c): (taken["standard"], taken["separable"]) for c, taken in measured["seconds"].items()}
    ratios(axes, pairs, PALETTE[0], "time on this machine: median, quartiles")
    axes.axhline(1, color=PALETTE[1], linewidth=1)
    axes.annotate("equal", (WIDTHS[-1], 1), (0, 4), textcoords="offset points", ha="right", size=8, color=PALETTE[1])
    axes.set_xscale("log", base=2)
    axes.set_xticks(WIDTHS, [str(c) for c in WIDTHS])
    axes.set(xlabel=f"channels, in and out, of a {SIDE}x{SIDE} map", ylabel="standard / separable", ylim=(0, None),
             title="Fewer multiply-adds, and how much less time")  # fmt: skip
    axes.legend(loc=(0.03, 0.42))


EXPERIMENT = Experiment(
    number=11,
    name="depthwise-separable",
    claim="A depthwise separable convolution needs 1/C_out + 1/k^2 of the multiply-adds of a standard one, 8 to 9 times"
    " fewer at 3x3, and less time.",
    notes="对 3x3 的卷积核来说 一般计算量减少约8~9倍。",
    source="arXiv:1704.04861, Sec. 3.1; Table 4",
    refuted_if="the counts differ from the formula, or at some width it takes more time",
    reading=TURNS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
)
