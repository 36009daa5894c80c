"""How the Inception-v3 paper counts layers."""

from torch import nn

from ...tree import Concat
from ..built import Built
from .base import notation


@notation("n x n depth", "layers", "convolutions on the longest path; 1xn and nx1 in a row are one n x n")
def square_depth(net: Built, part: str) -> int:
    """The 42 layers of arXiv:1512.00567, Sec. 6, by the simplest rule that gives them: the paper names none."""
    layers: list[tuple[int, ...]] = []
    for name in net.net.parts:
        for kernel in longest_path(net.net.get_submodule(name)):
            if layers and kernel == layers[-1][::-1] != layers[-1]:
                layers[-1] = (max(kernel), max(kernel))
            else:
                layers.append(kernel)
    return len(layers)


def longest_path(m: nn.Module) -> list[tuple[int, ...]]:
    """The kernels of the convolutions on the longest path through a module."""
    if isinstance(m, nn.Conv2d):
        return [m.kernel_size]
    paths = [longest_path(child) for child in m.children()]
    return max(paths, key=len) if isinstance(m, Concat) else [kernel for path in paths for kernel in path]
