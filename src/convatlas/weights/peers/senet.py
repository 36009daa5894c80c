"""Networks with Squeeze-and-Excitation elsewhere."""

import re

from ...zoo import Arch
from . import resnet
from .peer import Peer, Rules, Unlike

GATE = r"stage(\d)\.(\d+)\.res\.body\.se\.gate\.fc(\d)"


def timm(spec: Arch) -> Rules:
    """Timm's ResNets, with a gate in each unit."""
    return (*resnet.torchvision(spec), (GATE, r"layer\1.\2.se.fc\3"))


def legacy(spec: Arch) -> Rules:
    """Timm's copy of the authors' release: the same with other ends."""
    return (
        *resnet.torchvision(spec)[2:-1],
        (r"stem\.conv(\d)\.conv", r"layer0.conv\1"),
        (r"stem\.conv(\d)\.norm", r"layer0.bn\1"),
        (GATE, r"layer\1.\2.se_module.fc\3"),
        (r"head\.fc", "last_linear"),
    )


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv's ResNets, with a gate in each unit."""

    def unit(m: re.Match[str]) -> str:
        layer = m[3].replace("skip", "identity_conv").replace("norm", "bn").replace("body.se.gate.fc", "se.conv")
        return f"features.stage{m[1]}.unit{int(m[2]) + 1}.{layer}"

    stem, norm, _, head = resnet.pytorchcv(spec)
    return (stem, norm, (r"stage(\d)\.(\d+)\.res\.(.+)", unit), head)


V1 = {f"se_resnet{depth}.bias": f"seresnet{depth}" for depth in (50, 101, 152)}
RESNEXT = {f"se_{name}.bias": f"se{name}" for name in ("resnext50_32x4d", "resnext101_32x4d")}
PEERS = (
    Peer("timm", {"se_resnet50.v1_5.bias": "seresnet50"} | RESNEXT, timm),
    Peer("timm", {"senet154": "legacy_senet154"}, legacy),
    Peer("pytorchcv",
         V1 | RESNEXT | {"se_resnet18.b.bias": "seresnet18", "se_resnet34.b.bias": "seresnet34",
                         "se_resnet50.v1_5.bias": "seresnet50b"},
         pytorchcv),
)  # fmt: skip
POOL = "Its first max pool is not padded, so that it sees the image shifted by a pixel."
UNLIKE = (
    *(Unlike("timm", f"legacy_seresnet{depth}", f"se_resnet{depth}.bias", POOL) for depth in (50, 101, 152)),
    *(Unlike("timm", f"legacy_seresnet{depth}", f"se_resnet{depth}.b.bias", POOL) for depth in (18, 34)),
    *(Unlike("timm", f"seresnet{depth}", f"se_resnet{depth}.b.bias",
             "Its gates squeeze to 8 channels at least, where the ratio of 16 gives 4.")
      for depth in (18, 34)),
    *(Unlike(library, "senet154", "senet154", "Its first max pool is padded; the release's is not.")
      for library in ("timm", "pytorchcv")),
    *(Unlike("pytorchcv", f"seresnet{depth}_cifar10", f"se_resnet{depth}",
             "Its shortcuts project where the paper's pad, and its gates have biases and a ratio of 16.")
      for depth in (20, 56, 110)),
)  # fmt: skip
