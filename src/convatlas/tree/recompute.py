"""Training in less memory: a Sequential that keeps its input only, and runs again when the backward pass needs it.

The second run leaves no trace: dropout falls as in the first, and BatchNorm's statistics are not updated twice.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError
from .combinators import Concat, Net, overwrites_input
from .fold import RULES, join, rule
from .transform import matching


class Recomputed(nn.Sequential):
    """In training, keeps what enters it and not what its layers put out; otherwise an `nn.Sequential`.

    A dense block, whose layers append channels to their input, runs layer by layer and keeps the appended channels,
    each once, but none of their concatenations [arXiv:1707.06990]: memory linear in its depth, not quadratic.
    """

    @property
    def appending(self) -> list[nn.Module]:
        """The branches by which the layers of a dense block append; none if a layer does anything else."""
        branches = [new for new in map(_appended, self) if new is not None]
        return branches if len(branches) == len(self) else []

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(input)
        branches = self.appending
        if not branches:
            return _run_twice(self, super().forward, input)
        features = [input]
        for new in branches:
            features.append(_run_twice(new, lambda *xs, new=new: new(torch.cat(xs, dim=1)), *features))
        return torch.cat(features, dim=1)


def recompute(net: Net, where: str) -> Net:
    """Make the Sequentials that the pattern `where` names keep, in training, only what enters them; see `Recomputed`.

    `recompute(net, "block*")` is the memory-efficient DenseNet; `"stage*.*"` are the units of a ResNet.  Gradients,
    BatchNorm's statistics and the names of weights stay the same; a training step runs those layers once more.
    Works in place and returns the network.  Do it last: `insert_se` builds a Sequential anew.

    Raises ConfigError if the pattern names no Sequential, or one that overwrites its input.
    """
    named = {path: net.get_submodule(path) for path in matching(net, where)}
    chains = {path: m for path, m in named.items() if isinstance(m, nn.Sequential)}
    if not chains:
        kinds = ", ".join(sorted({type(m).__name__ for m in named.values()}))
        raise ConfigError("L2", f"{where!r} names no Sequential but {kinds}", "name what holds it, or what it holds")
    for path, chain in chains.items():
        if overwrites_input(chain):
            what = f"{path!r} overwrites its input, which it would have to keep"
            raise ConfigError("L2", what, "build its first layer with inplace=False")
    for chain in chains.values():
        chain.__class__ = Recomputed
    return net


@rule(Recomputed)
def _recomputed(fold, m, x, path, held):
    if not m.appending:
        with fold.keeping(x):
            return RULES[nn.Sequential](fold, m, x, path, held)
    out, new, held = x, x, held | {x.buffer}
    for name, layer in m._modules.items():
        with fold.keeping(new):
            out = fold.flow(layer, out, join(path, name), held)
        _, branch = layer._modules
        new = fold.outputs[join(path, f"{name}.{branch}")]
    return out


def _appended(layer: nn.Module) -> nn.Module | None:
    """The new of `Concat(x=Identity(), new=...)`, unless a hook waits for the concatenation."""
    match list(layer._modules.values()) if isinstance(layer, Concat) else []:
        case [nn.Identity() as x, nn.Module() as new] if not (_watched(layer) or _watched(x)):
            return new
    return None


def _watched(m: nn.Module) -> bool:
    return bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)


def _run_twice(module: nn.Module, run, *inputs: Tensor) -> Tensor:
    """`run(*inputs)` now, and again in the backward pass, then with copies of the buffers of `module`."""
    contexts = nullcontext(), OnCopies(module)
    return checkpoint(run, *inputs, use_reentrant=False, context_fn=lambda: contexts)


class OnCopies:
    """Within, a module works on copies of its buffers.  Can be entered any number of times."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __enter__(self) -> None:
        self.own = [(m, name, b) for m in self.module.modules() for name, b in m.named_buffers(recurse=False)]
        for m, name, buffer in self.own:
            setattr(m, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for m, name, buffer in self.own:
            setattr(m, name, buffer)
