"""The charts of the page, as SVG text without background, for dark ink on light paper."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..tree.draw.paint import COLOURS, INK, MUTED
from .measures import Bin

BLUE, ORANGE = COLOURS["conv"][1], COLOURS["fc"][1]
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "convatlas",  # the same bytes every time
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3,
}


def loss_chart(log: Sequence[dict[str, Any]], kept: int) -> str:
    """Train and val loss by epoch, on a logarithmic scale where they span more than a factor of ten."""

    def paint(figure) -> None:
        axes = figure.subplots()
        values = _train_and_val(axes, log, "loss", kept)
        if 0 < 10 * min(values) < max(values):
            axes.set_yscale("log")
        axes.set(title="Loss", ylabel="cross-entropy, nats")

    return render("loss", paint)


def accuracy_chart(log: Sequence[dict[str, Any]], kept: int) -> str:
    """Train and val accuracy by epoch."""

    def paint(figure) -> None:
        axes = figure.subplots()
        _train_and_val(axes, log, "accuracy", kept)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set(title="Accuracy", ylim=(None, 1.005))

    return render("accuracy", paint)


def rate_chart(log: Sequence[dict[str, Any]]) -> str:
    """The learning rate at the end of each epoch."""

    def paint(figure) -> None:
        axes = figure.subplots()
        axes.plot([row["epoch"] for row in log], [row["lr"] for row in log], "o-", color=MUTED)
        axes.set(title="Learning rate", ylim=(0, None))
        _whole_epochs(axes, len(log))

    return render("rate", paint, height=1.5)


def reliability_chart(bins: Sequence[Bin]) -> str:
    """Accuracy against confidence, a bar for each bin, over the number of images in it."""

    def paint(figure) -> None:
        top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        left, width = [b.low for b in bins], [b.high - b.low for b in bins]
        top.bar(left, [b.accuracy for b in bins], width, align="edge", color=BLUE, alpha=0.7, edgecolor="white")
        top.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
        top.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o", color=ORANGE, markersize=4)
        top.set(title="Reliability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        bars = bottom.bar(
            left, [b.images for b in bins], width, align="edge", color=MUTED, alpha=0.5, edgecolor="white"
        )
        bottom.bar_label(bars, size=6, color=MUTED, padding=1)
        bottom.set(xlabel="confidence", ylabel="images")
        bottom.margins(y=0.25)

    return render("reliability", paint, height=3.9)


def render(name: str, paint: Callable[[Any], None], height: float = 2.7) -> str:
    """The SVG of a new figure that `paint` fills, 4.5 inches wide."""
    from matplotlib import style
    from matplotlib.figure import Figure

    out = io.StringIO()
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(4.5, height), layout="constrained")
        paint(figure)
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    text = out.getvalue()
    return named(name, text[text.index("<svg") :])


def named(name: str, svg: str) -> str:
    """The SVG with its ids made its own, so that several can stand in one page."""
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)


def _train_and_val(axes, log: Sequence[dict[str, Any]], quantity: str, kept: int) -> list[float]:
    """Both curves, the kept epoch marked on that of val; the values drawn."""
    epochs = [row["epoch"] for row in log]
    train, val = ([row[f"{part}_{quantity}"] for row in log] for part in ("train", "val"))
    axes.plot(epochs, train, "o-", color=BLUE, label="train")
    axes.plot(epochs, val, "s-", color=ORANGE, label="val")
    chosen = val[epochs.index(kept)]
    axes.plot(kept, chosen, "o", color=INK, markersize=9, markerfacecolor="none", clip_on=False, label="kept")
    axes.legend()
    axes.set_xlabel("epoch")
    _whole_epochs(axes, len(log))
    return [*train, *val]


def _whole_epochs(axes, epochs: int) -> None:
    axes.set_xlim(0.5, epochs + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
