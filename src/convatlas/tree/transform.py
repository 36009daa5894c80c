"""Changes to a built network.  Each works in place on any tree, keeps all other weights, and returns the network."""

import difflib
import fnmatch
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import ConfigError
from .combinators import Net, seq
from .cost import cost
from .layers import SE, SamePad


def fold_batch_norm(net: Net) -> Net:
    """Fold every BatchNorm into the convolution right before it, for inference: same logits up to rounding.

    Puts the network in eval mode.  A BatchNorm that does not follow a convolution stays: where a unit begins with it,
    as in DenseNet and behind the additions of pre-activation networks.
    """
    net.eval()
    for chain in chains(net):
        for (owner, name, first), (owner_after, after, second) in pairwise(chain):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                owner.set_submodule(name, fuse_conv_bn_eval(first, second))
                delattr(owner_after, after)
    return net


def chains(net: Net) -> Iterator[list[tuple[nn.Module, str, nn.Module]]]:
    """The layers that run one after another with nothing else reading between them, as (owner, name, layer).

    Nested Sequentials are one chain.  A combinator ends it, and begins one for each of its children.
    """
    for module in list(net.modules()):
        if isinstance(module, Net):
            last = [part in module.aux for part in module.parts]
            cuts = [0, *(i + 1 for i, cut in enumerate(last) if cut), len(last)]
            for start, stop in pairwise(cuts):
                yield [layer for part in module.parts[start:stop] for layer in _layers(module, part)]
        elif not isinstance(module, nn.Sequential):
            for name in list(module._modules):
                yield list(_layers(module, name))


def _layers(owner: nn.Module, name: str) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    layer = owner.get_submodule(name)
    if not isinstance(layer, nn.Sequential):
        yield owner, name, layer
        return
    for child in list(layer._modules):
        yield from _layers(layer, child)


def batch_norm_eps(net: Net, eps: float) -> Net:
    """Set the constant that every BatchNorm adds to the variance."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = eps
    return net


def same_padding(net: Net) -> Net:
    """Pad every convolution that has a stride as TensorFlow does; see `SamePad`."""
    for path, chain in [(p, m) for p, m in net.named_modules() if isinstance(m, nn.Sequential)]:
        layers = {}
        for name, layer in chain.named_children():
            if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
                layers[f"{name}_pad"] = SamePad(layer.kernel_size[0], layer.stride[0])
                layer.padding = (0, 0)
            layers[name] = layer
        if len(layers) > len(chain):
            net.set_submodule(path, seq(**layers))
    return net


def set_in_channels(net: Net, channels: int) -> Net:
    """Make the first convolution take `channels`, keeping what its filters respond to.

    One channel gets the sum of the filters over their input channels: a grey image gives what its RGB copy gave.
    More channels repeat the filters in turn, scaled so that the response to equal channels stays the same.
    """
    path, old = next((p, m) for p, m in net.named_modules() if isinstance(m, nn.Conv2d))
    new, weight = _like(old, in_channels=channels), _dense(old)
    turn = [i % old.in_channels for i in range(channels)]
    with torch.no_grad():
        if channels == 1:
            new.weight.copy_(weight.sum(1, keepdim=True))
        else:
            new.weight.copy_(weight[:, turn] * (old.in_channels / channels))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    net.set_submodule(path, new)
    return net


def replace_head(net: Net, classes: int) -> Net:
    """Give the head, and each auxiliary head, a new last linear layer for `classes`, freshly initialised."""
    for head, path, old in _last_layers(net):
        new = nn.Linear(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
        nn.init.normal_(new.weight, std=0.01)
        nn.init.zeros_(new.bias)
        head.set_submodule(path, new)
    return net


def select_classes(net: Net, indices: Sequence[int]) -> Net:
    """Keep only these outputs of the head, and of each auxiliary head, in this order."""
    for head, path, old in _last_layers(net):
        new = nn.Linear(old.in_features, len(indices), device=old.weight.device, dtype=old.weight.dtype)
        with torch.no_grad():
            new.weight.copy_(old.weight[list(indices)])
            new.bias.copy_(old.bias[list(indices)])
        head.set_submodule(path, new)
    return net


def freeze(net: Net, *names: str) -> Net:
    """Stop training the named modules: no gradients, and their BatchNorm in eval mode, where `net.train()` leaves it.

    `freeze(net, "stem", "stage1")`.  Raises ConfigError for a name that is not in the network.
    """
    for name in names:
        find(net, name).requires_grad_(False)
    net.frozen = tuple(dict.fromkeys((*net.frozen, *names)))
    return net.train(net.training)


def insert_se(net: Net, where: str, se: SE = SE(16)) -> Net:  # noqa: B008 - a frozen value
    """Put Squeeze-and-Excitation behind, or with `se.first` before, every module that the pattern `where` names.

    `insert_se(net, "stage*.*.res.body")` makes SE-ResNet: before the addition [arXiv:1709.01507, Fig. 3].  In a
    Sequential it becomes the layer `se`; any other module becomes a Sequential of itself, as `layer`, and `se`.
    Raises ConfigError if the pattern names no module.
    """
    paths = matching(net, where)
    stem = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    folded = cost(net, size=224, in_channels=stem.in_channels)
    signals = folded.inputs if se.first else folded.outputs
    for path in paths:
        module = net.get_submodule(path)
        gate = se(signals[path].c).to(stem.weight.device, stem.weight.dtype).train(module.training)
        if isinstance(module, nn.Sequential):
            layers = dict(module.named_children())
        else:
            layers = {} if isinstance(module, nn.Identity) else {"layer": module}
        net.set_submodule(path, seq(**({"se": gate} | layers if se.first else layers | {"se": gate})))
    return net


def matching(net: nn.Module, where: str) -> list[str]:
    """The names of the modules that a shell pattern names, in which "*" is one level: "stage*.*".

    Raises ConfigError with the nearest names if there are none.
    """
    paths = [path for path, _ in net.named_modules() if path and fnmatch.fnmatchcase(path, where)]
    paths = [path for path in paths if path.count(".") == where.count(".")]
    if not paths:
        raise ConfigError("L2", f"no module of the network is called {where!r}", _nearest(net, where))
    return paths


def find(net: nn.Module, name: str) -> nn.Module:
    """The module of that name.  Raises ConfigError with the nearest names."""
    if name not in dict(net.named_modules()):
        raise ConfigError("L2", f"no module of the network is called {name!r}", _nearest(net, name))
    return net.get_submodule(name)


def _last_layers(net: Net) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Of the head and each auxiliary head: it, and the name in it of its last linear layer, and that layer."""
    heads = (net.get_submodule("head"), *net.aux.values())
    return [(h, *[(p, m) for p, m in h.named_modules() if isinstance(m, nn.Linear)][-1]) for h in heads]


def _nearest(net: nn.Module, name: str) -> str:
    names = [path for path, _ in net.named_modules() if path]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
    return f"names look like {', '.join(near)}"


def _dense(conv: nn.Conv2d) -> torch.Tensor:
    """The filters of a convolution in groups as those of an ordinary one: 0 for the channels that they do not see."""
    inputs = torch.eye(conv.in_channels, device=conv.weight.device, dtype=conv.weight.dtype)
    seen = inputs.view(conv.groups, 1, -1, conv.in_channels).expand(-1, conv.out_channels // conv.groups, -1, -1)
    return torch.einsum("oihw,oic->ochw", conv.weight, seen.flatten(0, 1))


def _like(conv: nn.Conv2d, *, in_channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
