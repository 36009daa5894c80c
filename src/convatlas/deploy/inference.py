"""A trained network made ready for inference: the same answers by less work."""

import torch
from torch import Tensor, nn

from ..data import Preprocess
from ..data.preprocess import luma
from ..tree import Net
from ..weights import Bundle
from .optimise import LAYOUT, optimise


class FromPixels(nn.Module):
    """Images as they are cropped, uint8 (N, size, size, 3) -> logits (N, classes): what is exported.

    Of the normalisation (x / 255 - mean) / std only a subtraction is left: the division is in the weights of the first
    convolution, whose zero padding still stands for the mean colour.  Maps lie in memory as `layout` says.
    """

    mean: Tensor

    def __init__(self, net: Net, preprocess: Preprocess, layout: torch.memory_format):
        super().__init__()
        self.net, self.grey, self.layout = net, preprocess.channels == 1, layout
        self.register_buffer("mean", 255 * torch.tensor(preprocess.mean).view(1, -1, 1, 1))
        stem = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
        std = 255 * torch.tensor(preprocess.std).view(stem.groups, 1, -1, 1, 1)  # of the channels that a group sees
        with torch.no_grad():
            stem.weight.copy_((stem.weight.unflatten(0, (stem.groups, -1)) / std).flatten(0, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Uint8 (N, H, W, 3) -> (N, classes)."""
        images = pixels.permute(0, 3, 1, 2)
        if self.grey:
            images = luma(images)
        return self.net(images.to(torch.float32).contiguous(memory_format=self.layout) - self.mean)


def for_inference(bundle: Bundle, runtime: str) -> FromPixels:
    """The bundle's network from pixels on, in the form that `runtime` (of `optimise`) runs fastest, in eval mode.

    The logits are the bundle's up to rounding.
    """
    net = FromPixels(optimise(bundle.build(), runtime), bundle.preprocess, LAYOUT[runtime])
    return net.eval().requires_grad_(False).to(memory_format=LAYOUT[runtime])
