"""GoogLeNet and BN-Inception elsewhere."""

import re

from ...zoo import Arch
from .peer import TF, Peer, Rules, Unlike, pair


def torchvision(spec: Arch) -> Rules:
    """Torchvision counts the branches, and the layers of a branch from 0."""
    module = r"(inception\w+)"
    return (
        *pair("conv1", "conv1"),
        *pair(r"conv2\.reduce", "conv2"),
        *pair(r"conv2\.conv", "conv3"),
        *pair(rf"{module}\.one", r"\1.branch1"),
        *pair(rf"{module}\.three\.reduce", r"\1.branch2.0"),
        *pair(rf"{module}\.three\.conv", r"\1.branch2.1"),
        *pair(rf"{module}\.five\.reduce", r"\1.branch3.0"),
        *pair(rf"{module}\.five\.conv", r"\1.branch3.1"),
        *pair(rf"{module}\.pool\.proj", r"\1.branch4.1"),
        *pair(r"aux\.inception4a\.conv", "aux1.conv"),
        *pair(r"aux\.inception4d\.conv", "aux2.conv"),
        (r"aux\.inception4a\.(fc\d)", r"aux1.\1"),
        (r"aux\.inception4d\.(fc\d)", r"aux2.\1"),
        (r"head\.fc", "fc"),
    )


UNITS = ("3a", "3b"), ("3c", "4a", "4b", "4c", "4d"), ("4e", "5a", "5b")  # of pytorchcv's three stages
REDUCTIONS = ("3c", "4e")  # without the branch of one 1x1: the others are counted from 1


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv begins a stage with the module that halves the map, and counts branches and their layers from 1."""
    where = {name: f"features.stage{s}.unit{u}" for s, names in enumerate(UNITS, 1) for u, name in enumerate(names, 1)}

    def branch(m: re.Match[str]) -> str:
        module, name, layer = m.groups()
        number = {"one": 1, "three": 2, "double3x3": 3, "pool": 4}[name] - (module in REDUCTIONS)
        if name == "one":
            return f"{where[module]}.branches.branch1"
        if name == "pool":
            return f"{where[module]}.branches.branch4.conv"
        first = {"reduce": 1, "conv": 2, "conv1": 2, "conv2": 3}[layer]
        return f"{where[module]}.branches.branch{number}.conv{first}"

    return (
        *pair("conv1", "features.init_block.conv1"),
        *pair(r"conv2\.reduce", "features.init_block.conv2.conv1"),
        *pair(r"conv2\.conv", "features.init_block.conv2.conv2"),
        *pair(r"inception(\d\w)\.(one|three|double3x3|pool)(?:\.(\w+))?", branch),
        (r"head\.fc", "output"),
    )


PEERS = (
    Peer("torchvision", {"googlenet.torchvision": "googlenet"}, torchvision, preprocess=TF),
    Peer("pytorchcv", {"bn_inception.608": "bninception"}, pytorchcv, conv_bias=True),
)
UNLIKE: tuple[Unlike, ...] = ()
