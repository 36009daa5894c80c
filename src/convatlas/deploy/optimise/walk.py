"""What the transforms share: looking along the layers of a network."""

from typing import TypeGuard

from torch import nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def flat(module: nn.Module) -> list[nn.Module]:
    """The layers that run one behind another: those of nested Sequentials, or the module itself."""
    if isinstance(module, nn.Sequential):
        return [layer for child in module for layer in flat(child)]
    return [module]


def is_1x1(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether the layer is a convolution that looks at one pixel at a time, with any stride and groups."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.padding == (0, 0)


def is_mean(layer: nn.Module) -> bool:
    """Whether the layer averages whole windows, so that a constant in is the same constant out."""
    if isinstance(layer, nn.AvgPool2d):
        return layer.padding in (0, (0, 0)) and not layer.ceil_mode
    return isinstance(layer, nn.AdaptiveAvgPool2d)
