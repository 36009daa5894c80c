"""A golden file per network: its spec, counts, tensors, maps, and the logits of fixed weights on a fixed image.

python tests/zoo/golden.py [PATTERN]    write the files of the networks that match, after a change that is meant
"""

import json
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from convatlas.papers.built import built
from convatlas.tree import Net
from convatlas.zoo import list_networks, spec

FOLDER = Path(__file__).parents[1] / "golden"
NOISE = torch.from_numpy(np.random.RandomState(0).standard_normal(65_537))  # numpy guarantees this stream


def path(name: str) -> Path:
    return FOLDER / f"{name}.json"


def card(name: str, outputs: dict[str, list[float]]) -> dict:
    """What the golden file of a network holds; `outputs` are its logits."""
    arch = spec(name)
    net, cost = built(arch).net, built(arch).cost
    return {
        "spec": arch.to_dict(),
        "counts": {c: cost.total(c) for c in ("weights", "biases", "norm", "stats", "macs")},
        "maps": {part: "x".join(map(str, out.shape)) for part, out in cost.parts.items()},
        "tensors": tensors(net),
        "logits": {head: [float(f"{x:.8g}") for x in out] for head, out in outputs.items()},
    }


def tensors(net: Net) -> dict[str, str]:
    """Names and shapes of the state dict; indices of units are gathered: `stage1.*.fc.weight (16, 64)` at 0-2."""
    found: dict[tuple[str, str], list[int]] = {}
    for name, tensor in net.state_dict().items():
        index = re.search(r"\.(\d+)\.", name)
        pattern = name if index is None else f"{name[: index.start()]}.*.{name[index.end() :]}"
        found.setdefault((pattern, str(tuple(tensor.shape))), []).extend([int(index[1])] if index else [])
    return {
        f"{pattern} {shape}" if indices else pattern: f"at {ranges(indices)}" if indices else shape
        for (pattern, shape), indices in found.items()
    }


def ranges(numbers: list[int]) -> str:
    """`0-3 5` of 0, 1, 2, 3, 5."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def quick_size(name: str) -> int:
    """A size at which the network is quick to run, and its last map more than a pixel."""
    return {32: 32, 299: 139}.get(spec(name).size, 80)


def noise(name: str, shape: torch.Size) -> torch.Tensor:
    """Fixed numbers of mean 0 and variance 1 for a name."""
    start = zlib.crc32(name.encode()) % len(NOISE)
    return NOISE.roll(-start).repeat(shape.numel() // len(NOISE) + 1)[: shape.numel()].reshape(shape)


@torch.no_grad()
def fixed(name: str) -> tuple[Net, torch.Tensor]:
    """The network with fixed weights and the statistics of a fixed batch, in double and eval mode; that batch."""
    net = spec(name).skeleton().to_empty(device="cpu").double()
    for key, tensor in net.state_dict().items():
        values = noise(key, tensor.shape)
        if tensor.dim() > 1:
            values = values * (2 / tensor[0].numel()) ** 0.5
        elif key.endswith(("norm.weight", "running_var")):
            values = 1 + 0.1 * values.tanh()
        else:
            values = 0.1 * values
        tensor.copy_(values)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            m.momentum = 1.0
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    batch = noise("images", torch.Size((2, spec(name).in_channels, quick_size(name), quick_size(name))))
    net.train()(batch, aux=True)
    return net.eval(), batch


@torch.no_grad()
def logits(net: Net, batch: torch.Tensor) -> dict[str, list[float]]:
    """The first four logits of the first image, from the head and from each auxiliary head."""
    main, aux = net(batch[:1], aux=True)
    return {head: out[0, :4].tolist() for head, out in {"head": main, **aux}.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in list_networks(*sys.argv[1:]):
        path(name).write_text(json.dumps(card(name, logits(*fixed(name))), indent=1) + "\n")
        print(path(name).name)
