"""What a shortcut does where the dimensions change [arXiv:1512.03385, Sec. 3.3, 4.1 and Table 3]."""

from itertools import pairwise

from ...tree import cost
from ...zoo import spec
from ..experiment import Experiment, Fact, better
from ..pictures import DOTS, PALETTE, dots
from ..trials import Lab, values

SHORTCUTS = {"plain: none": None, "A: zero padding": "A", "B: 1x1 at changes": "B", "C: 1x1 everywhere": "C"}
PLAIN, A, B, C = SHORTCUTS
WIDTHS, DEPTHS = (64, 128, 256, 512), (3, 4, 6, 3)  # of ResNet-34


def projection(cin: int, cout: int) -> int:
    """Parameters of a 1x1 convolution without bias and its BatchNorm."""
    return cin * cout + 2 * cout


def exact() -> list[Fact]:
    plain, a, b, c = (cost(spec("resnet34", shortcut=kind).skeleton()) for kind in SHORTCUTS.values())
    body, skip = (b.outputs[f"stage2.0.res.{branch}"] for branch in ("body", "skip"))
    at_changes = sum(projection(cin, cout) for cin, cout in pairwise(WIDTHS))
    elsewhere = sum(n * projection(w, w) for w, n in zip(WIDTHS, DEPTHS, strict=True))
    elsewhere -= sum(projection(w, w) for w in WIDTHS[1:])
    return [
        Fact("parameters of ResNet-34 with A, B, C",
             [x.params for x in (a, b, c)], [21_623_848, 21_797_672, 22_716_840]),
        Fact("parameters and MACs of A beyond those of the plain network",
             [a.params - plain.params, a.macs - plain.macs], [0, 0]),
        Fact("parameters of B beyond A: sum of cin cout + 2 cout at the 3 changes", b.params - a.params, at_changes),
        Fact("parameters of C beyond B: sum of c^2 + 2c at the 13 other units", c.params - b.params, elsewhere),
        Fact("channels and side behind the 1x1 with stride 2, as behind the body",
             [skip.c, skip.h], [body.c, body.h]),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    arms = {name: lab.spec("resnet20", shortcut=kind, width=8) for name, kind in SHORTCUTS.items()}
    return {
        "accuracy": values(lab.trials(arms), "accuracy"),
        "params": {name: cost(arch.skeleton(), lab.size).params for name, arch in arms.items()},
    }


def judge(measured: dict) -> list:
    plain, a, b, c = (measured["accuracy"][name] for name in SHORTCUTS)
    gain = [x - y for x, y in zip(a, plain, strict=True)]
    choice = [x - y for x, y in zip(c, a, strict=True)]
    return [
        better("test accuracy, B less A", b, a),
        better("gain by shortcuts (A less plain), less gain by projections (C less A)", gain, choice),
    ]


def draw(figure, measured: dict) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    dots(left, measured["accuracy"], "test accuracy", percent=True)
    left.set_title("ResNet-20, 8 channels wide")
    params = [count / 1000 for count in measured["params"].values()]
    bars = right.barh(range(len(params)), params, 0.55, color=PALETTE[: len(params)], alpha=0.8)
    right.bar_label(bars, [f"{count:.1f}" for count in params], padding=3, size=8)
    right.set(xlabel="parameters, thousands", title="What it costs", yticks=[], ylim=left.get_ylim(),
              xlim=(0, 1.2 * max(params)))  # fmt: skip
    right.grid(visible=False, axis="y")
    right.set_axisbelow(True)


EXPERIMENT = Experiment(
    number=8,
    name="shortcut-options",
    claim="Where the dimensions change, a 1x1 projection (B) fits width and size and is more accurate than zero padding"
    " (A), but which of the shortcuts it is matters less than that there is one.",
    notes="（当维度不一致时，使用 1x1 的卷积核去调整维度以及 feature map 的大小。）",
    source="arXiv:1512.03385, Sec. 3.3 and Table 3",
    refuted_if="the counts differ, A is more accurate than B, or projections gain more over A than A over none",
    reading=DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
)
