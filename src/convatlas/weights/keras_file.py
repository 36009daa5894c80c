"""Files of Keras: `.h5` (weights or a whole model), `.weights.h5` and `.keras`.  Only arrays are read, nothing is run.

A layer's arrays are called here by what they are, `conv1_conv/kernel`, because the names in the files have changed over
the years while their order in the layer has not.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import files
from ..errors import ResourceError, WeightsError
from ..tree import Net
from ..tree.combinators import Concat, Residual
from .store import reason

HDF5 = b"\x89HDF\r\n\x1a\n"
INSIDE = "model.weights.h5"  # of a .keras archive
KINDS = {  # by how many arrays a layer has, and whether the first is a matrix or more
    (1, True): ("kernel",),
    (2, True): ("kernel", "bias"),
    (3, False): ("beta", "moving_mean", "moving_variance"),
    (4, False): ("gamma", "beta", "moving_mean", "moving_variance"),
}
UNNAMED = re.compile(r"(conv2d|depthwise_conv2d|batch_normalization|dense)(?:_(\d+))?")


def read_keras(content: bytes, path: str | Path) -> dict[str, Tensor]:
    """The arrays of an HDF5 or `.keras` file.

    Raises WeightsError if it links to anything outside it, unpacks to more than it is, or is damaged; ResourceError
    without h5py.
    """
    h5py = _h5py()
    try:
        if content.startswith(b"PK"):
            content = _member(content, path)
        with h5py.File(io.BytesIO(content), "r") as file:
            return _from_zero(_named(_layers(file, path), len(content), path))
    except WeightsError:
        raise
    except Exception as error:  # of hostile bytes h5py and zipfile may raise anything
        raise WeightsError("C5", f"{path} is not a whole Keras file ({reason(error)})", "get the file again") from None


def write_keras(path: str | Path, tensors: dict[str, Tensor], layers: list[str]) -> Path:
    """Write weights that `model.load_weights` reads, the layers in its order.  Raises ResourceError."""
    content = io.BytesIO()
    with _h5py().File(content, "w") as file:
        file.attrs["layer_names"] = np.array(layers, dtype="S")
        for layer in layers:
            group, names = file.create_group(layer), [n for n in tensors if n.rpartition("/")[0] == layer]
            group.attrs["weight_names"] = np.array(names, dtype="S")
            for name in names:
                group[name] = tensors[name].detach().cpu().float().numpy()
    return files.write_bytes(path, content.getvalue())


def by_depth(net: Net) -> list[str]:
    """The leaves in Keras' order of layers: the farthest from the output first, a shortcut before what it skips."""
    depths: dict[str, int] = {}

    def walk(path: str, module: nn.Module, after: int) -> int:
        """How far the input of a module is from the output, its own output being `after` layers away."""
        children = [(f"{path}.{name}".lstrip("."), child) for name, child in module.named_children()]
        if isinstance(module, Residual):
            return max(walk(*child, after + 1) for child in reversed(children))
        if isinstance(module, Concat):
            return max(walk(*child, after + 1) for child in children)
        if isinstance(module, nn.Identity | nn.ModuleDict):
            return after
        if not children:
            depths[path] = after + 1
            return after + 1
        for child in reversed(children):
            after = walk(*child, after)
        return after

    walk("", net, 0)
    return sorted(depths, key=lambda path: -depths[path])


def _layers(file: Any, path: str | Path) -> Iterator[tuple[str, list[Any]]]:
    """Each layer with its datasets in order, whether Keras 2 or 3 wrote them."""
    if "layers" in file and "layer_names" not in file.attrs:
        for key in file["layers"]:
            group = _inside(file, f"layers/{key}/vars", path)
            if len(group) and "name" not in group.attrs:
                what = f"{path} does not name its layers"
                raise WeightsError("C8", what, "save the model as .h5, or with a newer Keras")
            if len(group):
                yield str(group.attrs["name"]), [_inside(group, str(i), path) for i in range(len(group))]
        return
    root = file if "layer_names" in file.attrs else _inside(file, "model_weights", path)
    for layer in _texts(root.attrs["layer_names"]):
        group = _inside(root, layer, path)
        yield layer, [_inside(group, name, path) for name in _texts(group.attrs["weight_names"])]


def _named(layers: Iterator[tuple[str, list[Any]]], size: int, path: str | Path) -> dict[str, Tensor]:
    found, left = {}, size
    for layer, datasets in layers:
        if not datasets:
            continue
        kind = KINDS.get((len(datasets), len(datasets[0].shape) > 1))
        if kind is None:
            what = f"{path}: layer {layer!r} holds {len(datasets)} arrays, which no convolution, BatchNorm or Dense has"
            raise WeightsError("C8", what, "save the network alone, without a model around it")
        for name, dataset in zip(kind, datasets, strict=True):
            left -= dataset.nbytes
            if dataset.is_virtual or dataset.external:
                raise WeightsError("C6", f"{path}: {layer}/{name} lies in another file", "get a file that is whole")
            if left < 0:
                raise WeightsError("C6", f"{path} unpacks to more than its {size:,} bytes", "get it from its source")
            found[f"{layer}/{name}"] = torch.from_numpy(dataset[()])
    return found


def _from_zero(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layers that were not named begin at `conv2d`, `conv2d_1` again: Keras numbers them through a whole session."""
    found = {layer: UNNAMED.fullmatch(layer) for layer in {name.rpartition("/")[0] for name in tensors}}
    numbers = {layer: (match[1], int(match[2] or 0)) for layer, match in found.items() if match}
    first = {kind: min(n for k, n in numbers.values() if k == kind) for kind, _ in numbers.values()}
    new = {layer: f"{kind}_{n - first[kind]}".removesuffix("_0") for layer, (kind, n) in numbers.items()}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition("/")
        renamed[f"{new.get(layer, layer)}/{kind}"] = tensor
    return renamed


def _inside(group: Any, name: str, path: str | Path) -> Any:
    """What a name leads to, if it lies in the file itself."""
    import h5py

    for part in filter(None, name.split("/")):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise WeightsError("C6", f"{path}: {name!r} is missing or leads elsewhere", "get a file that is whole")
        group = group[part]
    return group


def _member(content: bytes, path: str | Path) -> bytes:
    archive = zipfile.ZipFile(io.BytesIO(content))
    if archive.getinfo(INSIDE).file_size > len(content):
        raise WeightsError("C6", f"{path} unpacks to more than its {len(content):,} bytes", "get it from its source")
    return archive.read(INSIDE)


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        what = "h5py is not installed, which Keras files need"
        raise ResourceError("L5", what, "pip install 'convatlas[keras]'") from None
    return h5py
