"""The fold: how each kind of leaf and combinator changes the signal that flows through it, and what that costs.

Nothing runs, and on the meta device nothing is allocated.  A rule belongs to a leaf type, never to a block; a type
without a rule is refused.  Memory follows eager execution: the input of a container stays alive until it returns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from .combinators import Concat, Gate, Net, Residual
from .layers import Shuffle, ZeroPad

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
        self.outputs: dict[str, Signal] = {}
        self._saved: set[Buffer] = set()
        self._counted: set[nn.Module] = set()

    def flow(self, m: Any, x: Signal, path: str, held: frozenset[Buffer]) -> Signal:
        """The signal after `m`; `held` are the buffers that others keep alive meanwhile."""
        if type(m) not in RULES:
            raise TypeError(
                f"no cost rule for {type(m).__name__} at {path!r}. Remedy: register one with @convatlas.tree.rule"
            )
        out = self.outputs[path] = RULES[type(m)](self, m, x, path, held)
        return out

    def children(self, m: nn.Module, x: Signal, path: str, held: frozenset[Buffer]) -> list[Signal]:
        """The signals of all children on the same x, each output staying alive while the next one runs."""
        outs = []
        for name, child in m._modules.items():  # not named_children: a layer may be used twice
            outs.append(self.flow(child, x, join(path, name), held | {x.buffer, *(o.buffer for o in outs)}))
        return outs

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


def window(m: Any, x: Signal, cout: int) -> Signal:
    """The output of a sliding window.  In ceil mode the last window must start inside the input or its left padding."""
    sizes, rf, jump = [], [], []
    for axis, n in enumerate((x.h, x.w)):
        k, s, p, d = (v if isinstance(v, int) else v[axis] for v in (m.kernel_size, m.stride, m.padding, _dilation(m)))
        span, last = d * (k - 1) + 1, n + 2 * p - d * (k - 1) - 1
        size = last // s + 1
        if getattr(m, "ceil_mode", False):
            size = -(-last // s) + 1
            size -= (size - 1) * s >= n + p
        if size < 1:
            raise ValueError(f"{m} needs at least {span - 2 * p} pixels, but its input is {x.h}x{x.w}")
        sizes.append(size)
        rf.append(x.rf[axis] + (span - 1) * x.jump[axis])
        jump.append(x.jump[axis] * s)
    return fresh(x, cout, *sizes, rf=tuple(rf), jump=tuple(jump))


def _dilation(m: Any) -> int | tuple[int, int]:
    return getattr(m, "dilation", 1)


@rule(nn.Conv2d)
def _conv(fold, m, x, path, held):
    if m.in_channels != x.c:
        raise ValueError(f"{path}: the convolution takes {m.in_channels} channels, but its input has {x.c}")
    out = window(m, x, m.out_channels)
    return fold.leaf(m, path, held, x, out, macs=m.weight.numel() * out.h * out.w, needs=(x,))


@rule(nn.Linear)
def _linear(fold, m, x, path, held):
    if m.in_features != x.elements:
        raise ValueError(f"{path}: the linear layer takes {m.in_features} features, but its input has {x.elements}")
    return fold.leaf(m, path, held, x, fresh(x, m.out_features, 1, 1), macs=m.weight.numel(), needs=(x,))


@rule(nn.MaxPool2d)
def _max_pool(fold, m, x, path, held):
    out = window(m, x, x.c)
    return fold.leaf(m, path, held, x, out, needs=(x,), extra=8 * out.elements)  # the indices are int64


@rule(nn.AvgPool2d)
def _avg_pool(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, window(m, x, x.c), needs=(x,))


@rule(nn.AdaptiveAvgPool2d)
def _adaptive_pool(fold, m, x, path, held):
    sizes = m.output_size if isinstance(m.output_size, tuple) else (m.output_size, m.output_size)
    rf, jump = [], []
    for axis, (n, o) in enumerate(zip((x.h, x.w), sizes, strict=True)):
        widest = max(-(-(i + 1) * n // o) - i * n // o for i in range(o))
        rf.append(x.rf[axis] + (widest - 1) * x.jump[axis])
        jump.append(x.jump[axis] * n // o if n % o == 0 else x.jump[axis] * n / o)
    out = fresh(x, x.c, *sizes, rf=tuple(rf), jump=tuple(jump))
    return fold.leaf(m, path, held, x, out, needs=() if sizes == (1, 1) else (x,))  # to 1x1 it is a mean


@rule(nn.Flatten)
def _flatten(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, replace(x, c=x.elements, h=1, w=1))


@rule(nn.BatchNorm2d)
def _batch_norm(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, fresh(x), needs=(x,))


@rule(nn.LocalResponseNorm)
def _local_response_norm(fold, m, x, path, held):
    padded = x.elements // x.c * (x.c + m.size - 1)  # x^2 padded along C; then the average and its power
    return fold.leaf(m, path, held, x, fresh(x), needs=(x,), extra=BYTES * (padded + 2 * x.elements))


@rule(nn.ReLU, nn.Sigmoid)
def _activation(fold, m, x, path, held):
    out = x if getattr(m, "inplace", False) else fresh(x)
    return fold.leaf(m, path, held, x, out, needs=(out,))


@rule(nn.Dropout)
def _dropout(fold, m, x, path, held):
    active = fold.training and m.p > 0
    return fold.leaf(m, path, held, x, fresh(x) if active else x, extra=BYTES * x.elements if active else 0)


@rule(nn.Identity)
def _identity(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, x)


@rule(Shuffle)
def _shuffle(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, fresh(x))


@rule(ZeroPad)
def _zero_pad(fold, m, x, path, held):
    out = fresh(x, m.cout, -(-x.h // m.stride), -(-x.w // m.stride), jump=tuple(j * m.stride for j in x.jump))
    return fold.leaf(m, path, held, x, out)


@rule(nn.Sequential)
def _sequential(fold, m, x, path, held):
    out, held = x, held | {x.buffer}
    for name, child in m._modules.items():
        out = fold.flow(child, out, join(path, name), held)
    return out


@rule(Net)
def _net(fold, m, x, path, held):
    out, held = x, held | {x.buffer}
    for name in m.parts:
        out = fold.flow(m.get_submodule(name), out, join(path, name), held)
        if fold.aux and name in m.aux:
            fold.flow(m.aux[name], out, join(path, f"aux.{name}"), held | {out.buffer})
    return out


@rule(Residual)
def _residual(fold, m, x, path, held):
    body, skip = fold.children(m, x, path, held)
    if body.shape != skip.shape:
        raise ValueError(f"{path}: body {body.shape} and skip {skip.shape} do not add")
    out = replace(fresh(body), rf=_widest(body, skip))
    return fold.leaf(m, path, held | {body.buffer, skip.buffer}, x, out)


@rule(Concat)
def _concat(fold, m, x, path, held):
    outs = fold.children(m, x, path, held)
    if len({out.shape[1:] for out in outs}) != 1:
        raise ValueError(f"{path}: the branches' maps differ in size: {[out.shape for out in outs]}")
    out = replace(fresh(outs[0], sum(out.c for out in outs)), rf=_widest(*outs))
    return fold.leaf(m, path, held | {o.buffer for o in outs}, x, out)


@rule(Gate)
def _gate(fold, m, x, path, held):
    (gate,) = fold.children(m, x, path, held)  # it sees the whole image; rf keeps its local meaning
    return fold.leaf(m, path, held | {gate.buffer}, x, fresh(x), needs=(x, gate))


def _widest(*signals: Signal) -> tuple[float, float]:
    return max(s.rf[0] for s in signals), max(s.rf[1] for s in signals)
