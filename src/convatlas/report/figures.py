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


def bench_chart(axes: Any, row: dict[str, Any]) -> None:
    """Milliseconds an image (median and quartiles) of all in a row of `convatlas bench`, ours in blue; the limit."""
    found = sorted(row["ms"].items(), key=lambda item: item[1])
    times = [ms / row["batch"] for _, ms in found]
    colours = [BLUE if name.startswith("ours ") else MUTED for name, _ in found]
    spreads = [[abs(bound - ms) / row["batch"] for bound in row["ms_spread"][name]] for name, ms in found]
    bars = axes.barh([name for name, _ in found], times, color=colours, alpha=0.8,
                     xerr=list(zip(*spreads, strict=True)), error_kw={"elinewidth": 1, "ecolor": INK})  # fmt: skip
    axes.bar_label(bars, [f"{time:.2f}" for time in times], size=7, color=INK, padding=3)
    limit = row["limit_ms"] / row["batch"]
    axes.axvline(limit, color=ORANGE, linestyle="--", linewidth=1.2)
    axes.annotate("limit", (limit, 0), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                  size=7, color=ORANGE)  # fmt: skip
    axes.set(xlabel="ms an image", title=f"{row['network']}, batch {row['batch']}")
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.15)


def render(name: str, paint: Callable[[Any], None], width: float = 4.5, height: float = 2.7) -> str:
    """The SVG of a new figure, in inches, that `paint` fills."""
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    content = _save(paint, width, height, format="svg", transparent=True, metadata=metadata).decode()
    return named(name, _counted(content[content.index("<svg") :]))


def png(paint: Callable[[Any], None], width: float = 4.5, height: float = 2.7) -> bytes:
    """The same as PNG, on white."""
    return _save(paint, width, height, format="png", dpi=200, metadata={"Software": None})


def _save(paint: Callable[[Any], None], width: float, height: float, **how: Any) -> bytes:
    from matplotlib import style
    from matplotlib.figure import Figure

    out = io.BytesIO()
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        figure.savefig(out, **how)
    return out.getvalue()


def _counted(svg: str) -> str:
    """The SVG with matplotlib's ids, digests of coordinates whose last bits differ from run to run, counted instead."""
    count: dict[str, str] = {}

    def counted(found: re.Match) -> str:
        return found[1] + count.setdefault(found[2], f"{found[2][0]}{len(count) + 1}")

    return re.sub(r'(\bid="|url\(#|href="#)([a-z][0-9a-f]{10})\b', counted, svg)


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
