"""The block of a tree: each combinator is a way to arrange the blocks of its children."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from torch import nn

from ..combinators import Concat, Gate, Highway, Residual
from .labels import kind, label
from .marks import GAP, PAD, RADIUS, STUB, TIMES, Block, Joint, Label, Mark, Panel, Wire, paragraph


def layout(m: nn.Module) -> Block:
    """The block of a tree."""
    match m:
        case nn.Sequential():
            return chain(boxed(steps(m)))
        case Residual():
            return beside(layout(m.body), layout(m.skip), "+")
        case Gate():
            return beside(chain([]), layout(m.gate), TIMES)
        case Concat():
            return fan([layout(branch) for branch in joined(m)], "concat")
        case Highway():
            mixed = f"body {TIMES} gate + skip {TIMES} (1 - gate)"
            return fan([layout(m.body), layout(m.gate), layout(m.skip)], mixed)
        case nn.Identity():
            return identity()
    return box([m])


def joined(m: nn.Module) -> list[nn.Module]:
    """The modules that a combinator joins; none for a leaf."""
    if isinstance(m, nn.Sequential):
        return list(m)  # `children` would leave out a layer's second use
    return list(m.children()) if isinstance(m, Residual | Concat | Gate | Highway) else []


def looks(m: nn.Module) -> object:
    """What a drawing shows of a tree: trees of equal looks are drawn alike."""
    how = nn.Sequential if isinstance(m, nn.Sequential) else type(m)
    return (how, *map(looks, joined(m))) if joined(m) else label(m)


def steps(m: nn.Sequential) -> Iterable[nn.Module | Block]:
    """The leaves and blocks of a chain: neighbours of equal looks are one block, Sequentials within are dissolved."""
    for _, run in groupby(m, key=looks):
        first, *others = run
        if others:
            yield repeat(layout(first), 1 + len(others))
        elif isinstance(first, nn.Sequential):
            yield from steps(first)
        else:
            yield layout(first) if joined(first) else first


def boxed(items: Iterable[nn.Module | Block]) -> list[Block]:
    """Put the leaves in boxes: each around one that has a kind, with its company behind it, or else before it."""
    blocks, leaves = [], []
    for item in items:
        full = any(map(kind, leaves))
        if leaves and (isinstance(item, Block) or (full and (kind(item) or not kind(leaves[0])))):
            blocks.append(box(leaves))
            leaves = []
        if isinstance(item, Block):
            blocks.append(item)
        else:
            leaves.append(item)
    return [*blocks, box(leaves)] if leaves else blocks


def box(leaves: Sequence[nn.Module]) -> Block:
    """A line of text for the leaf that has a kind, a smaller one for its company, which alone makes a smaller box."""
    lines: list[tuple[str, str]] = []
    for alone, run in groupby(leaves, key=lambda m: kind(m) is not None):
        texts = [label(m) for m in run]
        lines += [(text, "major") for text in texts] if alone else [(" · ".join(texts), "minor")]
    text = paragraph(lines, align="center")
    colour = next(filter(None, map(kind, leaves)), None)
    width, height = (max(72.0, text.width + PAD), 22.0) if colour else (text.width + 2 * PAD, 13.0)
    height = max(height, text.height + 3)
    panel = Panel(((0, 0), (width, height)), colour or "other")
    tip = Wire(((width / 2, -STUB), (width / 2, 0)), arrow=True)
    return Block(width, height, width / 2, (panel, *text.at(width / 2, (height - text.height) / 2), tip))


def identity() -> Block:
    """A labelled wire."""
    text = paragraph([("identity", "minor")], x=3)
    return Block(3 + text.width, text.height, 0, (Wire(((0, 0), (0, text.height))), *text.marks))


def chain(blocks: Sequence[Block], gap: float = GAP) -> Block:
    """One below the other."""
    spine = max((b.spine for b in blocks), default=0)
    width = spine + max((b.width - b.spine for b in blocks), default=0)
    marks: list[Mark] = []
    y = 0.0
    for i, block in enumerate(blocks):
        if i:
            marks.append(Wire(((spine, y), (spine, y + gap))))
            y += gap
        marks += block.at(spine - block.spine, y)
        y += block.height
    return Block(width, y, spine, tuple(marks))


def repeat(block: Block, times: int) -> Block:
    """A frame marked `x times`."""
    width, height, spine = block.width + 2 * PAD, block.height + 2 * PAD, block.spine + PAD
    text = Label(((width + 3, height / 2),), f"{TIMES} {times}", "part", "left")
    marks = (
        Panel(((0, 0), (width, height)), "group"),
        Wire(((spine, 0), (spine, PAD))),
        *block.at(PAD, PAD),
        Wire(((spine, height - PAD), (spine, height))),
        text,
    )
    return Block(width + 3 + text.width, height, spine, marks)


def beside(main: Block, side: Block, sign: str) -> Block:
    """`main` on the spine and `side` to its right, joined by `sign`."""
    tallest = max(main.height, side.height)
    x, side_x = main.spine, main.width + GAP + side.spine
    y, side_y = GAP + (tallest - main.height) / 2, GAP + (tallest - side.height) / 2
    joint = GAP + tallest + GAP + RADIUS
    marks = (
        Wire(((x, 0), (x, y))),
        *main.at(0, y),
        Wire(((x, y + main.height), (x, joint - RADIUS)), arrow=True),
        Wire(((x, STUB), (side_x, STUB), (side_x, side_y))),
        *side.at(side_x - side.spine, side_y),
        Wire(((side_x, side_y + side.height), (side_x, joint), (x + RADIUS, joint)), arrow=True),
        Joint(((x, joint),), sign),
    )
    return Block(side_x - side.spine + side.width, joint + RADIUS, x, marks)


def fan(branches: Sequence[Block], word: str) -> Block:
    """Side by side, joined by a bar that says how."""
    tallest, bar = max(b.height for b in branches), 13.0
    bottom = GAP + tallest + GAP
    marks, spines, x = [], [], PAD
    for branch in branches:
        y, spine = GAP + (tallest - branch.height) / 2, x + branch.spine
        marks += [Wire(((spine, STUB), (spine, y))), *branch.at(x, y)]
        marks += [Wire(((spine, y + branch.height), (spine, bottom)), arrow=True)]
        spines.append(spine)
        x += branch.width + GAP
    width, middle = x - GAP + PAD, (spines[0] + spines[-1]) / 2
    half = min(middle, width - middle)
    ends = (
        Wire(((middle, 0), (middle, STUB))),
        Wire(((spines[0], STUB), (spines[-1], STUB))),
        Panel(((middle - half, bottom), (middle + half, bottom + bar)), "other"),
        Label(((middle, bottom + bar / 2),), word),
    )
    return Block(width, bottom + bar, middle, (*ends, *marks))
