"""The rules of the fold: what each kind of leaf and combinator does to a signal, and what its backward pass needs.

A rule belongs to a type, never to a block, so it holds wherever that type stands; a type without one is refused.
"""

from dataclasses import replace
from typing import Any

from torch import nn

from .combinators import Concat, Gate, Highway, Net, Residual
from .fold import BYTES, Signal, fresh, join, rule
from .layers import AvgPoolTo, SamePad, Scale, Shuffle, ZeroPad


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


def adaptive_window(m: Any, x: Signal) -> Signal:
    """The output of a pooling to a fixed size, whose windows are as equal as possible."""
    sizes = m.output_size if isinstance(m.output_size, tuple) else (m.output_size, m.output_size)
    rf, jump = [], []
    for axis, (n, o) in enumerate(zip((x.h, x.w), sizes, strict=True)):
        widest = max(-(-(i + 1) * n // o) - i * n // o for i in range(o))
        rf.append(x.rf[axis] + (widest - 1) * x.jump[axis])
        jump.append(x.jump[axis] * n // o if n % o == 0 else x.jump[axis] * n / o)
    return fresh(x, x.c, *sizes, rf=tuple(rf), jump=tuple(jump))


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
    out = adaptive_window(m, x)
    return fold.leaf(m, path, held, x, out, needs=() if (out.h, out.w) == (1, 1) else (x,))  # to 1x1 it is a mean


@rule(nn.AdaptiveMaxPool2d)
def _adaptive_max_pool(fold, m, x, path, held):
    out = adaptive_window(m, x)
    return fold.leaf(m, path, held, x, out, needs=(x,), extra=8 * out.elements)  # the indices are int64


@rule(AvgPoolTo)
def _avg_pool_to(fold, m, x, path, held):
    if m.fits(x.h) and m.fits(x.w):
        return _avg_pool(fold, nn.AvgPool2d(m.k, m.stride), x, path, held)
    return _adaptive_pool(fold, nn.AdaptiveAvgPool2d(m.out), x, path, held)


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


@rule(nn.ReLU, nn.Sigmoid, nn.Tanh)
def _activation(fold, m, x, path, held):
    out = x if getattr(m, "inplace", False) else fresh(x)
    return fold.leaf(m, path, held, x, out, needs=(out,))


@rule(nn.ReLU6)
def _relu6(fold, m, x, path, held):
    if m.inplace:  # torch then keeps a copy of the input
        return fold.leaf(m, path, held, x, x, extra=BYTES * x.elements if fold.training else 0)
    return fold.leaf(m, path, held, x, fresh(x), needs=(x,))


@rule(nn.Dropout)
def _dropout(fold, m, x, path, held):
    active = fold.training and m.p > 0
    return fold.leaf(m, path, held, x, fresh(x) if active else x, extra=BYTES * x.elements if active else 0)


@rule(nn.Identity)
def _identity(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, x)


@rule(Shuffle, Scale)
def _copy(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, fresh(x))


@rule(ZeroPad)
def _zero_pad(fold, m, x, path, held):
    out = fresh(x, m.cout, -(-x.h // m.stride), -(-x.w // m.stride), jump=tuple(j * m.stride for j in x.jump))
    return fold.leaf(m, path, held, x, out)


@rule(SamePad)
def _same_pad(fold, m, x, path, held):
    return fold.leaf(m, path, held, x, fresh(x, h=x.h + m.total(x.h), w=x.w + m.total(x.w)))


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


@rule(Highway)
def _highway(fold, m, x, path, held):
    body, gate, skip = fold.children(m, x, path, held)
    if not body.shape == gate.shape == skip.shape:
        raise ValueError(f"{path}: body {body.shape}, gate {gate.shape} and skip {skip.shape} do not mix")
    out = replace(fresh(body), rf=_widest(body, gate, skip))
    held |= {body.buffer, gate.buffer, skip.buffer}
    return fold.leaf(m, path, held, x, out, needs=(body, gate, skip))


def _widest(*signals: Signal) -> tuple[float, float]:
    return max(s.rf[0] for s in signals), max(s.rf[1] for s in signals)
