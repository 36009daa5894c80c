"""Augmentation: what is done to a training image before it is normalised, with the field's transforms.

Each policy takes a decoded image and the Preprocess of the network and gives uint8 (3, size, size).  All randomness
comes from torch's generator, which the loader seeds by (seed, epoch, index).
"""

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from ..data import Preprocess

Augment = Callable[[Tensor], Tensor]


def build_augment(name: str, pre: Preprocess) -> Augment:
    """The policy of that name: none, digits, small (CIFAR: pad 4, crop, flip) or photo (crop, flip, colour)."""
    size, fill = pre.size, [round(255 * m) for m in pre.mean]
    interpolation = InterpolationMode(pre.interpolation)
    policies = {
        "none": v2.Lambda(pre.geometry),
        "digits": v2.Compose(
            [
                v2.Lambda(pre.geometry),
                v2.RandomAffine(
                    (-12, 12),
                    translate=(0.1, 0.1),
                    scale=(0.9, 1.1),
                    shear=8,
                    interpolation=InterpolationMode.BILINEAR,  # there is no bicubic one for tensors
                    fill=0,
                ),
            ]
        ),
        "small": v2.Compose(
            [
                v2.Lambda(pre.geometry),
                v2.RandomCrop(size, padding=max(1, size // 8), fill=fill),  # type: ignore[arg-type]
                v2.RandomHorizontalFlip(),
            ]
        ),
        "photo": v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.35, 1.0), interpolation=interpolation, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.3, 0.3, 0.3),
            ]
        ),
    }
    return policies[name]
