"""The page of a network: its parts in frames that say what they cost, in columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import nn

from ..combinators import Net
from ..cost import Cost
from .layout import chain, layout
from .marks import GAP, PAD, STUB, TIMES, Block, Label, Mark, Panel, Wire, paragraph

PAGE = (480.0, 680.0)  # the text area of a printed page, in points


def page(net: nn.Module, costs: Cost, image: tuple[int, int, int], title: str | None) -> Block:
    """The whole diagram.  `costs` are those of `net`, with its auxiliary heads, for `image` (C, H, W)."""
    total = " · ".join(figures(costs, *part_names(net)))
    heading = paragraph([*([(title, "title")] if title else []), (total, "minor")])
    ends = f"input {shape(*image)}", f"output {shape(*costs.outputs[''].shape)}"
    diagrams = [row([column(group) for group in groups], *ends) for groups in groupings(list(parts(net, costs)))]
    best = max(diagrams, key=fitness)
    y = heading.height + PAD
    return Block(max(heading.width, best.width), y + best.height, 0, (*heading.marks, *best.at(0, y)))


def fitness(diagram: Block) -> tuple[float, float]:
    """How large it can be printed on a page, in steps of a tenth of its own size; then how low it is."""
    return round(min(1.0, PAGE[0] / diagram.width, PAGE[1] / diagram.height), 1), -diagram.height


def shape(c: int, h: int, w: int) -> str:
    """`28x28x128`, or `1000` of a vector."""
    return str(c) if h == w == 1 else f"{h}{TIMES}{w}{TIMES}{c}"


def figures(costs: Cost, *paths: str) -> list[str]:
    """`25.6 M params` and `3.86 G MACs` of the layers under the paths, without zeros."""
    rows = [row for row in costs.rows if any(not p or f"{row.path}.".startswith(f"{p}.") for p in paths)]
    sums = ((sum(row.params for row in rows), "params"), (sum(row.macs for row in rows), "MACs"))
    return [f"{rounded(number)} {what}" for number, what in sums if number]


def rounded(number: float) -> str:
    """Three figures and a decimal prefix: `25.6 M`."""
    prefixes = iter(("", " K", " M", " G", " T"))
    prefix = next(prefixes)
    while number >= 999.5:
        number, prefix = number / 1000, next(prefixes)
    return f"{number:.3g}{prefix}"


@dataclass(frozen=True)
class Part:
    """A frame to be: the text at its left, the block at its right."""

    text: Block
    block: Block

    @property
    def height(self) -> float:
        """Of the frame."""
        return 2 * PAD + max(self.block.height, self.text.height)


def part_names(net: nn.Module) -> tuple[str, ...]:
    """The parts of a Net; any other tree is one part."""
    return net.parts if isinstance(net, Net) else ("",)


def parts(net: nn.Module, costs: Cost) -> Iterator[Part]:
    """The parts in order, auxiliary heads beside theirs."""
    for name in part_names(net):
        m = net.get_submodule(name)
        block = layout(m)
        if isinstance(net, Net) and name in net.aux:
            block = with_aux(block, layout(net.aux[name]), figures(costs, f"aux.{name}"))
        details = [shape(*costs.outputs[name].shape), *figures(costs, name)]
        yield Part(caption(name or type(m).__name__, details), block)


def caption(name: str, details: list[str]) -> Block:
    """A heading and what is to be said about it."""
    return paragraph([(name, "part"), *((line, "minor") for line in details)])


def with_aux(main: Block, head: Block, details: list[str]) -> Block:
    """`head` in a frame to the right of `main`, fed from its output."""
    text = caption("auxiliary head", details)
    left, top = main.width + 2 * GAP, PAD + text.height + PAD
    entry, right = left + PAD + head.spine, left + 2 * PAD + max(head.width, text.width)
    bottom = top + GAP + head.height + PAD
    height = max(main.height + GAP, bottom)
    tap, riser = height - STUB, main.width + GAP
    marks = (
        *main.marks,
        Wire(((main.spine, main.height), (main.spine, height))),
        Panel(((left, 0), (right, bottom)), "group"),
        *text.at(left + PAD, PAD),
        Wire(((main.spine, tap), (riser, tap), (riser, top), (entry, top), (entry, top + GAP))),
        *head.at(left + PAD, top + GAP),
    )
    return Block(right, height, main.spine, marks)


def groupings(members: Sequence[Part]) -> set[tuple[tuple[Part, ...], ...]]:
    """The ways to break the parts into columns, each filled up to some height."""
    heights = [part.height for part in members]
    limits = {height for i in range(len(heights)) for height in accumulate(heights[i:])}
    return {filled(members, limit) for limit in limits if limit >= max(heights)}


def filled(members: Sequence[Part], limit: float) -> tuple[tuple[Part, ...], ...]:
    """Columns as few as keep each within a height."""
    groups: list[list[Part]] = [[]]
    for part in members:
        if sum(p.height for p in (*groups[-1], part)) > limit:
            groups.append([])
        groups[-1].append(part)
    return tuple(map(tuple, groups))


def column(members: Sequence[Part]) -> Block:
    """Frames of one width below each other, their spines in line."""
    spine = PAD + max(part.text.width for part in members) + PAD + max(part.block.spine for part in members)
    width = spine + max(part.block.width - part.block.spine for part in members) + PAD
    return chain([frame(part, width, spine) for part in members], gap=PAD)


def frame(part: Part, width: float, spine: float) -> Block:
    """The frame of a part."""
    y = (part.height - part.block.height) / 2
    marks = (
        Panel(((0, 0), (width, part.height)), "part"),
        *part.text.at(PAD, PAD),
        Wire(((spine, 0), (spine, y))),
        *part.block.at(spine - part.block.spine, y),
        Wire(((spine, y + part.block.height), (spine, part.height))),
    )
    return Block(width, part.height, spine, marks)


def row(columns: Sequence[Block], entry: str, leave: str) -> Block:
    """Columns side by side: the signal leaves each at its bottom and rises to the top of the next."""
    marks: list[Mark] = []
    top = 2 * GAP
    lefts = list(accumulate((block.width + 2 * GAP for block in columns), initial=0.0))
    spines = [left + block.spine for left, block in zip(lefts, columns, strict=False)]
    for i, (block, left, x) in enumerate(zip(columns, lefts, spines, strict=False)):
        bottom = top + block.height
        marks += block.at(left, top)
        if i == 0:
            marks += [Label(((x, GAP / 2),), entry), Wire(((x, GAP), (x, top)))]
        if i + 1 < len(columns):
            rise, into, turn = lefts[i + 1] - GAP, spines[i + 1], bottom + GAP
            marks.append(Wire(((x, bottom), (x, turn), (rise, turn), (rise, GAP), (into, GAP), (into, top))))
        else:
            marks += [Wire(((x, bottom), (x, bottom + GAP)), arrow=True), Label(((x, bottom + 1.5 * GAP),), leave)]
    return Block(lefts[-1] - 2 * GAP, top + max(block.height for block in columns) + 2 * GAP, 0, tuple(marks))
