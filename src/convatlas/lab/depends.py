"""Which groups of channels of a module's output depend on which of its input."""

import torch
from torch import nn

Matrix = list[list[int]]


def depends(net: nn.Module, channels: int, groups: int, size: int = 8) -> Matrix:
    """A row for each group of output channels: 1 for every group of input channels with a gradient, else 0.

    `net` takes (N, channels, size, size) and is put in eval mode.
    """
    x = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    outputs = net.eval()(x).chunk(groups, 1)
    gradients = (torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for out in outputs)
    return [[int(part.any()) for part in gradient.chunk(groups, 1)] for gradient in gradients]
