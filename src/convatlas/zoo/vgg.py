"""VGG [arXiv:1409.1556]: stacks of 3x3 convolutions, halved by max pooling, then three fully connected layers.

Three 3x3 see what one 7x7 sees, with 27 C^2 instead of 49 C^2 weights and three ReLUs instead of one [Sec. 2.3].
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import Net, conv_act, conv_bn_act, local_response_norm, seq
from . import init
from .spec import Arch, family, register

WIDTHS = (64, 128, 256, 512, 512)  # of the five stages [Table 1]


@family
@dataclass(frozen=True, kw_only=True)
class VGG(Arch):
    """`kernels` are the sizes of the convolutions of each stage, for example `((3,), (3,), (3, 3), ...)`.

    `lrn` adds AlexNet's local response normalisation after the first convolution; `norm` adds BatchNorm after every
    one (not in the paper; the convolutions keep their biases, as in all public weights).  An image of another size
    than 224 is pooled to the 7x7 map that the first fully connected layer takes.  `small` is the form for 32x32: the
    five poolings leave one position, and the hidden fully connected layers have 512 units.
    """

    SE_AT = "stage*.conv*"

    kernels: tuple[tuple[int, ...], ...]
    lrn: bool = False
    norm: bool = False
    small: bool = False

    def assemble(self) -> Net:
        """Weights begin as the paper's remark on training without pre-training says [Sec. 3.1]: Glorot, biases 0."""
        parts, c = {}, self.in_channels
        for i, (width, kernels) in enumerate(zip(WIDTHS, self.kernels, strict=True), 1):
            layers = {}
            for j, k in enumerate(kernels, 1):
                layers[f"conv{j}"] = conv_bn_act(c, width, k, bias=True) if self.norm else conv_act(c, width, k)
                c = width
            if self.lrn and i == 1:
                layers["lrn"] = local_response_norm()
            parts[f"stage{i}"] = seq(**layers, pool=nn.MaxPool2d(2))
        side, hidden = (1, 512) if self.small else (7, 4096)
        return init.glorot(Net(parts | {"head": head(c, side, hidden, self.classes)}))


def head(c: int, side: int, hidden: int, classes: int) -> nn.Sequential:
    """Three fully connected layers with dropout 0.5 on the first two [Sec. 2.1, 3.1]: (N, c, H, W) -> (N, classes)."""
    return seq(
        pool=nn.AdaptiveAvgPool2d(side),
        flatten=nn.Flatten(1),
        fc1=nn.Linear(c * side * side, hidden),
        act1=nn.ReLU(inplace=True),
        drop1=nn.Dropout(0.5),
        fc2=nn.Linear(hidden, hidden),
        act2=nn.ReLU(inplace=True),
        drop2=nn.Dropout(0.5),
        fc3=nn.Linear(hidden, classes),
    )


def variant(name: str, configuration: str, *kernels: tuple[int, ...], lrn: bool = False) -> VGG:
    """One column of Table 1."""
    use = f"configuration {configuration} of the paper"
    return VGG(name=name, paper="arXiv:1409.1556", use=use, kernels=kernels, lrn=lrn)


PAPER = (
    variant("vgg11", "A", (3,), (3,), (3, 3), (3, 3), (3, 3)),
    variant("vgg11_lrn", "A-LRN", (3,), (3,), (3, 3), (3, 3), (3, 3), lrn=True),
    variant("vgg13", "B", (3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    variant("vgg16c", "C", (3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    variant("vgg16", "D", (3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    variant("vgg19", "E", (3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
)
WITH_NORM = tuple(
    replace(a, name=f"{a.name}_bn", use=f"{a.use}, with BatchNorm: trains without care", norm=True) for a in PAPER
)
CIFAR = tuple(
    replace(a, name=f"{a.name}.cifar", use="small images, 32x32", small=True, classes=10, size=32)
    for a in WITH_NORM
    if a.name in ("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")
)
register(*PAPER, *WITH_NORM, *CIFAR)
