"""Marks on matplotlib's canvas: SVG with its text as text, or PNG."""

import io

from ...errors import ResourceError
from .marks import BOLD, RADIUS, SIZES, Block, Joint, Label, Mark, Panel, Wire

MARGIN, DPI = 10.0, 200
INK, MUTED = "#222222", "#666666"
COLOURS = {  # face and edge; blue, vermilion and green of Okabe and Ito, which the colour-blind can tell apart
    "conv": ("#d9e8f4", "#0072b2"),
    "fc": ("#fae0d0", "#d55e00"),
    "pool": ("#d3ece2", "#009e73"),
    "other": ("#eeeeee", "#888888"),
    "group": ("#f4f4f0", "#b0b0b0"),
    "part": ("#fcfcfc", "#d0d0d0"),
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "convatlas",  # the same bytes every time
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
}
LAYERS = (Panel, Wire, Joint, Label)  # from the bottom up


def render(block: Block, form: str) -> bytes:
    """The file of a block, `form` being "svg" or "png".  Raises ResourceError if matplotlib is missing."""
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        remedy = "pip install 'convatlas[train]'"
        raise ResourceError("L5", "drawing needs matplotlib, which is not installed", remedy) from error
    width, height = block.width + 2 * MARGIN, block.height + 2 * MARGIN
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type") if form == "svg" else ("Software",))
    out = io.BytesIO()
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(height - MARGIN, -MARGIN))
        axes.set_axis_off()
        for mark in sorted(block.marks, key=lambda mark: LAYERS.index(type(mark))):
            paint(axes, mark)
        figure.savefig(out, format=form, dpi=DPI, metadata=metadata)
    return out.getvalue()


def paint(axes, mark: Mark) -> None:
    """Add a mark to matplotlib's axes."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, FancyBboxPatch, Polygon

    (x0, y0), (x, y) = mark.points[0], mark.points[-1]
    match mark:
        case Panel():
            face, edge = COLOURS[mark.kind]
            axes.add_patch(
                FancyBboxPatch((x0, y0), x - x0, y - y0, "round,pad=0,rounding_size=3", fc=face, ec=edge, lw=0.7)
            )
        case Wire():
            axes.add_line(Line2D(*zip(*mark.points, strict=True), color=INK, lw=0.8, solid_capstyle="butt"))
            if mark.arrow:
                axes.add_patch(Polygon(arrowhead(mark.points[-2], mark.points[-1]), fc=INK, ec="none"))
        case Joint():
            axes.add_patch(Circle((x, y), RADIUS, fc="white", ec=INK, lw=0.8))
            axes.text(x, y, mark.sign, size=8, color=INK, ha="center", va="center_baseline")
        case Label():
            weight, colour = ("bold" if mark.size in BOLD else "normal"), (MUTED if mark.size == "minor" else INK)
            axes.text(x, y, mark.text, size=SIZES[mark.size], weight=weight, color=colour, ha=mark.align,
                      va="center_baseline", parse_math=False)  # fmt: skip


def arrowhead(start: tuple[float, float], end: tuple[float, float], length: float = 4.0) -> list[tuple[float, float]]:
    """A triangle with its tip at the end of a horizontal or vertical line."""
    (x0, y0), (x, y) = start, end
    scale = length / (abs(x - x0) + abs(y - y0))
    dx, dy = (x - x0) * scale, (y - y0) * scale
    return [(x, y), (x - dx + dy / 2, y - dy + dx / 2), (x - dx - dy / 2, y - dy - dx / 2)]
