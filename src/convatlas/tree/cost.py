"""What a network costs: a table with a row for every leaf, and its totals.

Definitions, for one image of float32:

    params     weights + biases + norm (the affine parameters of normalisation); running statistics (stats) apart
    macs       multiply-accumulates of convolutions and linear layers, without bias
    elements   values in the layer's output
    saved      bytes that autograd keeps for the backward pass because of this layer (a tensor that two layers need
               is counted where it is first needed); over the rows they add up to a training step's activations
    live       bytes of all activations alive while this layer runs in eager inference; their maximum is the peak
    rf, jump   receptive field and distance between neighbouring positions, (height, width) in input pixels
"""

from dataclasses import dataclass, replace

from torch import nn

from . import rules as rules  # registers the rules
from .fold import Buffer, Fold, Row, Signal


@dataclass(frozen=True)
class Cost:
    """The rows of a network in the order in which they run, and the input and output of every module by path."""

    rows: tuple[Row, ...]
    inputs: dict[str, Signal]
    outputs: dict[str, Signal]

    def total(self, quantity: str, kind: str | None = None) -> int:
        """Sum of a column over all rows, or over the rows of one kind of layer."""
        return sum(getattr(row, quantity) for row in self.rows if kind in (None, row.kind))

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return self.total("params")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.total("macs")

    @property
    def saved(self) -> int:
        """Bytes of activations that a training step keeps for one image."""
        return self.total("saved")

    @property
    def live(self) -> int:
        """Peak bytes of activations in inference on one image."""
        return max(row.live for row in self.rows)

    @property
    def parts(self) -> dict[str, Signal]:
        """The outputs of the network's parts, in order."""
        return {path: out for path, out in self.outputs.items() if path and "." not in path}

    @property
    def last_map(self) -> Signal:
        """The feature map that enters the head."""
        return list(self.parts.values())[-2]


def cost(net: nn.Module, size: int | tuple[int, int] = 224, in_channels: int = 3, *, aux: bool = False) -> Cost:
    """The cost of `net` for one image (in_channels, size, size); `aux` includes the auxiliary heads.

    Raises TypeError for a leaf type without a rule, ValueError where shapes do not meet.
    """
    h, w = (size, size) if isinstance(size, int) else size
    train, infer = Fold(training=True, aux=aux), Fold(training=False, aux=aux)
    for fold in (train, infer):
        fold.flow(net, Signal(in_channels, h, w, Buffer(in_channels * h * w)), "", frozenset())
    rows = tuple(replace(row, live=other.live) for row, other in zip(train.rows, infer.rows, strict=True))
    return Cost(rows, train.inputs, train.outputs)
