"""Intermediate outputs by name."""

from torch import Tensor, nn

from .combinators import Net
from .transform import find


class Features(nn.Module):
    """Runs a network as far as needed and returns the outputs of the named modules."""

    def __init__(self, net: Net, names: list[str]):
        super().__init__()
        self.net, self.names = net, tuple(names)
        for name in names:
            find(net, name)
        needed = [net.parts.index(name.split(".")[0]) for name in names]
        self.parts = net.parts[: max(needed) + 1]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> {name: (N, C', H', W')}, in the order in which the names were given."""
        found: dict[str, Tensor] = {}

        def keep(name: str):
            def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
                found[name] = output.clone()  # the layer that follows may work in place

            return hook

        handles = [self.net.get_submodule(name).register_forward_hook(keep(name)) for name in self.names]
        try:
            for part in self.parts:
                x = self.net.get_submodule(part)(x)
        finally:
            for handle in handles:
                handle.remove()
        return {name: found[name] for name in self.names}


def features(net: Net, names: list[str]) -> Features:
    """A module that returns the outputs of named modules: `features(net, ["stage2", "stage4"])(images)["stage2"]`.

    The layers behind the last name do not run.  Raises ConfigError for a name that is not in the network.
    """
    return Features(net, names)
