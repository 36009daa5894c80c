"""Our networks against others' with the same random weights: the largest difference of their logits.

python benchmarks/parity.py                      all, into results/parity.json
python benchmarks/parity.py keras 'resnet*'      print those of one library, ours by a pattern
"""

import argparse
import fnmatch
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import torch
from torch import Tensor, nn

from convatlas.errors import ConfigError
from convatlas.weights.convert import differences, to_ours, to_theirs
from convatlas.weights.keras_file import KINDS
from convatlas.weights.peers import PEERS, UNLIKE, Peer
from convatlas.zoo import Arch, list_networks, spec

RESULTS = Path(__file__).parents[1] / "results" / "parity.json"
LIBRARIES = ("torchvision", "timm", "keras", "pytorchcv")


class Torch:
    """A network of a torch library, in eval mode."""

    def __init__(self, library: str, name: str):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net = BUILDERS[library](name).eval()

    def state(self) -> dict[str, Tensor]:
        """Its weights by its names."""
        return self.net.state_dict()

    def load(self, state: dict[str, Tensor]) -> None:
        """Take weights, every one."""
        self.net.load_state_dict(state)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits."""
        out = self.net(x)
        return out if isinstance(out, Tensor) else out[0]


class Keras:
    """A network of keras.applications."""

    def __init__(self, library: str, name: str):
        from keras import applications, utils

        utils.clear_session()  # or layers without names are numbered on
        self.net: Any = getattr(applications, name)(weights=None, classifier_activation=None)
        self.variables = {}
        for layer in self.net.layers:
            if found := layer.weights:
                kinds = KINDS[(len(found), len(found[0].shape) > 1)]
                self.variables |= {f"{layer.name}/{kind}": v for kind, v in zip(kinds, found, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """Its weights by layer and kind."""
        return {name: v.value.detach().clone() for name, v in self.variables.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take weights, every one."""
        assert state.keys() == self.variables.keys()
        for name, variable in self.variables.items():
            variable.assign(state[name])

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits."""
        return self.net(x.permute(0, 2, 3, 1).contiguous(), training=False)


def torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    return get_model(name, weights=None, **({"init_weights": False} if name in ("googlenet", "inception_v3") else {}))


def timm(name: str) -> nn.Module:
    from timm import create_model

    return create_model(name)


def pytorchcv(name: str) -> nn.Module:
    from pytorchcv.model_provider import get_model

    return get_model(name)


BUILDERS = {"torchvision": torchvision, "timm": timm, "pytorchcv": pytorchcv}


def theirs(library: str, name: str) -> Torch | Keras:
    """A network of another library."""
    return (Keras if library == "keras" else Torch)(library, name)


def random_weights(arch: Arch, seed: int, size: int) -> dict[str, Tensor]:
    """Weights with which activations stay near 1 through all layers, rounding does not grow, and no BatchNorm is
    trivial.
    """
    torch.manual_seed(seed)
    net = arch.build()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(m.weight)
            if m.bias is not None:
                nn.init.normal_(m.bias, std=0.1)
    for m in norms:
        m.momentum = 1.0
        nn.init.uniform_(m.weight, 0.2, 0.6)
        nn.init.normal_(m.bias, std=0.2)
    if norms:
        with torch.no_grad():
            net.train()(torch.randn(2, arch.in_channels, size, size), aux=True)
    for m in norms:
        m.running_mean += 0.1 * torch.randn_like(m.running_mean) * m.running_var.sqrt()
        m.running_var *= torch.empty_like(m.running_var).uniform_(0.8, 1.25)
    return net.state_dict()


def perturbed(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Other weights of the same kind: everything up to ten percent larger or smaller, biases moved."""
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.rand(t.shape, generator=generator) - 0.5 for name, t in state.items()}
    return {
        name: t * (1 + 0.2 * noise[name]) + (0.1 * noise[name] if name.endswith(("bias", "beta")) else 0)
        if t.is_floating_point()
        else t
        for name, t in state.items()
    }


@torch.no_grad()
def compare(peer: Peer, name: str, size: int | None = None) -> Iterator[dict[str, Any]]:
    """A row for each direction: the same weights in both networks, the same image into both."""
    arch, other = peer.fitted(spec(name)), theirs(peer.library, peer.networks[name])
    size = size or arch.size
    x = torch.randn(1, arch.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    ours = arch.skeleton().to_empty(device="cpu").eval()
    weights = random_weights(arch, 0, size)
    for direction in ("ours to theirs", "theirs to ours"):
        row = {"network": name, "peer": peer.library, "peer_network": peer.networks[name], "direction": direction,
               "size": size}  # fmt: skip
        if direction == "ours to theirs":
            try:
                other.load(to_theirs(peer, arch, weights))
            except ConfigError as error:
                yield row | {"max_abs_diff": None, "logit_std": None, "reason": f"{error.what}."}
                continue
        else:
            state = perturbed(other.state(), 1)
            other.load(state)
            assert differences(peer, arch, state) == []
            weights = to_ours(peer, arch, state)
        ours.load_state_dict(weights)
        found, expected = ours(x), other(x.flip(1) if peer.bgr else x)
        difference, spread = (found - expected).abs().max().item(), round(expected.std().item(), 4)
        yield row | {"max_abs_diff": difference, "logit_std": spread, "reason": None}


def measure(library: str = "*", pattern: str = "*") -> Iterator[dict[str, Any]]:
    """Rows for every network of ours and every library."""
    for name in list_networks(pattern):
        for other in fnmatch.filter(LIBRARIES, library):
            peers = [p for p in PEERS if p.library == other and name in p.networks]
            unlike = [u for u in UNLIKE if (u.library, u.network) == (other, name)]
            for peer in peers:
                yield from compare(peer, name)
            reasons = [(u.theirs, u.reason) for u in unlike]
            if not peers and not unlike:
                reasons = [(None, f"{other} has no such network")]
            for peer_network, why in reasons:
                yield {"network": name, "peer": other, "peer_network": peer_network, "direction": None, "size": None,
                       "max_abs_diff": None, "logit_std": None, "reason": why}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", nargs="?", default="*")
    parser.add_argument("pattern", nargs="?", default="*")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of additions, and so the last bit, depends on it
    rows = []
    for row in measure(args.library, args.pattern):
        rows.append(row)
        if row["max_abs_diff"] is not None:
            where = f"{row['network']:28} {row['peer']}:{row['peer_network']}, {row['direction']}"
            print(f"{row['max_abs_diff']:.2e}  {where}, logits with standard deviation {row['logit_std']}", flush=True)
    if (args.library, args.pattern) == ("*", "*"):
        RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
