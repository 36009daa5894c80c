"""DenseNet elsewhere."""

from ...zoo import Arch
from .peer import Peer, Rules, Unlike, for_small, identity, of_keras, pair

DEPTHS = (121, 161, 169, 201)
NAMES = identity([f"densenet{depth}" for depth in DEPTHS])


def torchvision(spec: Arch) -> Rules:
    """Torchvision's and timm's names; layers are counted from 1."""

    def layer(kind: str):
        return lambda m: f"features.denseblock{m[1]}.denselayer{int(m[2]) + 1}.{kind}{m[3]}"

    return (
        (r"stem\.(conv|norm)", r"features.\g<1>0"),
        (r"block(\d)\.(\d+)\.new\.conv(\d)\.norm", layer("norm")),
        (r"block(\d)\.(\d+)\.new\.conv(\d)\.conv", layer("conv")),
        (r"transition(\d)\.conv\.(conv|norm)", r"features.transition\1.\2"),
        (r"final\.norm", "features.norm5"),
        (r"head\.fc", "classifier"),
    )


def keras(spec: Arch) -> Rules:
    """Keras counts the stem as block 1, layers from 1, and what is in a layer by its convolutions."""

    def layer(last: str):
        return lambda m: f"conv{int(m[1]) + 1}_block{int(m[2]) + 1}_{last}"

    return (
        (r"stem\.conv", "conv1_conv"),
        (r"stem\.norm", "conv1_bn"),
        (r"block(\d)\.(\d+)\.new\.conv1\.norm", layer("0_bn")),
        (r"block(\d)\.(\d+)\.new\.conv1\.conv", layer("1_conv")),
        (r"block(\d)\.(\d+)\.new\.conv2\.norm", layer("1_bn")),
        (r"block(\d)\.(\d+)\.new\.conv2\.conv", layer("2_conv")),
        (r"transition(\d)\.conv\.norm", lambda m: f"pool{int(m[1]) + 1}_bn"),
        (r"transition(\d)\.conv\.conv", lambda m: f"pool{int(m[1]) + 1}_conv"),
        (r"final\.norm", "bn"),
        (r"head\.fc", "predictions"),
    )


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv begins a stage with the transition before it, and counts units from 1."""
    return (
        *(((r"stem\.conv", "features.init_block"),) if for_small(spec) else pair(r"stem", "features.init_block")),
        *pair(r"block(\d)\.(\d+)\.new\.(conv\d)", lambda m: f"features.stage{m[1]}.unit{int(m[2]) + 1}.{m[3]}"),
        *pair(r"transition(\d)\.conv", lambda m: f"features.stage{int(m[1]) + 1}.trans{int(m[1]) + 1}.conv"),
        (r"final\.norm", "features.post_activ.bn"),
        (r"head\.fc", "output"),
    )


OLD = ((r"(.+\.denselayer\d+\.(?:norm|conv))\.([12]\..+)", r"\1\2"),)  # torchvision's files are from before version 0.3
CIFAR_BC = {
    "densenet_bc100_k12": "densenet100_k12_bc_cifar10",
    "densenet_bc250_k24": "densenet250_k24_bc_cifar10",
    "densenet_bc190_k40": "densenet190_k40_bc_cifar10",
}
PEERS = (
    Peer("torchvision", NAMES, torchvision, aliases=OLD),
    Peer("timm", NAMES, torchvision, aliases=OLD),
    Peer("keras", {f"densenet{depth}": f"DenseNet{depth}" for depth in (121, 169, 201)}, keras, tensor=of_keras,
         eps=1.001e-5),
    Peer("pytorchcv", NAMES | CIFAR_BC, pytorchcv),
)  # fmt: skip
COMPRESSED = "Its transitions halve the channels, which the paper's plain DenseNet keeps."
UNLIKE = (
    Unlike("timm", "densenet264d", "densenet264", "It grows by 48 channels instead of 32, after a stem of three 3x3."),
    *(Unlike("pytorchcv", f"densenet{name}_cifar10", f"densenet{name}", COMPRESSED)
      for name in ("40_k12", "100_k12", "100_k24")),
)  # fmt: skip
