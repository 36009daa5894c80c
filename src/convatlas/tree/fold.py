"""The fold: a signal flows through the tree, and each leaf adds a row with what it costs.

Nothing runs, and on the meta device nothing is allocated.  How a kind of leaf or combinator changes the signal is its
rule (see `rules`).  Memory follows eager execution: the input of a container stays alive until it returns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

BYTES = 4  # of a float32
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


class Buffer:
    """A piece of activation memory.  In-place layers and views share one, so it is compared by identity."""

    def __init__(self, elements: int):
        self.bytes = elements * BYTES


@dataclass(frozen=True)
class Signal:
    """What flows along an edge: (C, H, W), the buffer that holds it, and how far back into the image it sees."""

    c: int
    h: int
    w: int
    buffer: Buffer
    rf: tuple[float, float] = (1, 1)
    jump: tuple[float, float] = (1, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.c, self.h, self.w

    @property
    def elements(self) -> int:
        """C x H x W."""
        return self.c * self.h * self.w


@dataclass(frozen=True)
class Row:
    """The cost of one leaf, or of the sum, product or concatenation that a combinator ends with."""

    path: str
    kind: str
    shape: tuple[int, int, int]
    weights: int
    biases: int
    norm: int
    stats: int
    macs: int
    saved: int
    live: int
    rf: tuple[float, float]
    jump: tuple[float, float]

    @property
    def params(self) -> int:
        """Trainable parameters: weights + biases + norm."""
        return self.weights + self.biases + self.norm

    @property
    def elements(self) -> int:
        """Values in the output."""
        c, h, w = self.shape
        return c * h * w


Rule = Callable[["Fold", Any, Signal, str, frozenset], Signal]
RULES: dict[type, Rule] = {}


def rule(*types: type) -> Callable[[Rule], Rule]:
    """Register the cost rule of leaf types: `fn(fold, module, x, path, held) -> Signal`."""

    def add(fn: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, fn))
        return fn

    return add


class Fold:
    """One walk over a tree, as in training or as in inference."""

    def __init__(self, training: bool, aux: bool):
        self.training, self.aux = training, aux
        self.rows: list[Row] = []
        self.inputs: dict[str, Signal] = {}
        self.outputs: dict[str, Signal] = {}
        self._saved: set[Buffer] = set()
        self._counted: set[nn.Module] = set()

    def flow(self, m: Any, x: Signal, path: str, held: frozenset[Buffer]) -> Signal:
        """The signal after `m`; `held` are the buffers that others keep alive meanwhile."""
        if type(m) not in RULES:
            raise TypeError(
                f"no cost rule for {type(m).__name__} at {path!r}. Remedy: register one with @convatlas.tree.rule"
            )
        self.inputs[path] = x
        out = self.outputs[path] = RULES[type(m)](self, m, x, path, held)
        return out

    def children(self, m: nn.Module, x: Signal, path: str, held: frozenset[Buffer]) -> list[Signal]:
        """The signals of all children on the same x, each output staying alive while the next one runs."""
        outs = []
        for name, child in m._modules.items():  # not named_children: a layer may be used twice
            outs.append(self.flow(child, x, join(path, name), held | {x.buffer, *(o.buffer for o in outs)}))
        return outs

    @contextmanager
    def keeping(self, x: Signal) -> Iterator[None]:
        """The layers within keep nothing for the backward pass but `x`, for which the first of them stands."""
        start, saved = len(self.rows), set(self._saved)
        yield
        for i in range(start, len(self.rows)):
            kept = x.buffer.bytes if i == start and x.buffer not in saved else 0
            self.rows[i] = replace(self.rows[i], saved=kept)
        self._saved = saved | {x.buffer}

    def leaf(self, m: nn.Module, path: str, held: frozenset[Buffer], x: Signal, out: Signal, *,
             macs: int = 0, needs: tuple[Signal, ...] = (), extra: int = 0) -> Signal:  # fmt: skip
        """Add a row: `needs` are the signals that its backward pass reads, `extra` bytes that only it keeps."""
        fresh = {signal.buffer for signal in needs} - self._saved
        self._saved |= fresh
        own = {} if m in self._counted else {name: p.numel() for name, p in m.named_parameters(recurse=False)}
        self._counted.add(m)
        norm, biases = isinstance(m, NORMS), own.get("bias", 0)
        self.rows.append(
            Row(
                path,
                type(m).__name__,
                out.shape,
                weights=0 if norm else sum(own.values()) - biases,
                biases=0 if norm else biases,
                norm=sum(own.values()) if norm else 0,
                stats=sum(b.numel() for name, b in m.named_buffers(recurse=False) if name.startswith("running_")),
                macs=macs,
                saved=sum(b.bytes for b in fresh) + extra,
                live=sum(b.bytes for b in held | {x.buffer, out.buffer}),
                rf=out.rf,
                jump=out.jump,
            )
        )
        return out


def join(path: str, name: str) -> str:
    """`path.name`, or `name` at the root."""
    return f"{path}.{name}" if path else name


def fresh(x: Signal, c: int | None = None, h: int | None = None, w: int | None = None, **changes) -> Signal:
    """`x` with another shape, in a buffer of its own."""
    c, h, w = x.c if c is None else c, x.h if h is None else h, x.w if w is None else w
    return replace(x, c=c, h=h, w=w, buffer=Buffer(c * h * w), **changes)
