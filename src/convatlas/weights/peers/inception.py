"""Inception-v3 elsewhere."""

import re

from torch import nn

from ...zoo import Arch
from .peer import TF, Peer, Preprocess, Rules, Unlike, of_keras, pair

STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
SEVENS = ("reduce", "column1", "row1", "column2", "row2")
UNITS = ("5b", "5c", "5d"), ("6a", "6b", "6c", "6d", "6e"), ("7a", "7b", "7c")  # of pytorchcv's three stages


def torchvision(spec: Arch) -> Rules:
    """Torchvision's and timm's names: a branch by its kernels, its layers from 1."""
    ours, theirs = r"mixed(\w\w)", r"Mixed_\1.branch"
    return (
        *(rule for n, name in enumerate(STEM, 1) for rule in pair(rf"stem\.conv{n}", name)),
        *pair(rf"{ours}\.one", rf"{theirs}1x1"),
        *pair(rf"{ours}\.five\.reduce", rf"{theirs}5x5_1"),
        *pair(rf"{ours}\.five\.conv", rf"{theirs}5x5_2"),
        *pair(rf"{ours}\.threes\.reduce", rf"{theirs}3x3dbl_1"),
        *pair(r"mixed(5\w|6a)\.threes\.conv1", rf"{theirs}3x3dbl_2"),
        *pair(r"mixed(5\w|6a)\.threes\.conv2", rf"{theirs}3x3dbl_3"),
        *pair(rf"{ours}\.threes\.conv", rf"{theirs}3x3dbl_2"),
        *pair(rf"{ours}\.threes\.split\.row", rf"{theirs}3x3dbl_3a"),
        *pair(rf"{ours}\.threes\.split\.column", rf"{theirs}3x3dbl_3b"),
        *pair(r"mixed(6a)\.three", rf"{theirs}3x3"),
        *pair(rf"{ours}\.three\.reduce", rf"{theirs}3x3_1"),
        *pair(rf"{ours}\.three\.conv", rf"{theirs}3x3_2"),
        *pair(rf"{ours}\.three\.split\.row", rf"{theirs}3x3_2a"),
        *pair(rf"{ours}\.three\.split\.column", rf"{theirs}3x3_2b"),
        *(rule for n, name in enumerate(("reduce", "row", "column"), 1)
          for rule in pair(rf"mixed(6[b-e])\.seven\.{name}", rf"{theirs}7x7_{n}")),
        *(rule for n, name in enumerate(SEVENS, 1)
          for rule in pair(rf"{ours}\.sevens\.{name}", rf"{theirs}7x7dbl_{n}")),
        *(rule for n, name in enumerate(("reduce", "row", "column", "conv"), 1)
          for rule in pair(rf"mixed(7a)\.seven\.{name}", rf"{theirs}7x7x3_{n}")),
        *pair(rf"{ours}\.pool\.proj", rf"{theirs}_pool"),
        *pair(r"aux\.mixed6e\.proj", "AuxLogits.conv0"),
        *pair(r"aux\.mixed6e\.conv", "AuxLogits.conv1"),
        (r"aux\.mixed6e\.fc", "AuxLogits.fc"),
        (r"head\.fc", "fc"),
    )  # fmt: skip


def keras(spec: Arch) -> Rules:
    """Keras left these layers unnamed and so numbered them, in our order."""
    kinds = {nn.Conv2d: "conv2d", nn.BatchNorm2d: "batch_normalization"}
    rules = [(r"head\.fc", "predictions")]
    for kind, name in kinds.items():
        paths = [path for path, m in spec.skeleton().named_modules() if isinstance(m, kind)]
        rules += [(re.escape(path), f"{name}_{i}" if i else name) for i, path in enumerate(paths)]
    return tuple(rules)


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv counts stages, units, branches and layers from 1; a lone 1x1 is `conv`, several are in a list."""
    where = {name: f"features.stage{s}.unit{u}" for s, names in enumerate(UNITS, 1) for u, name in enumerate(names, 1)}
    branches = {name: list(dict(module.named_children())) for name, module in spec.skeleton().named_children()}

    def layer(m: re.Match[str]) -> str:
        module, branch, name = m.groups()
        number = branches[f"mixed{module}"].index(branch) + 1
        if name and name.startswith("split."):
            inner = {"split.row": "conv1x3", "split.column": "conv3x1"}[name]
        elif branch in ("one", "pool"):
            inner = "conv"
        else:
            order = ("reduce", "conv1", "conv2") if branch == "threes" and module < "7" else ORDER[branch]
            inner = f"conv_list.conv{order.index(name or 'reduce') + 1}"
        return f"{where[module]}.branches.branch{number}.{inner}"

    return (
        *pair(r"stem\.(conv\d)", r"features.init_block.\1"),
        *pair(r"mixed(\w\w)\.(\w+?)(?:\.(split\.\w+|\w+))?", layer),
        (r"head\.fc", "output.fc"),
    )


ORDER = {
    "five": ("reduce", "conv"),
    "three": ("reduce", "conv"),
    "threes": ("reduce", "conv"),
    "seven": ("reduce", "row", "column", "conv"),
    "sevens": SEVENS,
}
SIZE = Preprocess(size=299, resize=342, mean=TF.mean, std=TF.std)
V3 = {"inception_v3": "inception_v3"}
PEERS = (
    Peer("torchvision", V3, torchvision, preprocess=SIZE),
    Peer("timm", V3, torchvision, aux=False, preprocess=SIZE),
    Peer("keras", {"inception_v3.keras": "InceptionV3"}, keras, tensor=of_keras, gamma=False, preprocess=SIZE),
    Peer("pytorchcv", {"inception_v3": "inceptionv3"}, pytorchcv, aux=False, preprocess=SIZE),
)
UNLIKE = (
    Unlike("keras", "InceptionV3", "inception_v3",
           "Its average pools leave out what lies over the edge, where others count zeros: see inception_v3.keras."),
)  # fmt: skip
