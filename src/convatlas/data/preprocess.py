"""What happens to an image before the network sees it: one value for training, evaluation, prediction and export."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, WeightsError
from .decode import ENOUGH

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

    @property
    def enough(self) -> int:
        """What the shorter side of a large JPEG must keep when it is decoded, in px: twice what is left of it here."""
        return max(ENOUGH, 2 * self.resize)

    def __call__(self, image: Tensor) -> Tensor:
        """Uint8 (..., 3, H, W) -> float32 (..., channels, size, size): `normalize(geometry(image))`."""
        return self.normalize(self.geometry(image))

    def geometry(self, image: Tensor) -> Tensor:
        """Uint8 (..., 3, H, W) -> uint8 (..., 3, size, size).  A side that fits is left as it is."""
        height, width = image.shape[-2:]
        limit = _WIDEST * min(height, width)
        image = center_crop(image, min(height, limit), min(width, limit))
        return center_crop(resize(image, self.resize, self.interpolation), self.size, self.size)

    def normalize(self, image: Tensor) -> Tensor:
        """Uint8 (..., 3, H, W) -> float32 (..., channels, H, W), on the device of the image."""
        if self.channels == 1:
            image = luma(image)
        pixels = image.to(torch.float32).mul_(1 / 255)
        # Channels last, mean and std are laid out as a row of pixels is: four times as fast as three values at a time.
        width = pixels.shape[-1] if pixels.stride(-3) == 1 else 1
        mean, std = (torch.tensor(v, device=image.device).repeat(width, 1).T[:, None] for v in (self.mean, self.std))
        return pixels.sub_(mean).div_(std)

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


def center_crop(image: Tensor, height: int, width: int) -> Tensor:
    """(..., H, W) -> its central (..., height, width), which must not be larger; to the bit as torchvision's."""
    top, left = round((image.shape[-2] - height) / 2), round((image.shape[-1] - width) / 2)
    return image[..., top : top + height, left : left + width]


def resize(image: Tensor, shorter: int, interpolation: str) -> Tensor:
    """Uint8 (..., C, H, W) -> uint8 with a shorter side of `shorter` px, antialiased; to the bit as torchvision's.

    Not torchvision's own, for importing that takes as long as importing torch, at the start of every prediction.
    """
    height, width = image.shape[-2:]
    if min(height, width) == shorter:
        return image
    size = (shorter, int(shorter * width / height)) if height < width else (int(shorter * height / width), shorter)
    batch = image.reshape(-1, *image.shape[-3:])
    if len(batch) == 1 and batch.is_contiguous(memory_format=torch.channels_last):
        strides = (batch.numel(), *batch.stride()[1:])  # without which PyTorch lays the result out channels first
        batch = batch.as_strided(batch.shape, strides)
    batch = F.interpolate(batch, size, mode=interpolation, align_corners=False, antialias=True)
    return batch.reshape(*image.shape[:-2], *size)


def luma(image: Tensor) -> Tensor:
    """Uint8 RGB (..., 3, H, W) -> uint8 luma (..., 1, H, W) [ITU-R BT.601].  A grey image keeps its exact values."""
    red, green, blue = image.to(torch.int32).unbind(-3)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.uint8).unsqueeze(-3)


def _wrong(field: str, value: object, allowed: str) -> ConfigError:
    return ConfigError("L2", f"preprocessing: {field} is {value!r}", f"give {allowed}")


def _lost(what: str) -> WeightsError:
    return WeightsError("X4", what, "export or train the weights again with this version")
