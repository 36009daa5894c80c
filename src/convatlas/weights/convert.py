"""Our weights to theirs and theirs to ours, by the tables of `peers`: the same logits in eval mode.

ours <-> (biases, gammas, eps) <-> what they store, under our names <-> (names, layouts) <-> theirs
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..zoo import Arch
from .bundle import layout, skeleton
from .peers import Peer, rename
from .peers.peer import Layout
from .store import DTYPES

Tensors = dict[str, Tensor]


def to_theirs(peer: Peer, arch: Arch, ours: Tensors) -> Tensors:
    """Their state dict with our weights."""
    there = stored(peer, arch, ours)
    return {new: where.there(there[name]) for name, (new, where) in names(peer, arch).items()}


def to_ours(peer: Peer, arch: Arch, theirs: Tensors) -> Tensors:
    """Our state dict with their weights, which must be those that `expected` names."""
    here = {name: where.back(theirs[new]) for name, (new, where) in names(peer, arch).items() if new in theirs}
    here, known = turned(peer, arch, here), layout(arch)
    for conv, norm in structure(arch).pairs:
        bias, mean = f"{conv}.bias", f"{norm}.running_mean"
        if bias in here and bias not in known:
            here[mean] = here[mean] - here.pop(bias)
        if bias in known and bias not in here:
            here[bias] = torch.zeros_like(here[mean])
        here.setdefault(f"{norm}.weight", torch.ones_like(here[mean]))
    for path, norm in structure(arch).norms():
        if peer.eps not in (None, norm.eps):
            here[f"{path}.running_var"] = here[f"{path}.running_var"] + (peer.eps - norm.eps)
        here.setdefault(f"{path}.num_batches_tracked", torch.zeros((), dtype=torch.long))
    here |= {name: torch.zeros(known[name].shape) for name in peer.lacks}
    return {name: here[name].contiguous() for name in known}


def stored(peer: Peer, arch: Arch, ours: Tensors) -> Tensors:
    """The tensors that they store, still under our names and in our layouts."""
    there = turned(peer, arch, {name: ours[name] for name in layout(arch)})
    for name in peer.lacks:
        if not there[name].is_meta and there.pop(name).any():
            what = f"{name!r} of {arch.name} is not zero, and {peer.library}'s {peer.networks[arch.name]} has none"
            raise ConfigError("L2", what, "export to another library")
        there.pop(name, None)
    for path, norm in structure(arch).norms():
        if peer.eps not in (None, norm.eps):
            there[f"{path}.running_var"] = there[f"{path}.running_var"] + (norm.eps - peer.eps)
    for conv, norm in structure(arch).pairs:
        weight, bias, mean = f"{conv}.weight", f"{conv}.bias", f"{norm}.running_mean"
        if not peer.gamma:
            gamma = there.pop(f"{norm}.weight")
            there[weight] = there[weight] * gamma[:, None, None, None]
            there |= {name: there[name] * gamma for name in (bias, mean) if name in there}
        if peer.conv_bias is True and bias not in there:
            there[bias] = torch.zeros_like(there[mean])
        if peer.conv_bias is False and bias in there:
            there[mean] = there[mean] - there.pop(bias)
    return there


def turned(peer: Peer, arch: Arch, ours: Tensors) -> Tensors:
    """With the first convolution for images whose channels come in their order, or back in ours."""
    first = next(iter(layout(arch)))
    return ours | {first: ours[first].flip(1)} if peer.bgr and first in ours else dict(ours)


@cache
def names(peer: Peer, arch: Arch) -> dict[str, tuple[str, Layout]]:
    """For each tensor that they store, by our name, its name and layout there.

    Raises ValueError if the rules do not give each module its one name.
    """
    leaves, rules, found = structure(arch).leaves, peer.rules(arch), {}
    modules = {path: rename(rules, path) for path in leaves}
    for name in stored(peer, arch, layout(arch)):
        path, _, tensor = name.rpartition(".")
        if (there := peer.tensor(leaves[path], tensor)) is not None:
            suffix, where = there
            found[name] = modules[path] + suffix, peer.layouts.get(path, where) if tensor == "weight" else where
    theirs = [name for name, _ in found.values()]
    if len(set(theirs)) < len(theirs):
        twice = next(name for name in theirs if theirs.count(name) > 1)
        raise ValueError(f"the rules of {peer.library} for {arch.name} give {twice!r} twice")
    return found


@cache
def expected(peer: Peer, arch: Arch) -> Tensors:
    """Their state dict: names, shapes and types, without memory."""
    return to_theirs(peer, arch, layout(arch))


def fitted(peer: Peer, arch: Arch, theirs: Tensors) -> Arch:
    """The spec with the file's numbers of input channels and classes."""
    stored_as = names(peer, arch)
    first, *_ = stored_as
    *_, last = (name for name in stored_as if name.startswith("head."))
    found = {}
    for name in (first, last):
        new, where = stored_as[name]
        if new in theirs and theirs[new].dim() == expected(peer, arch)[new].dim() > 0:
            found[name] = where.back(theirs[new])
    channels = found[first].shape[1] if first in found else 0
    classes = found[last].shape[0] if last in found else 0
    return replace(arch, in_channels=channels or arch.in_channels, classes=classes or arch.classes)


def differences(peer: Peer, arch: Arch, theirs: Tensors) -> list[str]:
    """How a state dict differs from theirs of this network, a line for each tensor; empty if it fits."""
    wanted = expected(peer, arch)
    lines = [f"has an unknown {name!r}" for name in theirs if name not in wanted]
    for name, tensor in wanted.items():
        if name not in theirs:
            if not name.endswith("num_batches_tracked"):  # files from before torch 0.4.1 have none
                lines.append(f"lacks {name!r}")
        elif theirs[name].shape != tensor.shape:
            lines.append(f"{name!r} is {tuple(theirs[name].shape)}, not {tuple(tensor.shape)}")
        elif theirs[name].dtype not in DTYPES or theirs[name].is_floating_point() != tensor.is_floating_point():
            lines.append(f"{name!r} holds {theirs[name].dtype}")
    return lines


def today(peer: Peer, theirs: Tensors) -> Tensors:
    """The state dict with the names of older files changed into today's."""
    renamed = {}
    for name, tensor in theirs.items():
        for pattern, new in peer.aliases:
            if re.fullmatch(pattern, name):
                name = re.sub(pattern, new, name)
                break
        renamed[name] = tensor
    return renamed


@dataclass(frozen=True)
class Structure:
    """Where a network's tensors hang: its leaves by name, and each convolution with the BatchNorm right behind it."""

    leaves: Mapping[str, nn.Module]
    pairs: tuple[tuple[str, str], ...]

    def norms(self) -> Iterator[tuple[str, nn.BatchNorm2d]]:
        """The BatchNorms, by name."""
        return ((path, leaf) for path, leaf in self.leaves.items() if isinstance(leaf, nn.BatchNorm2d))


@cache
def structure(arch: Arch) -> Structure:
    """That of a spec's network."""
    net = skeleton(arch)
    pairs = []
    for path, chain in net.named_modules():
        if isinstance(chain, nn.Sequential):
            for (conv, first), (norm, second) in pairwise(chain.named_children()):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    pairs.append((f"{path}.{conv}", f"{path}.{norm}"))
    modules = dict(net.named_modules())
    paths = dict.fromkeys(name.rpartition(".")[0] for name in net.state_dict())
    return Structure({path: modules[path] for path in paths}, tuple(pairs))
