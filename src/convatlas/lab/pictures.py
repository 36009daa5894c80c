"""What the experiments' pictures share: colours, dots with intervals, and maps."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..tree.draw.paint import INK, MUTED
from .experiment import interval

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # safe for the colour-blind

DOTS = "A dot is a seed, a stroke the mean, a pale bar its 95 % interval (Student's t over the seeds)."
CURVES = "A line is the mean of the seeds, its band goes from the least to the greatest."
TURNS = "A line is the median of the turns, its band has their quartiles."
BOXES = "A box has the quartiles of the turns and their median."


def dots(
    axes: Any, arms: Mapping[str, Sequence[float]], label: str, percent: bool = False, colours: int = len(PALETTE)
) -> None:
    """A row for each arm: a dot for each seed, and the mean with its 95 % interval, where there is one.

    The colours begin anew after so many rows.
    """
    for row, samples in enumerate(arms.values()):
        colour = PALETTE[row % colours]
        mean, (low, high) = statistics.mean(samples), interval(samples)
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=colour, linewidth=5, alpha=0.25, solid_capstyle="butt")
        axes.plot(samples, [row] * len(samples), "o", color=colour, markersize=4.5, alpha=0.8)
        axes.plot([mean], [row], "|", color=colour, markersize=17, markeredgewidth=2.2)
        text = f"{mean:.1%}" if percent else f"{mean:.3g}"
        axes.annotate(text, (mean, row), (0, 11), textcoords="offset points", ha="center", size=8, color=INK)
    axes.set_yticks(range(len(arms)), list(arms))
    axes.set_ylim(len(arms) - 0.4, -0.7)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)
    if percent:
        percents(axes.xaxis)
        axes.set_xlim(right=min(1.01, axes.get_xlim()[1]))


def percents(axis: Any) -> None:
    """A few ticks with as many decimals as they need: `97.5%`, `98%`."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda x, position: f"{round(100 * x, 6):g}%")


def column(axes: Any, x: float, samples: Sequence[float], colour: str) -> None:
    """The same upright, at a place of the axis: a dot for each seed, the mean, and its 95 % interval."""
    low, high = interval(samples)
    if low is not None and high is not None:
        axes.plot([x, x], [low, high], color=colour, linewidth=5, alpha=0.25, solid_capstyle="butt")
    axes.plot([x] * len(samples), samples, "o", color=colour, markersize=4, alpha=0.8)
    axes.plot([x], [statistics.mean(samples)], "_", color=colour, markersize=14, markeredgewidth=2.2)


def curves(axes: Any, arms: Mapping[str, Sequence[Sequence[float]]], xs: Sequence[float]) -> None:
    """A line for each arm: the mean of its seeds over `xs`, and a band from the least to the greatest."""
    for colour, (arm, samples) in zip(_colours(len(arms)), arms.items(), strict=True):
        columns = list(zip(*samples, strict=True))
        axes.plot(xs, [statistics.mean(column) for column in columns], "o-", color=colour, label=arm)
        axes.fill_between(xs, *([f(c) for c in columns] for f in (min, max)), color=colour, alpha=0.18, linewidth=0)


def ratios(axes: Any, pairs: Mapping[int, tuple[Sequence[float], Sequence[float]]], colour: str, label: str) -> None:
    """A line over x: how many times as long the first of two takes, turn by turn; median, and a band of quartiles."""
    turns = [[a / b for a, b in zip(these, those, strict=True)] for these, those in pairs.values()]
    low, middle, high = zip(*(statistics.quantiles(each) for each in turns), strict=True)
    axes.plot(list(pairs), middle, "o-", color=colour, label=label)
    axes.fill_between(list(pairs), low, high, color=colour, alpha=0.25, linewidth=0)


def spread(axes: Any, arms: Mapping[str, Sequence[float]], label: str) -> None:
    """A box for each arm: median, quartiles, and whiskers to what is no outlier; the axis begins at zero."""
    boxes = axes.boxplot(list(arms.values()), orientation="horizontal", showfliers=False, widths=0.5, patch_artist=True)
    for box, median, colour in zip(boxes["boxes"], boxes["medians"], _colours(len(arms)), strict=True):
        box.set(facecolor=colour, alpha=0.5, linewidth=0)
        median.set(color=colour, linewidth=2.5)
    axes.set_yticks(range(1, len(arms) + 1), list(arms))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set(ylim=(len(arms) + 0.6, 0.4), xlim=(0, None), xlabel=label)
    axes.grid(visible=False, axis="y")


def heat(figure: Any, axes: Any, values: Sequence[Sequence[float]], label: str) -> None:
    """A map of values with its scale, light to dark, without a grid."""
    image = axes.imshow(values, cmap="cividis_r")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label(label, size=8, color=MUTED)
    bar.outline.set_visible(False)


def _colours(number: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(number)]
