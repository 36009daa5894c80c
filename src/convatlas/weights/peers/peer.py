"""What is known of another library's weights: which networks it has, how it calls our modules, how it stores a tensor.

The tables run from ours to theirs, because all of our names are known; `convert.py` runs them both ways.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from ...data import Preprocess
from ...data.preprocess import IMAGENET_MEAN
from ...zoo import Arch, spec

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]  # (pattern of a whole name, replacement)


@dataclass(frozen=True)
class Layout:
    """How a tensor of ours is stored there, and the way back."""

    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


AS_OURS = Layout(lambda t: t, lambda t: t)
TRANSPOSED = Layout(lambda t: t.T, lambda t: t.T)  # (out, in) <-> (in, out)
HWIO = Layout(lambda t: t.permute(2, 3, 1, 0), lambda t: t.permute(3, 2, 0, 1))  # (out, in, h, w) <-> (h, w, in, out)
DEPTHWISE = Layout(lambda t: t.permute(2, 3, 0, 1), lambda t: t.permute(2, 3, 0, 1))  # (c, 1, h, w) <-> (h, w, c, 1)
LINEAR = Layout(lambda t: t.flatten(1), lambda t: t[..., None, None])  # a 1x1 convolution of ours, linear there


def convolution(k: int) -> Layout:
    """A linear layer of ours on a map k x k, a convolution there."""
    return Layout(lambda t: t.unflatten(1, (-1, k, k)), lambda t: t.flatten(1))


def channels_last(k: int) -> Layout:
    """A linear layer of ours on a map k x k that is flattened with its channels last there, and transposed."""
    return Layout(
        lambda t: t.unflatten(1, (-1, k, k)).permute(2, 3, 1, 0).flatten(0, 2),
        lambda t: t.unflatten(0, (k, k, -1)).permute(3, 2, 0, 1).flatten(1),
    )


def of_torch(leaf: nn.Module, tensor: str) -> tuple[str, Layout]:
    """What a tensor of a leaf is called, behind the leaf's name, and its layout: those of `torch.nn`."""
    return f".{tensor}", AS_OURS


def of_keras(leaf: nn.Module, tensor: str) -> tuple[str, Layout] | None:
    """The same for Keras, which does not count batches."""
    if isinstance(leaf, nn.BatchNorm2d):
        names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        return (f"/{names[tensor]}", AS_OURS) if tensor in names else None
    if tensor == "bias":
        return "/bias", AS_OURS
    if isinstance(leaf, nn.Conv2d):
        depthwise = leaf.groups == leaf.in_channels > 1
        return "/kernel", DEPTHWISE if depthwise else HWIO
    return "/kernel", TRANSPOSED


@dataclass(frozen=True, eq=False)
class Peer:
    """One family's networks in another library.

    `networks` says which network there is which of ours, `rules` what our modules are called there.  The weights are
    the same numbers except for what the other fields say; all of it is exact in eval mode.
    """

    library: str
    networks: Mapping[str, str]
    rules: Callable[[Arch], Rules]
    tensor: Callable[[nn.Module, str], tuple[str, Layout] | None] = of_torch
    layouts: Mapping[str, Layout] = field(default_factory=dict)  # of weights that are stored in another one, by module
    eps: float | None = None  # of their BatchNorms, where it is not ours: the variances make up for it
    conv_bias: bool | None = None  # whether convolutions have biases before BatchNorm, where not as ours: see the means
    gamma: bool = True  # their BatchNorms have a gamma; if not, it is multiplied into the convolution before it
    bgr: bool = False  # their images are blue, green, red: the first convolution is turned round
    aux: bool = True  # whether they have our auxiliary heads
    lacks: tuple[str, ...] = ()  # tensors of ours that they do not have, as if zero
    aliases: Rules = ()  # names in older files -> today's
    preprocess: Preprocess = field(default_factory=Preprocess)
    classes: tuple[str, ...] = ()

    def name_of(self, arch: Arch) -> str | None:
        """Their name of the network; None if they do not have it."""
        if arch.name not in self.networks:
            return None
        ours = self.fitted(spec(arch.name))
        same = replace(self.fitted(arch), classes=ours.classes, in_channels=ours.in_channels, size=ours.size) == ours
        return self.networks[arch.name] if same else None

    def fitted(self, arch: Arch) -> Arch:
        """The spec without what they do not have: auxiliary heads."""
        return arch if self.aux else replace(arch, **{"aux": False})


@dataclass(frozen=True)
class Unlike:
    """A network of another library that cannot take our weights, nor we its, and why; `network` is our nearest."""

    library: str
    theirs: str
    network: str
    reason: str


# How Keras prepares images [keras.applications.imagenet_utils]: "caffe" subtracts the mean from 0..255, "tf" is -1..1.
CAFFE = Preprocess(mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255,) * 3)
TF = Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)
CIFAR = Preprocess(size=32, resize=32, mean=IMAGENET_MEAN)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def pair(pattern: str, new: str | Callable[[re.Match[str]], str]) -> Rules:
    """Two rules, for a convolution and the BatchNorm beside it, which are called `conv` and `bn` there."""
    if isinstance(new, str):
        return (rf"{pattern}\.conv", f"{new}.conv"), (rf"{pattern}\.norm", f"{new}.bn")
    return (rf"{pattern}\.conv", lambda m: f"{new(m)}.conv"), (rf"{pattern}\.norm", lambda m: f"{new(m)}.bn")


def for_small(spec: Arch) -> bool:
    """Whether the network begins as those for CIFAR do, with a 3x3 without stride; its `size` may be anything."""
    return getattr(spec, "stem", "imagenet") == "cifar"


def identity(names: Iterable[str]) -> dict[str, str]:
    """Networks that are called the same there."""
    return {name: name for name in names}


def rename(rules: Rules, name: str) -> str:
    """The name that the one rule for it gives.  Raises ValueError unless exactly one rule is for it."""
    hits = [(pattern, new) for pattern, new in rules if re.fullmatch(pattern, name)]
    if len(hits) != 1:
        raise ValueError(f"{name!r} matches {len(hits)} rules")
    return re.sub(*hits[0], name)
