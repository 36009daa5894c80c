"""What happens to an image before the network sees it: one value for training, evaluation, prediction and export."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ..errors import ConfigError, WeightsError

# The averages of the ImageNet training images, in use since the Torch ResNets of 2016.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_WIDEST = 4  # sides longer than 4 x the shorter one are cropped before resizing, or 1 x 10,000,000 px would fill memory


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side to `resize`, crop the central `size` x `size` (both px), scale to 0..1, normalize.

    `mean` and `std` hold one value per channel, in units of the 0..1 scale.  `channels=1` takes the luma, 3 takes RGB.
    Raises ConfigError L2 on values that cannot be.
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    channels: int = 3

    def __post_init__(self):
        if not 1 <= self.size <= self.resize:
            raise _wrong("size", self.size, f"1 to resize (={self.resize})")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise _wrong("interpolation", self.interpolation, "bilinear or bicubic")
        if self.channels not in (1, 3):
            raise _wrong("channels", self.channels, "1 or 3")
        if len(self.mean) != self.channels:
            raise _wrong("mean", self.mean, f"{self.channels} values, one per channel")
        if len(self.std) != self.channels or min(self.std) <= 0:
            raise _wrong("std", self.std, f"{self.channels} values above 0, one per channel")

    def __call__(self, image: Tensor) -> Tensor:
        """Uint8 (..., 3, H, W) -> float32 (..., channels, size, size): `normalize(geometry(image))`."""
        return self.normalize(self.geometry(image))

    def geometry(self, image: Tensor) -> Tensor:
        """Uint8 (..., 3, H, W) -> uint8 (..., 3, size, size).  A side that fits is left as it is."""
        height, width = image.shape[-2:]
        limit = _WIDEST * min(height, width)
        image = F.center_crop(image, [min(height, limit), min(width, limit)])
        image = F.resize(image, [self.resize], InterpolationMode(self.interpolation), antialias=True)
        return F.center_crop(image, [self.size, self.size])

    def normalize(self, image: Tensor) -> Tensor:
        """Uint8 (..., 3, H, W) -> float32 (..., channels, H, W), on the device of the image."""
        if self.channels == 1:
            image = luma(image)
        return F.normalize(F.to_dtype(image, torch.float32, scale=True), list(self.mean), list(self.std))

    def for_channels(self, channels: int) -> "Preprocess":
        """The same for a network of 1 or 3 input channels: grey has the mean of the colours' figures."""
        if channels == self.channels:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, channels=channels, mean=(mean,) * channels, std=(std,) * channels)

    def for_size(self, size: int) -> "Preprocess":
        """The same for images of another size, of which the crop leaves the same share."""
        return replace(self, size=size, resize=round(size * self.resize / self.size))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values; `from_dict` gives an equal Preprocess back, also after JSON."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The Preprocess that `to_dict` described.  Raises WeightsError X4 on unknown, missing or impossible fields."""
        known = {field.name for field in fields(cls)}
        if values.keys() != known:
            missing, unknown = sorted(known - values.keys()), sorted(values.keys() - known)
            raise _lost(f"preprocessing lacks {missing} and has unknown {unknown}")
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except ConfigError as error:
            raise _lost(error.what) from error
        except TypeError as error:
            raise _lost(f"preprocessing has a value of the wrong type ({error})") from error


def luma(image: Tensor) -> Tensor:
    """Uint8 RGB (..., 3, H, W) -> uint8 luma (..., 1, H, W) [ITU-R BT.601].  A grey image keeps its exact values."""
    red, green, blue = image.to(torch.int32).unbind(-3)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.uint8).unsqueeze(-3)


def _wrong(field: str, value: object, allowed: str) -> ConfigError:
    return ConfigError("L2", f"preprocessing: {field} is {value!r}", f"give {allowed}")


def _lost(what: str) -> WeightsError:
    return WeightsError("X4", what, "export or train the weights again with this version")
