"""ResNet and ResNeXt elsewhere."""

import re

from ...zoo import Arch
from .peer import CAFFE, CIFAR, CIFAR10, Peer, Rules, Unlike, for_small, of_keras

DEEP = (50, 101, 152)
V1_5 = {f"resnet{depth}.v1_5": f"resnet{depth}" for depth in DEEP}
BASIC_B = {f"resnet{depth}.b": f"resnet{depth}" for depth in (18, 34)}
RESNEXT = {name: name for name in ("resnext50_32x4d", "resnext101_32x4d")}
BODY = r"stage(\d)\.(\d+)\.res\.body\.conv(\d)"


def torchvision(spec: Arch) -> Rules:
    """Torchvision's and timm's names."""
    return (
        (r"stem\.conv", "conv1"),
        (r"stem\.norm", "bn1"),
        (rf"{BODY}\.conv", r"layer\1.\2.conv\3"),
        (rf"{BODY}\.norm", r"layer\1.\2.bn\3"),
        (r"stage(\d)\.(\d+)\.res\.skip\.conv", r"layer\1.\2.downsample.0"),
        (r"stage(\d)\.(\d+)\.res\.skip\.norm", r"layer\1.\2.downsample.1"),
        (r"head\.fc", "fc"),
    )


def akamaster(spec: Arch) -> Rules:
    """github.com/akamaster/pytorch_resnet_cifar10: the same names behind `module.`, and `linear` for `fc`."""
    return (*((pattern, f"module.{new}") for pattern, new in torchvision(spec)[:-1]), (r"head\.fc", "module.linear"))


def keras(spec: Arch) -> Rules:
    """Keras counts the stem as stage 1, units from 1, and the shortcut as layer 0."""

    def unit(m: re.Match[str]) -> str:
        stage, unit, layer, kind = m.groups()
        return (
            f"conv{int(stage) + 1}_block{int(unit) + 1}_{layer.replace('skip', '0')[-1]}_{kind.replace('norm', 'bn')}"
        )

    return (
        (r"stem\.conv", "conv1_conv"),
        (r"stem\.norm", "conv1_bn"),
        (r"stage(\d)\.(\d+)\.res\.(body\.conv\d|skip)\.(conv|norm)", unit),
        (r"head\.fc", "predictions"),
    )


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv counts units from 1."""

    def unit(m: re.Match[str]) -> str:
        module = m[3].replace("skip", "identity_conv").replace("norm", "bn")
        return f"features.stage{m[1]}.unit{int(m[2]) + 1}.{module}"

    stem = "features.init_block" if for_small(spec) else "features.init_block.conv"
    return (
        (r"stem\.conv", f"{stem}.conv"),
        (r"stem\.norm", f"{stem}.bn"),
        (r"stage(\d)\.(\d+)\.res\.(.+)", unit),
        (r"head\.fc", "output"),
    )


PEERS = (
    Peer("torchvision", BASIC_B | V1_5 | {"resnext50_32x4d": "resnext50_32x4d"}, torchvision),
    Peer("timm", BASIC_B | V1_5 | RESNEXT, torchvision),
    Peer("akamaster", {f"resnet{depth}": f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)}, akamaster,
         preprocess=CIFAR, classes=CIFAR10),
    Peer("keras", {f"resnet{depth}": f"ResNet{depth}" for depth in DEEP}, keras, tensor=of_keras, eps=1.001e-5,
         conv_bias=True, bgr=True, preprocess=CAFFE),
    Peer("pytorchcv",
         BASIC_B | {f"resnet{depth}": f"resnet{depth}" for depth in DEEP} | RESNEXT
         | {f"resnet{depth}.v1_5": f"resnet{depth}b" for depth in DEEP}
         | {f"resnet{depth}.b": f"resnet{depth}_cifar10" for depth in (20, 56, 110, 1202)},
         pytorchcv),
)  # fmt: skip
PROJECTS = "Its shortcuts project where the width changes; the paper's pad with zeros: see {}."
V15 = "Its strides are in the 3x3, the paper's in the 1x1: see {}."
UNLIKE = (
    *(Unlike(library, f"resnet{depth}", f"resnet{depth}", PROJECTS.format(f"resnet{depth}.b"))
      for library in ("torchvision", "timm", "pytorchcv") for depth in (18, 34)),
    *(Unlike(library, f"resnet{depth}", f"resnet{depth}", V15.format(f"resnet{depth}.v1_5"))
      for library in ("torchvision", "timm") for depth in DEEP),
    *(Unlike("pytorchcv", f"resnet{depth}_cifar10", f"resnet{depth}", PROJECTS.format(f"resnet{depth}.b"))
      for depth in (20, 56, 110, 1202)),
)  # fmt: skip
