"""ResNets with pre-activation elsewhere."""

import re

from ...zoo import Arch
from .peer import Peer, Rules, Unlike, convolution, for_small

DEPTHS = (50, 101, 152)
UNIT = r"stage(\d)\.(\d+)"


def timm(spec: Arch) -> Rules:
    """Timm counts stages from 0, and gives each BatchNorm the number of the convolution behind it."""

    def block(m: re.Match[str]) -> str:
        return f"stages.{int(m[1]) - 1}.blocks.{m[2]}"

    return (
        (r"stem\.conv", "stem.conv"),
        (rf"{UNIT}(?:\.res\.body)?\.norm", lambda m: f"{block(m)}.norm1"),
        (rf"{UNIT}\.res\.body\.conv(\d)\.conv", lambda m: f"{block(m)}.conv{m[3]}"),
        (rf"{UNIT}\.res\.body\.conv(\d)\.norm", lambda m: f"{block(m)}.norm{int(m[3]) + 1}"),
        (rf"{UNIT}\.res\.skip\.conv", lambda m: f"{block(m)}.downsample.conv"),
        (r"final\.norm", "norm"),
        (r"head\.fc", "head.fc"),
    )


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv counts units from 1; its layers are BatchNorm, ReLU and convolution, ours the other way round."""

    def unit(m: re.Match[str]) -> str:
        return f"features.stage{m[1]}.unit{int(m[2]) + 1}"

    return (
        (r"stem\.conv", "features.init_block" if for_small(spec) else "features.init_block.conv"),
        (r"stem\.norm", "features.init_block.bn"),
        (rf"{UNIT}(?:\.res\.body)?\.norm", lambda m: f"{unit(m)}.body.conv1.bn"),
        (rf"{UNIT}\.res\.body\.conv(\d)\.conv", lambda m: f"{unit(m)}.body.conv{m[3]}.conv"),
        (rf"{UNIT}\.res\.body\.conv(\d)\.norm", lambda m: f"{unit(m)}.body.conv{int(m[3]) + 1}.bn"),
        (rf"{UNIT}\.res\.skip\.conv", lambda m: f"{unit(m)}.identity_conv"),
        (r"final\.norm", "features.post_activ.bn"),
        (r"head\.fc", "output"),
    )


PEERS = (
    Peer("timm", {f"preact_resnet{depth}.timm": f"resnetv2_{depth}" for depth in DEPTHS}, timm,
         layouts={"head.fc": convolution(1)}),
    Peer("pytorchcv",
         {f"preact_resnet{depth}.pytorchcv": f"preresnet{depth}" for depth in (*DEPTHS, 200)}
         | {"preact_resnet164.pytorchcv": "preresnet164bn_cifar10"},
         pytorchcv),
)  # fmt: skip
TWICE = "Behind the stem and again in the first unit it has a BatchNorm and a ReLU: see {}."
UNLIKE = (
    *(Unlike("timm", f"resnetv2_{depth}", f"preact_resnet{depth}",
             f"Its strides are in the 3x3, and its stem has no BatchNorm and ReLU: see preact_resnet{depth}.timm.")
      for depth in DEPTHS),
    *(Unlike("keras", f"ResNet{depth}V2", f"preact_resnet{depth}",
             "Its strides are in the last unit of a stage instead of the first, its shortcut there is a max pool, and "
             "its stem has no BatchNorm and ReLU.")
      for depth in DEPTHS),
    *(Unlike("pytorchcv", f"preresnet{depth}", f"preact_resnet{depth}", TWICE.format(f"preact_resnet{depth}.pytorchcv"))
      for depth in (*DEPTHS, 200)),
    Unlike("pytorchcv", "preresnet110_cifar10", "preact_resnet110", "Its shortcuts project where the paper's pad."),
    Unlike("pytorchcv", "preresnet164bn_cifar10", "preact_resnet164",
           "Its strides are in the 3x3, and its stem has no BatchNorm and ReLU: see preact_resnet164.pytorchcv."),
    Unlike("pytorchcv", "preresnet1001_cifar10", "preact_resnet1001",
           "Its strides are in the 3x3, and its stem has no BatchNorm and ReLU."),
)  # fmt: skip
