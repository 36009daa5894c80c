"""ShuffleNet's shuffle: what passes between groups, and what that is worth [arXiv:1707.01083, Sec. 3.1, Table 3]."""

import statistics
from dataclasses import replace
from functools import partial

from torch import nn

from ...tree import Net, classifier, conv_bn_act
from ...tree.draw.paint import INK
from ...zoo.shufflenet import WIDTHS, ShuffleNet, cell
from ..depends import Matrix, depends
from ..experiment import Experiment, Fact, Finding, better
from ..pictures import DOTS, PALETTE, column
from ..trials import Lab, values

UNITS = 3  # of a stage
SHUFFLED = {"without shuffle": False, "with shuffle": True}
COLOURS = {"": PALETTE[-1], "without shuffle": PALETTE[1], "with shuffle": PALETTE[0]}
GROUPED = tuple(g for g in WIDTHS if g > 1)


def network(arch: ShuffleNet, images) -> Net:
    """For small images: the first two stages of a ShuffleNet behind a 3x3/2, three units in each."""
    c = arch.divisible(arch.stem_width)
    parts: dict[str, nn.Module] = {"stem": conv_bn_act(images.in_channels, c, 3, stride=2)}
    for stage, cout in enumerate((arch.width, 2 * arch.width)):
        units = nn.Sequential()
        for j in range(UNITS):
            units.append(arch.unit(c, cout, stride=2 if j == 0 else 1, first=stage == j == 0))
            c = cout
        parts[f"stage{stage + 2}"] = units
    return Net(parts | {"head": classifier(c, images.classes)})


def seen(groups: int, shuffle: bool, units: int = 1, stride: int = 1) -> Matrix:
    """Which groups of a stack's output see which of its input: units of stage 2 at 1x."""
    arch = replace(cell(groups, 1), shuffle=shuffle)
    cout = arch.width * stride
    stack = [arch.unit(arch.width, cout, stride, first=False) for _ in range(units)]
    return depends(nn.Sequential(*stack), arch.width, groups)


def sources(matrix: Matrix) -> list[list[int]]:
    """For every group of the output the groups of the input that it sees."""
    return [[j for j, sees in enumerate(row) if sees] for row in matrix]


def exact() -> list[Fact]:
    facts = []
    for g in GROUPED:
        apart, mixed = (sources(seen(g, shuffle, units)) for shuffle, units in ((False, UNITS), (True, 1)))
        facts += [
            Fact(
                f"g = {g}: groups that each sees through {UNITS} units without shuffle", apart, [[i] for i in range(g)]
            ),
            Fact(f"g = {g}: how many each sees through a single unit with it", list(map(len, mixed)), [g] * g),
        ]
    halving = sources(seen(2, shuffle=False, stride=2))
    return [
        *facts,
        Fact("g = 2: groups that each sees through a unit that halves the map, without", halving, [[0, 1]] * 2),
    ]


def measure(lab: Lab) -> dict:
    arms = {"g = 1": lab.built("g = 1", partial(network, cell(1, 0.25)))} if lab.full else {}
    for g in GROUPED if lab.full else (3, 8):  # those of Table 3
        for how, shuffle in SHUFFLED.items():
            name = f"g = {g}, {how}"
            arms[name] = lab.built(name, partial(network, replace(cell(g, 0.25), shuffle=shuffle)))
    return {
        "accuracy": values(lab.trials(arms), "accuracy"),
        "seen": {how: seen(8, shuffle, UNITS) for how, shuffle in SHUFFLED.items()},
    }


def means(accuracy: dict, how: str) -> list[float]:
    """For every seed the mean over the numbers of groups."""
    return [
        statistics.mean(seed) for seed in zip(*(a for arm, a in accuracy.items() if arm.endswith(how)), strict=True)
    ]


def judge(measured: dict) -> list[Finding]:
    shuffled, kept_apart = (means(measured["accuracy"], how) for how in ("with shuffle", "without shuffle"))
    return [better("test accuracy with shuffle less without, mean over g", shuffled, kept_apart)]


def draw(figure, measured: dict) -> None:
    *maps, right = figure.subplots(1, 3, width_ratios=(1, 1, 2.2))
    shades = {"without shuffle": "Oranges", "with shuffle": "Blues"}
    for axes, (how, matrix) in zip(maps, measured["seen"].items(), strict=True):
        axes.pcolormesh(matrix, cmap=shades[how], vmin=-0.1, vmax=1.4, edgecolors="white", linewidth=1.5)
        axes.set(aspect="equal", xticks=[], yticks=[], xlabel="groups in")
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.set_title(how[0].upper() + how[1:], size=9, color=COLOURS[how])
    maps[0].set_ylabel(f"groups out, after {UNITS} units")
    numbers = list(dict.fromkeys(arm.split(",")[0] for arm in measured["accuracy"]))
    shifts = {"": 0, "without shuffle": -0.14, "with shuffle": 0.14}
    for arm, samples in measured["accuracy"].items():
        number, _, how = arm.partition(", ")
        column(right, numbers.index(number) + shifts[how], samples, COLOURS[how])
    right.set_xticks(range(len(numbers)), numbers)
    right.tick_params(axis="x", length=0, labelcolor=INK)
    right.grid(visible=False, axis="x")
    right.yaxis.set_major_formatter("{x:.0%}")
    right.set(xlim=(-0.5, len(numbers) - 0.5), ylabel="test accuracy")
    right.set_title("With it and without, equal cost", size=9)


EXPERIMENT = Experiment(
    number=17,
    name="channel-shuffle",
    claim="Without the shuffle no information passes between the groups of ShuffleNet's units of one resolution; with"
    " it every group sees all the others, and the network classifies better.",
    notes="Group Convolution 导致模型的信息流限制在各个Group内，组与组之间没有信息交换，"
    "Channel Shuffle 引入组间信息交换的机制。",
    source="arXiv:1707.01083, Sec. 3.1, Fig. 1, Table 3",
    refuted_if="an output depends on another group's input without the shuffle or not on all with it, or the networks"
    " without it are more accurate",
    reading="A field is coloured where that group of outputs depends on that group of inputs. " + DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    starred=True,
)
