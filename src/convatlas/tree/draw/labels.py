"""What a diagram says about a leaf: its words, and the kind of layer that decides its colour."""

from typing import Any

from torch import nn

from ..layers import AvgPoolTo, SamePad, Scale, Shuffle, ZeroPad
from .marks import TIMES

KINDS = {
    "conv": (nn.Conv2d,),
    "fc": (nn.Linear,),
    "pool": (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, AvgPoolTo),
    "other": (ZeroPad, SamePad, Scale, Shuffle),
}


def kind(m: nn.Module) -> str | None:
    """The kind of a leaf that has a box of its own, None for those that accompany one: norm, activation, dropout."""
    return next((name for name, types in KINDS.items() if isinstance(m, types)), None)


def label(m: nn.Module) -> str:
    """The words for a leaf, as the papers write them: `3x3 conv, 64, /2`.  A type unknown here goes by its name."""
    match m:
        case nn.Conv2d():
            return _conv(m)
        case nn.Linear():
            return f"fc, {m.out_features}"
        case nn.MaxPool2d():
            return ", ".join([f"{_by(m.kernel_size)} max pool", *_stride(m.stride)])
        case nn.AvgPool2d() | AvgPoolTo():
            return ", ".join(
                [f"{_by(m.k if isinstance(m, AvgPoolTo) else m.kernel_size)} average pool", *_stride(m.stride)]
            )
        case nn.AdaptiveAvgPool2d() | nn.AdaptiveMaxPool2d():
            pool = "average pool" if isinstance(m, nn.AdaptiveAvgPool2d) else "max pool"
            return f"global {pool}" if m.output_size in (1, (1, 1)) else f"{pool} to {_by(m.output_size)}"
        case nn.BatchNorm2d():
            return "BN"
        case nn.LocalResponseNorm():
            return "LRN"
        case nn.Dropout():
            return f"dropout {m.p:g}"
        case ZeroPad():
            return ", ".join(["zero-pad", str(m.cout), *_stride(m.stride)])
        case SamePad():
            return "pad as TensorFlow"
        case Scale():
            return f"{TIMES} {m.factor:g}"
        case Shuffle():
            return f"shuffle, {m.groups} groups"
        case nn.Identity() | nn.Flatten() | nn.Sigmoid() | nn.Tanh():
            return type(m).__name__.lower()
    return type(m).__name__


def _conv(m: nn.Conv2d) -> str:
    """Kernel, channels and stride; groups, padding and dilation only where they are not the usual."""
    depthwise = m.groups == m.in_channels > 1
    words = [f"{_by(m.kernel_size)} {'depthwise' if depthwise else 'conv'}", str(m.out_channels), *_stride(m.stride)]
    if m.groups > 1 and not depthwise:
        words.append(f"{m.groups} groups")
    if m.padding not in ("same", tuple(d * (k - 1) // 2 for k, d in zip(m.kernel_size, m.dilation, strict=True))):
        words.append(f"pad {m.padding if isinstance(m.padding, str) else _once(m.padding)}")
    if m.dilation != (1, 1):
        words.append(f"dilation {_once(m.dilation)}")
    return ", ".join(words)


def _stride(size: Any) -> list[str]:
    """[`/2`], or nothing for stride 1."""
    return [] if size in (1, (1, 1)) else [f"/{_once(size)}"]


def _once(size: Any) -> str:
    """`2` of 2 or (2, 2), `2x1` of (2, 1)."""
    h, w = size if isinstance(size, tuple) else (size, size)
    return str(h) if h == w else _by(size)


def _by(size: Any) -> str:
    """`3x3` of 3 or (3, 3)."""
    h, w = size if isinstance(size, tuple) else (size, size)
    return f"{h}{TIMES}{w}"
