"""Augmentation: what is done to a training image before it is normalised, with the field's transforms.

Each policy takes a decoded image, uint8 (3, H, W), and gives uint8 (3, size, size).  All randomness comes from torch's
generator, which the loader seeds by (seed, epoch, index).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from ..data import Preprocess
from .recipe import Recipe

Augment = Callable[[Tensor], Tensor]

# Principal components of the colours of ImageNet's training images, a column each, on the 0..1 scale; as in Facebook's
# Torch code of 2016, since the paper [NIPS 2012, Sec. 4.1] does not print them.
PCA = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
PCA_SCALES = torch.tensor([0.2175, 0.0188, 0.0045])


def build_augment(recipe: Recipe, pre: Preprocess) -> Augment:
    """The recipe's augmentation for the network's input: `augment`, then `policy`, then `erasing`."""
    fill = [round(255 * m) for m in pre.mean] * (3 // pre.channels)
    steps = POLICIES[recipe.augment](pre, fill)
    if recipe.policy == "trivialaugment":
        steps.append(v2.TrivialAugmentWide(fill=fill))
    if recipe.policy == "randaugment":
        steps.append(v2.RandAugment(fill=fill))
    if recipe.erasing:
        steps.append(v2.RandomErasing(recipe.erasing, value=fill))  # type: ignore[arg-type]
    return v2.Compose(steps)


def _none(pre: Preprocess, fill: list[int]) -> list[Augment]:
    return [pre.geometry]


def _digits(pre: Preprocess, fill: list[int]) -> list[Augment]:
    """Small shifts, turns and slants."""
    bilinear = InterpolationMode.BILINEAR  # there is no bicubic one for tensors
    affine = v2.RandomAffine((-12, 12), translate=(0.1, 0.1), scale=(0.9, 1.1), shear=8, interpolation=bilinear, fill=0)
    return [pre.geometry, affine]


def _small(pre: Preprocess, fill: list[int]) -> list[Augment]:
    """For CIFAR: pad by an eighth (4 px), crop, flip [arXiv:1512.03385, Sec. 4.2]."""
    crop = v2.RandomCrop(pre.size, padding=max(1, pre.size // 8), fill=fill)
    return [pre.geometry, crop, v2.RandomHorizontalFlip()]


def _photo(pre: Preprocess, fill: list[int]) -> list[Augment]:
    """A crop of 35 to 100 % of the area, flip, moderate colours."""
    return [_resized_crop(pre, 0.35), v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3)]


def _crop(pre: Preprocess, fill: list[int]) -> list[Augment]:
    """A crop of 8 to 100 % of the area, flip [arXiv:1409.4842, Sec. 6]."""
    return [_resized_crop(pre, 0.08), v2.RandomHorizontalFlip()]


def _inception(pre: Preprocess, fill: list[int]) -> list[Augment]:
    """As `crop`, and photometric distortions: brightness, contrast and saturation x 0.5 to 1.5, in random order."""
    return [*_crop(pre, fill), v2.ColorJitter(0.5, 0.5, 0.5)]


def _alexnet(pre: Preprocess, fill: list[int]) -> list[Augment]:
    """The centre square at 256 px for an input of 227, a crop, flip, colour noise [NIPS 2012, Sec. 2 and 4.1]."""
    side = round(pre.size * 256 / 227)
    square = replace(pre, size=side, resize=side).geometry
    return [square, v2.RandomCrop(pre.size), v2.RandomHorizontalFlip(), colour_noise]


def _vgg(pre: Preprocess, fill: list[int]) -> list[Augment]:
    """Shorter side 256 to 512 px for an input of 224, a crop, flip, colour noise [arXiv:1409.1556, Sec. 3.1]."""
    return [partial(multi_scale_crop, pre=pre, low=256, high=512), v2.RandomHorizontalFlip(), colour_noise]


def _resnet(pre: Preprocess, fill: list[int]) -> list[Augment]:
    """Shorter side 256 to 480 px for an input of 224, a crop, flip, colour noise [arXiv:1512.03385, Sec. 3.4]."""
    return [partial(multi_scale_crop, pre=pre, low=256, high=480), v2.RandomHorizontalFlip(), colour_noise]


POLICIES = {
    "none": _none,
    "digits": _digits,
    "small": _small,
    "photo": _photo,
    "crop": _crop,
    "inception": _inception,
    "alexnet": _alexnet,
    "vgg": _vgg,
    "resnet": _resnet,
}


def _resized_crop(pre: Preprocess, least: float) -> Augment:
    """A crop of `least` to 100 % of the area, 3/4 to 4/3 as wide as high, resized to the input."""
    interpolation = InterpolationMode(pre.interpolation)
    return v2.RandomResizedCrop(pre.size, scale=(least, 1.0), interpolation=interpolation, antialias=True)


def multi_scale_crop(image: Tensor, pre: Preprocess, low: int, high: int) -> Tensor:
    """A square crop of the image as if its shorter side were S px for an input of 224, S uniform in [low, high].

    The crop is taken first and resized then, which costs less than to resize the whole image, and is the same up to
    the half pixel that the position is rounded by.
    """
    height, width = image.shape[-2:]
    scale = int(torch.randint(low, high + 1, ()))
    side = max(1, round(min(height, width) * 224 / scale))
    top, left = (int(torch.randint(length - side + 1, ())) for length in (height, width))
    interpolation = InterpolationMode(pre.interpolation)
    return F.resized_crop(image, top, left, side, side, [pre.size, pre.size], interpolation, antialias=True)


def colour_noise(image: Tensor) -> Tensor:
    """One colour added to all pixels, drawn along the principal components of ImageNet's [NIPS 2012, Sec. 4.1]."""
    shift = 255 * PCA @ (PCA_SCALES * torch.randn(3) * 0.1)
    return (image + shift[:, None, None]).round().clamp(0, 255).to(torch.uint8)
