"""A fitting network, input size and recipe for images nobody has said more about."""

from dataclasses import dataclass

import torch

from ..data import Images, Preprocess
from ..data.splits import Splits

LOOK = 256  # images that are looked at
SMALL = 64  # px; from here on an ImageNet stem keeps enough of the image


@dataclass(frozen=True)
class Choice:
    """What was chosen and why, in one sentence."""

    network: str
    size: int
    recipe: str
    why: str


def choose(splits: Splits, device: str = "cpu") -> Choice:
    """By the median of the images' shorter sides.

    Below 64 px a CIFAR ResNet at that size (small images doubled to 16 px or more); else ResNet-18 with its 7x7 stem,
    at a multiple of 32 px up to 224, or up to 96 where there is no GPU.
    """
    sides = sorted(min(splits.train.read(i).shape[1:]) for i in sample(splits.train))
    side = sides[len(sides) // 2]
    found = f"the images' median shorter side is {side} px"
    if side < SMALL:
        size = max(16, -(-side // 4) * 4)
        recipe = "digits" if splits.name == "digits" else "small"
        return Choice("resnet20", size, recipe, f"{found}: a network for small images, at {size} px")
    most, why = (96, ", enough for a machine without a GPU") if device == "cpu" else (224, "")
    size = min(most, side // 32 * 32)
    return Choice("resnet18", size, "photo", f"{found}: a network for photos, at {size} px{why}")


def preprocess_for(images: Images, size: int) -> Preprocess:
    """Resize and centre crop to `size`, and the mean and standard deviation of the training images."""
    pre = Preprocess(size=size, resize=size)
    moments = torch.zeros(2, 3, dtype=torch.float64)
    chosen = sample(images)
    for i in chosen:
        pixels = pre.geometry(images.read(i)).double() / 255
        moments += torch.stack([pixels.mean((1, 2)), pixels.square().mean((1, 2))])
    mean, square = moments / len(chosen)
    std = (square - mean.square()).clamp(min=0.05**2).sqrt()
    return Preprocess(size=size, resize=size, mean=_rounded(mean), std=_rounded(std))


def sample(images: Images) -> list[int]:
    """Up to `LOOK` indices, evenly spaced."""
    return [round(i) for i in torch.linspace(0, len(images) - 1, min(LOOK, len(images))).tolist()]


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(v, 4) for v in values.tolist())
