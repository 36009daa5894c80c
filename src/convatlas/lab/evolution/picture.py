"""The line of networks as one picture: error over time, multiply-adds as areas, arrows from who is built upon."""

from textwrap import fill
from typing import Any

from ...papers.counts import counts
from ...tree.draw.page import rounded
from ...tree.draw.paint import INK, MUTED
from ..pictures import PALETTE
from . import Step, steps

SIZE = (13.0, 9.0)  # inches
FAMILIES: dict[str, str] = dict(
    zip(("plain", "inception", "residual", "mobile"), PALETTE, strict=False)
)  # and their colours
DIAMETER = 9.0  # of a network of 10^9 MACs, in points
CONVENTIONS = (
    "Error: ImageNet (ILSVRC-2012) validation images, one model, one crop of the network's input size where nothing "
    "else is said. Area: multiply-adds (MACs) of convolutions and linear layers for one image. Parameters and MACs are "
    "exact counts of the networks that convatlas builds. Date: month of the paper. Arrow: develops further; dashed: "
    "takes a part of it. Errors from: "
)


def paint(figure: Any) -> None:
    """Fill a matplotlib figure of SIZE inches with the networks that have a place in it."""
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.055, 0.165, 0.93, 0.775))
    axes.set(xlim=(2012.75, 2018.8), ylim=(17.5, 46), yscale="log", xlabel="year of the paper",
             ylabel="top-1 error, % (logarithmic)")  # fmt: skip
    axes.minorticks_off()
    axes.set_yticks(range(18, 46, 2), [str(y) for y in range(18, 46, 2)])
    axes.set_title("From AlexNet to MobileNet v2: what each network brought", size=15)
    drawn = {step.network: step for step in steps() if step.label}
    for step in drawn.values():
        for parent in step.on:
            arrow(axes, drawn[parent], step)
        for parent, part in step.takes.items():
            arrow(axes, drawn[parent], step, part)
        x, y = place(step)
        axes.scatter([x], [y], diameter(step) ** 2, FAMILIES[step.family], alpha=0.75, linewidths=0, zorder=3)
        words(axes, step)
    legend(axes)
    sources = "; ".join(f"{s.name}: {s.paper_error['source']} ({s.paper_error['setting']})" for s in drawn.values())
    text = fill(f"{CONVENTIONS}{sources}.", 222)
    figure.text(0.012, 0.012, text, size=8, color=MUTED, va="bottom", linespacing=1.3)


def place(step: Step) -> tuple[float, float]:
    """The middle of the paper's month in years, and top-1 error in %."""
    year, month = step.date
    return year + (month - 0.5) / 12, step.paper_error["top1"]


def diameter(step: Step) -> float:
    """Of a step's circle, in points."""
    return DIAMETER * (counts(step.spec)[1] / 1e9) ** 0.5


def arrow(axes: Any, parent: Step, child: Step, part: str = "") -> None:
    """From circle to circle; dashed and bent, with its words, for a part that is taken over."""
    bend = child.bend.get(parent.network, 0.0)
    style = {"arrowstyle": "-|>,head_width=0.25,head_length=0.5", "color": INK if not part else MUTED, "linewidth": 1.1,
             "linestyle": "--" if part else "-", "connectionstyle": f"arc3,rad={bend}",
             "shrinkA": diameter(parent) / 2 + 1, "shrinkB": diameter(child) / 2 + 1}  # fmt: skip
    axes.annotate("", place(child), place(parent), arrowprops=style, zorder=1)
    if part:
        (x0, y0), (x1, y1) = axes.transData.transform([place(parent), place(child)])
        along, aside = 0.72, 2 * 0.72 * 0.28 * bend  # of a quadratic curve
        point = x0 + along * (x1 - x0) + aside * (y1 - y0), y0 + along * (y1 - y0) - aside * (x1 - x0)
        axes.annotate(part, axes.transData.inverted().transform(point), size=8.5, style="italic", color=MUTED,
                      ha="center", va="center", bbox={"fc": "white", "ec": "none", "pad": 1.5}, zorder=2)  # fmt: skip


def words(axes: Any, step: Step) -> None:
    """Name, idea and cost at the side of the circle that the table says."""
    from matplotlib.offsetbox import AnnotationBbox, TextArea, VPacker

    params, macs = counts(step.spec)
    lines = [
        (step.name, {"size": 11, "weight": "bold", "color": INK}),
        *[(fill(step.idea, 22), {"size": 9.5, "color": INK})] * bool(step.idea),
        (f"{rounded(params)} · {rounded(macs)}", {"size": 8.5, "color": MUTED}),
    ]
    x, y = step.label or (0, 0)
    align = "left" if x > 0 else "right" if x < 0 else "center"
    areas: list[Any] = [TextArea(text, textprops={**style, "multialignment": align}) for text, style in lines]
    edge = {"left": 0, "center": 0.5, "right": 1}[align], 0.5
    axes.add_artist(AnnotationBbox(VPacker(children=areas, align=align, pad=0, sep=2), place(step), (x, y), pad=0,
                    boxcoords="offset points", box_alignment=edge, frameon=False, zorder=4))  # fmt: skip


def legend(axes: Any) -> None:
    """What the colours, areas and numbers mean."""
    from matplotlib.lines import Line2D

    dots = [(family, colour, 9.0) for family, colour in FAMILIES.items()]
    dots += [(f"{g:g} G MACs", MUTED, DIAMETER * g**0.5) for g in (0.1, 1, 10)]
    handles = [Line2D([], [], marker="o", linestyle="", color=colour, alpha=0.75, markeredgewidth=0, markersize=size,
                      label=label) for label, colour, size in dots]  # fmt: skip
    axes.legend(handles=handles, loc="lower left", ncols=2, fontsize=9.5, labelspacing=1.15, handletextpad=1.2,
                columnspacing=3, borderpad=1, alignment="left", title_fontsize=9.5,
                title="Below each idea: parameters · MACs of one image")  # fmt: skip
