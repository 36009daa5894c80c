"""The standard data sets by name: scikit-learn's digits, and those that torchvision knows how to fetch and verify."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ResourceError
from .decode import MAX_PIXELS, one_line, shown
from .folder import file_images
from .images import Images
from .splits import Source

NAMES = ("digits", "cifar10", "cifar100", "mnist", "fashion-mnist", "imagenet")

_TORCHVISION = {  # class, what is fetched
    "cifar10": ("CIFAR10", "170 MB"),
    "cifar100": ("CIFAR100", "169 MB"),
    "mnist": ("MNIST", "12 MB"),
    "fashion-mnist": ("FashionMNIST", "31 MB"),
}


def data_root() -> Path:
    """Where the named data sets are kept: `$CONVATLAS_DATA`, else `~/.cache/convatlas/data`."""
    return Path(os.environ.get("CONVATLAS_DATA") or Path.home() / ".cache/convatlas/data").expanduser()


def read_named(name: str, *, download: bool = False, max_pixels: int = MAX_PIXELS) -> Source:
    """The data set `name` of `NAMES`.  Its own test set is the test part; 10 % of each class are cut for validation.

    Digits have no test set of their own: 20 % are cut for validation and 20 % for test.
    Raises ResourceError L5 where the data is not there and may not or cannot be fetched.
    """
    if name == "digits":
        return _digits()
    if name == "imagenet":
        return _imagenet(max_pixels)
    return _torchvision(name, download)


def _digits() -> Source:
    """1,797 images of 8 x 8 px, 17 grey levels, from the UCI optical digits (scikit-learn's `load_digits`)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ResourceError("L5", "scikit-learn is not installed", "pip install 'convatlas[train]'") from error
    digits: Any = load_digits()
    grey = (torch.from_numpy(digits.images) * 255 / 16).round().to(torch.uint8)
    images = Images(
        classes=tuple("0123456789"),
        labels=torch.from_numpy(digits.target).long(),
        names=tuple(f"digits/{index}" for index in range(len(grey))),
        read=_Pixels(grey.unsqueeze(1)),
    )
    return Source("digits", images, shares=(0.2, 0.2))


def _torchvision(name: str, download: bool) -> Source:
    train, test = (_dataset(name, download, train=train) for train in (True, False))
    pixels = torch.cat([torch.as_tensor(part.data) for part in (train, test)])
    pixels = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    parts = {
        "train": [f"train/{index}" for index in range(len(train))],
        "test": [f"test/{index}" for index in range(len(test))],
    }
    images = Images(
        classes=tuple(train.classes),
        labels=torch.cat([torch.as_tensor(part.targets) for part in (train, test)]),
        names=tuple(parts["train"] + parts["test"]),
        read=_Pixels(pixels),
    )
    return Source(name, images, parts, shares=(0.1, 0.1))


def _dataset(name: str, download: bool, *, train: bool) -> Any:
    """The torchvision data set, which verifies the checksums of what it fetches."""
    from torchvision import datasets

    class_name, size = _TORCHVISION[name]
    root = data_root()
    try:
        return getattr(datasets, class_name)(root, train=train, download=download)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:  # the last two of torn files
        if download:
            what = f"cannot fetch {name} ({size}) into {shown(root)}: {one_line(error)}"
            remedy = "check network and disk, delete what is damaged there, or bring the files by hand"
        else:
            what = f"{name} is not in {shown(root)}, or not whole"
            remedy = f"fetch it ({size}) with --download, or set $CONVATLAS_DATA to the folder that holds it"
        raise ResourceError("L5", what, remedy) from error


def _imagenet(max_pixels: int) -> Source:
    """ILSVRC 2012.  The labels of its test set were never published, so its validation set is the test part."""
    from torchvision import datasets

    root = data_root() / "imagenet"
    try:
        train, val = (datasets.ImageNet(root, split=split) for split in ("train", "val"))
    except (RuntimeError, OSError) as error:
        what = f"imagenet is not complete in {shown(root)}: {one_line(error)}"
        remedy = (
            "get ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (150 GB) "
            "from image-net.org, whose terms you must accept, and put them there"
        )
        raise ResourceError("L5", what, remedy) from error
    classes = tuple(f"{wnid} {names[0]}" for wnid, names in zip(train.wnids, train.classes, strict=True))
    found = {
        part: [(Path(path).relative_to(root).as_posix(), classes[label]) for path, label in dataset.samples]
        for part, dataset in (("train", train), ("test", val))
    }
    images = file_images(root, classes, found["train"] + found["test"], max_pixels)
    parts = {part: [path for path, _ in files] for part, files in found.items()}
    return Source("imagenet", images, parts, shares=(0.1, 0.1))


@dataclass(frozen=True)
class _Pixels:
    """Reads image i of a uint8 (n, 1 or 3, H, W) tensor as RGB."""

    pixels: Tensor

    def __call__(self, index: int) -> Tensor:
        return self.pixels[index].expand(3, -1, -1).contiguous()
