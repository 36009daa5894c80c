"""The ways to join layers, and the root of every network.

A network is a tree of `torch.nn` leaves under these combinators, so the module tree *is* the architecture:

    Sequential (`seq`)  f3(f2(f1(x)))                VGG stacks, every body
    Residual            body(x) + skip(x)            ResNet
    Concat              [branch(x), ...] along C     Inception, DenseNet
    Gate                x * gate(x)                  Squeeze-and-Excitation
    Highway             skip(x) + gate(x) * (body(x) - skip(x))     gated shortcuts
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def seq(**layers: nn.Module | None) -> nn.Sequential:
    """Named `nn.Sequential`.  Layers that are None are left out, so an optional layer needs no `if`."""
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))


class Residual(nn.Module):
    """`body(x) + skip(x)`, skip = identity when None [arXiv:1512.03385, eq. 1 and 2].

    Raises ValueError if body or skip begins with an in-place layer: it would overwrite the x that the other reads.
    """

    def __init__(self, body: nn.Module, skip: nn.Module | None = None):
        super().__init__()
        self.body, self.skip = body, skip if skip is not None else nn.Identity()
        _refuse_in_place(self, body=self.body, skip=self.skip)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        return self.body(x) + self.skip(x)


class Concat(nn.Module):
    """The outputs of all branches on the same x, joined along C.  Raises ValueError as `Residual` does."""

    def __init__(self, **branches: nn.Module):
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)
        _refuse_in_place(self, **branches)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, sum of the branches' C, H', W')."""
        return torch.cat([branch(x) for branch in self._modules.values()], dim=1)  # type: ignore[misc]


class Gate(nn.Module):
    """`x * gate(x)` with gate(x) of shape (N, C, 1, 1) or (N, C, H, W).  Raises ValueError as `Residual` does."""

    def __init__(self, gate: nn.Module):
        super().__init__()
        self.gate = gate
        _refuse_in_place(self, gate=gate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.gate(x)


class Highway(nn.Module):
    """`gate(x) * body(x) + (1 - gate(x)) * skip(x)`, skip = identity when None: exclusive gating [arXiv:1603.05027,
    Sec. 3.1; arXiv:1505.00387, eq. 3].  Raises ValueError as `Residual` does.
    """

    def __init__(self, body: nn.Module, gate: nn.Module, skip: nn.Module | None = None):
        super().__init__()
        self.body, self.gate, self.skip = body, gate, skip if skip is not None else nn.Identity()
        _refuse_in_place(self, body=self.body, gate=self.gate, skip=self.skip)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        body, gate, skip = self.body(x), self.gate(x), self.skip(x)
        return skip.lerp(body, gate)


class Net(nn.Module):
    """The root of every network: named parts, run in order; the last one is called `head`.

    `net(x)` is the logits (N, classes) in every mode.  `net(x, aux=True)` is `(logits, {part: logits})`: the auxiliary
    heads, each under the name of the part on whose output it hangs.
    """

    def __init__(self, parts: Mapping[str, nn.Module], aux: Mapping[str, nn.Module] | None = None):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.parts = tuple(parts)
        self.aux = nn.ModuleDict(aux or {})
        self.frozen: tuple[str, ...] = ()  # modules that stay in eval mode, see `freeze`
        self._check()

    def _check(self) -> None:
        if self.parts[-1] != "head":
            raise ValueError(f"the last part of a Net must be 'head', not {self.parts[-1]!r}")
        for name, head in self.aux.items():
            if name not in self.parts[:-1]:
                raise ValueError(f"auxiliary head on {name!r}: no such part before the head; parts: {self.parts}")
            after = self.parts[self.parts.index(name) + 1]
            _refuse_in_place(self, **{f"aux.{name}": head, after: self.get_submodule(after)})

    def train(self, mode: bool = True) -> "Net":
        """As `nn.Module.train`, but the frozen modules stay in eval mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def forward(self, x: Tensor, aux: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """(N, C, H, W) -> (N, classes), or with `aux` also the auxiliary logits by part."""
        side = {}
        for name in self.parts:
            x = self.get_submodule(name)(x)
            if aux and name in self.aux:
                side[name] = self.aux[name](x)
        return (x, side) if aux else x


TRANSPARENT = (nn.Identity, nn.Flatten, nn.Dropout)  # may hand on the very tensor they were given


def overwrites_input(module: nn.Module) -> bool:
    """Whether running `module` changes the tensor it was given: its first leaf that is not transparent is in-place."""
    if isinstance(module, nn.Sequential):
        first = next((m for m in module if overwrites_input(m) or not isinstance(m, TRANSPARENT)), None)
        return first is not None and overwrites_input(first)
    return bool(getattr(module, "inplace", False))


def _refuse_in_place(owner: nn.Module, **parts: nn.Module) -> None:
    for name, part in parts.items():
        if overwrites_input(part):
            raise ValueError(
                f"{type(owner).__name__}: {name!r} begins with an in-place layer, which would overwrite the input "
                f"that is still needed beside it. Remedy: build that layer with inplace=False"
            )
