"""Changes to a network that make it faster and leave its logits as they are, up to rounding.

Each works in place on any tree in eval mode, and returns it.  `FOR` says which of them each runtime is given: those
that make it faster there (measured one by one by benchmarks/optimise.py, in results/optimise.json).
"""

from collections.abc import Callable

import torch

from ...tree import Net, fold_batch_norm
from .blocks import fill_block
from .branches import activate_branches
from .clamp import clamp_before_convolution
from .dead import drop_dead
from .dense import preallocate
from .head import convolve_head
from .linear import pool_before_convolution, stride_early
from .shuffle import absorb_shuffle, gather_shuffle

ALWAYS = (drop_dead, fold_batch_norm, pool_before_convolution, absorb_shuffle, activate_branches)
FOR: dict[str, tuple[Callable[[Net], Net], ...]] = {
    "torch": (*ALWAYS, stride_early, clamp_before_convolution, preallocate),
    "onnxruntime": (*ALWAYS, stride_early, gather_shuffle, fill_block, convolve_head),
    "openvino": ALWAYS,  # it moves strides itself
}
FOR["compile"] = tuple(transform for transform in FOR["torch"] if transform is not preallocate)
LAYOUT = {  # in a graph for others, channels last leaves gathers and splits that only keep strides
    "torch": torch.channels_last,
    "compile": torch.channels_last,
    "onnxruntime": torch.contiguous_format,
    "openvino": torch.contiguous_format,
}

__all__ = [
    "FOR",
    "LAYOUT",
    "absorb_shuffle",
    "activate_branches",
    "clamp_before_convolution",
    "convolve_head",
    "drop_dead",
    "fill_block",
    "fold_batch_norm",
    "gather_shuffle",
    "optimise",
    "pool_before_convolution",
    "preallocate",
    "stride_early",
]


def optimise(net: Net, runtime: str = "torch") -> Net:
    """Change `net` for inference by `runtime`, a key of `FOR`: the same logits (N, classes), in eval mode."""
    net = net.eval()
    for transform in FOR[runtime]:
        net = transform(net)
    return net.requires_grad_(False)
