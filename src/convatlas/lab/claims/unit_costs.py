"""ShuffleNet's unit against the bottleneck that it comes from [arXiv:1707.01083, Sec. 3.2, Fig. 2a and 2b]."""

import statistics
from functools import partial

import torch
from torch import nn

from ...tree import Net, Shuffle, cost, fold_batch_norm
from ...zoo import spec
from ...zoo.shufflenet import WIDTHS, cell
from ..experiment import Experiment, Fact, Finding
from ..pictures import PALETTE, TURNS, percents, ratios
from ..timing import race_of, times_as_long
from ..trials import Lab

C, SIDE = 480, 14  # channels and px of the units that are timed; a width that 2, 3, 4 and 8 groups divide
STAGES = {"stage2": (1, 28), "stage3": (2, 14), "stage4": (4, 7)}  # times the width, px of the maps [Table 1]
GROUPED = tuple(g for g in WIDTHS if g > 1)


def formula(c: int, m: int, groups: int, side: int) -> int:
    """Multiply-adds by the notes, H W (2 C_in C_out / g + 3^2 C_out), where C_in is c, the channels at both ends of the
    unit, and C_out is m, those of the bottleneck inside.
    """
    return side * side * (2 * c * m // groups + 9 * m)


def fewer(groups: int) -> float:
    """How many times fewer multiply-adds than with one group the units have that are timed."""
    return formula(C, C // 4, 1, SIDE) / formula(C, C // 4, groups, SIDE)


def unit(groups: int) -> nn.Module:
    """ShuffleNet's unit of stride 1 without its norms, folded for inference; one group is the bottleneck of Fig. 2a."""
    return fold_batch_norm(Net({"unit": cell(groups, 1).unit(C, C, stride=1, first=False), "head": nn.Identity()}))


def exact() -> list[Fact]:
    facts = []
    for g, width in WIDTHS.items():
        net = spec(f"shufflenet.g{g}").skeleton()
        counted = [cost(net.get_submodule(f"{stage}.1"), side, k * width).macs for stage, (k, side) in STAGES.items()]
        said = [formula(k * width, k * width // 4, g, side) for k, side in STAGES.values()]
        figure = "Fig. 2a: (a)" if g == 1 else "Fig. 2b: (b)"
        facts.append(Fact(f"multiply-adds of the units of stages 2, 3, 4, g = {g}, {figure}", counted, said))
    shuffles = [row for row in cost(unit(3), SIDE, C).rows if row.kind == "Shuffle"]
    inverted = cost(spec("mobilenet_v2").skeleton().get_submodule("stage4.1"), 14, 64)
    return [
        *facts,
        Fact("multiply-adds and parameters of the shuffle", [(row.macs, row.params) for row in shuffles], [(0, 0)]),
        Fact("multiply-adds of MobileNet v2's unit, wide inside, 64 -> 384 -> 64: (a) too",
             inverted.macs, formula(64, 384, 1, 14)),
    ]  # fmt: skip


@torch.inference_mode()
def measure(lab: Lab) -> dict:
    generator = torch.Generator().manual_seed(0)
    ends, inside = (torch.randn(16, c, SIDE, SIDE, generator=generator) for c in (C, C // 4))
    units = {f"unit {g}": partial(unit(g), ends) for g in WIDTHS}
    shuffles = {f"shuffle {g}": partial(Shuffle(g), inside) for g in GROUPED}
    seconds = race_of(units, seconds=10) | race_of(shuffles, seconds=1)
    return {"seconds": {name: [round(t, 6) for t in taken[:200]] for name, taken in seconds.items()}}


def judge(measured: dict) -> list[Finding]:
    seconds = measured["seconds"]
    return [
        times_as_long(
            f"time of the bottleneck (a) for that of the unit (b), g = {g} (multiply-adds: {fewer(g):.2f})",
            seconds["unit 1"],
            seconds[f"unit {g}"],
        )
        for g in GROUPED
    ]


def draw(figure, measured: dict) -> None:
    seconds = measured["seconds"]
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.plot(GROUPED, [fewer(g) for g in GROUPED], "--", color=PALETTE[-1], label="multiply-adds")
    ratios(left, {g: (seconds["unit 1"], seconds[f"unit {g}"]) for g in GROUPED}, PALETTE[0],
           "time on this machine: median, quartiles")  # fmt: skip
    left.axhline(1, color=PALETTE[1], linewidth=1)
    left.annotate("equal", (GROUPED[-1], 1), (0, -10), textcoords="offset points", ha="right", size=8, color=PALETTE[1])
    left.set(xlabel=f"groups g of a unit, {C} channels on {SIDE}x{SIDE}", ylabel="bottleneck / ShuffleNet unit",
             yscale="log", ylim=(0.5, 16), title="What grouping the 1x1 saves")  # fmt: skip
    left.set_yticks([0.5, 1, 2, 4, 8], ["1/2", "1x", "2x", "4x", "8x"])
    left.legend(loc="upper left")
    unit_time = {g: statistics.median(seconds[f"unit {g}"]) for g in GROUPED}
    shuffle_time = {g: seconds[f"shuffle {g}"] for g in GROUPED}
    ratios(right, {g: (taken, [unit_time[g]] * len(taken)) for g, taken in shuffle_time.items()}, PALETTE[3], "")
    percents(right.yaxis)
    right.set(xlabel="groups g", ylabel="of the unit's time", ylim=(0, None), title="What the shuffle costs")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(GROUPED, list(map(str, GROUPED)))
        axes.minorticks_off()


EXPERIMENT = Experiment(
    number=18,
    name="unit-costs",
    claim="1x1 convolutions in g groups bring the bottleneck with a depthwise 3x3 from H W (2 C_in C_out + 9 C_out)"
    " multiply-adds down to H W (2 C_in C_out / g + 9 C_out), and its time down, the shuffle included.",
    notes="图 (a) 就是 MobileNet v2 的基本单元，复杂度为 HW(2 C_in C_out + D_k² C_out)；图 (b) 是 ShuffleNet 的"
    "基本单元，复杂度为 HW(2 C_in C_out/g + D_k² C_out) + shuffle cost",
    source="arXiv:1707.01083, Sec. 3.2, Fig. 2a and 2b",
    refuted_if="a unit's count differs from the formula, or with some g the unit takes more time",
    reading=TURNS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
)
