"""VGG elsewhere."""

from torch import nn

from ...zoo import Arch
from .peer import CAFFE, Peer, Rules, channels_last, convolution, identity, of_keras

NAMES = tuple(f"vgg{depth}" for depth in (11, 13, 16, 19))
WITH_NORM = tuple(f"{name}_bn" for name in NAMES)


def features(spec: Arch) -> Rules:
    """`features.N` counts the leaves of our stages in order, as torchvision and timm both do."""
    net = spec.skeleton()
    leaves = [p for p, m in net.named_modules() if not list(m.children()) and not p.startswith(("head", "aux"))]
    learned = (nn.Conv2d, nn.BatchNorm2d)
    return tuple(
        (path.replace(".", r"\."), f"features.{i}")
        for i, path in enumerate(leaves)
        if isinstance(net.get_submodule(path), learned)
    )


def torchvision(spec: Arch) -> Rules:
    """Torchvision's classifier counts its layers too."""
    return (*features(spec), *((rf"head\.fc{n}", f"classifier.{i}") for n, i in ((1, 0), (2, 3), (3, 6))))


def timm(spec: Arch) -> Rules:
    """Timm's first two fully connected layers are convolutions."""
    return (*features(spec), (r"head\.fc([12])", r"pre_logits.fc\1"), (r"head\.fc3", "head.fc"))


def keras(spec: Arch) -> Rules:
    """Keras calls the stages blocks."""
    return (
        (r"stage(\d)\.conv(\d)\.conv", r"block\1_conv\2"),
        (r"head\.fc([12])", r"fc\1"),
        (r"head\.fc3", "predictions"),
    )


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv has a stage of units too."""
    return (
        (r"stage(\d)\.conv(\d)\.conv", r"features.stage\1.unit\2.conv"),
        (r"stage(\d)\.conv(\d)\.norm", r"features.stage\1.unit\2.bn"),
        (r"head\.fc([12])", r"output.fc\1.fc"),
        (r"head\.fc3", "output.fc3"),
    )


PEERS = (
    Peer("torchvision", identity(NAMES + WITH_NORM), torchvision),
    Peer("timm", identity(NAMES + WITH_NORM), timm,
         layouts={"head.fc1": convolution(7), "head.fc2": convolution(1)}),
    Peer("keras", {"vgg16": "VGG16", "vgg19": "VGG19"}, keras, tensor=of_keras, layouts={"head.fc1": channels_last(7)},
         bgr=True, preprocess=CAFFE),
    Peer("pytorchcv", identity(NAMES) | {f"{name}_bn": f"bn_{name}b" for name in NAMES}, pytorchcv),
    Peer("pytorchcv", {f"{name}_bn": f"bn_{name}" for name in NAMES}, pytorchcv, conv_bias=False),
)  # fmt: skip
