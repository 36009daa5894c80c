"""Their names -> our names: a table of rules for each source and family; every foreign key matches exactly one."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ..data import Preprocess
from ..data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from ..zoo import Arch
from ..zoo.resnet import ResNet
from ..zoo.vgg import VGG

Rules = tuple[tuple[str, str], ...]  # (pattern that matches a whole key, replacement)

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Source:
    """A library or repository whose weights we read: for which specs, by which rules, with images prepared how."""

    name: str
    has: Callable[[Arch], bool]
    rules: Callable[[Arch], Rules]
    preprocess: Preprocess
    classes: tuple[str, ...] = ()


def rename(rules: Rules, theirs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict under our names, and a line for every key that does not match exactly one rule."""
    ours, problems = {}, []
    for key, tensor in theirs.items():
        hits = [(pattern, new) for pattern, new in rules if re.fullmatch(pattern, key)]
        if len(hits) == 1:
            ours[re.sub(*hits[0], key)] = tensor
        else:
            problems.append(f"{key!r} matches {len(hits)} rules")
    return ours, problems


def resnet(spec: Arch) -> Rules:
    """Torchvision's and timm's ResNets."""
    return (
        (r"conv1\.(\w+)", r"stem.conv.\1"),
        (r"bn1\.(\w+)", r"stem.norm.\1"),
        (r"layer(\d)\.(\d+)\.conv(\d)\.(\w+)", r"stage\1.\2.res.body.conv\3.conv.\4"),
        (r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", r"stage\1.\2.res.body.conv\3.norm.\4"),
        (r"layer(\d)\.(\d+)\.downsample\.0\.(\w+)", r"stage\1.\2.res.skip.conv.\3"),
        (r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)", r"stage\1.\2.res.skip.norm.\3"),
        (r"fc\.(\w+)", r"head.fc.\1"),
    )


def cifar_resnet(spec: Arch) -> Rules:
    """akamaster/pytorch_resnet_cifar10: the same names behind `module.`, and `linear` for `fc`."""
    inner = ((pattern.replace(r"fc\.", r"linear\."), new) for pattern, new in resnet(spec))
    return tuple((r"module\." + pattern, new) for pattern, new in inner)


def vgg_features(spec: Arch) -> Rules:
    """`features.N` counts the leaves of our stages in order, as torchvision and timm both do."""
    net = spec.skeleton()
    leaves = [p for p, m in net.named_modules() if not list(m.children()) and not p.startswith(("head", "aux"))]
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    learned = [(i, path) for i, path in enumerate(leaves) if isinstance(net.get_submodule(path), kinds)]
    return tuple((rf"features\.{i}\.(\w+)", rf"{path}.\1") for i, path in learned)


def torchvision_vgg(spec: Arch) -> Rules:
    """Torchvision's VGGs."""
    fc = ((rf"classifier\.{i}\.(\w+)", rf"head.fc{n}.\1") for i, n in ((0, 1), (3, 2), (6, 3)))
    return (*vgg_features(spec), *fc)


def timm_vgg(spec: Arch) -> Rules:
    """Timm's VGGs; its first two fully connected layers are convolutions, of the same numbers in the same order."""
    return (
        *vgg_features(spec),
        (r"pre_logits\.fc([12])\.(\w+)", r"head.fc\1.\2"),
        (r"head\.fc\.(\w+)", r"head.fc3.\1"),
    )


def is_vgg(spec: Arch) -> bool:
    """Whether it is a VGG."""
    return isinstance(spec, VGG)


def is_imagenet_resnet(spec: Arch) -> bool:
    """Whether torchvision and timm have it: strides elsewhere than in the 3x3 fit by shape, but compute otherwise."""
    return isinstance(spec, ResNet) and spec.stem == "imagenet" and (not spec.bottleneck or spec.stride_in == 3)


def is_cifar_resnet(spec: Arch) -> bool:
    """Whether it is a ResNet for small images."""
    return isinstance(spec, ResNet) and spec.stem == "cifar"


CIFAR_IMAGES = Preprocess(size=32, resize=32, mean=IMAGENET_MEAN, std=IMAGENET_STD)

SOURCES = (
    Source("torchvision", is_imagenet_resnet, resnet, Preprocess()),
    Source("torchvision", is_vgg, torchvision_vgg, Preprocess()),
    Source("timm", is_imagenet_resnet, resnet, Preprocess()),
    Source("timm", is_vgg, timm_vgg, Preprocess()),
    Source("akamaster", is_cifar_resnet, cifar_resnet, CIFAR_IMAGES, CIFAR10),
)
