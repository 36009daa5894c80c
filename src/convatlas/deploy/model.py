"""What a row is computed by: an engine's logits and, if a part of the network was named, that part's features."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Preprocess
from ..data.decode import shown
from ..errors import ConfigError
from ..tree.transform import find
from ..weights import Bundle
from ..weights.bundle import model_file
from .engine import Engine, open_engine

Compute = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Model:
    """`compute`: uint8 (N, size, size, 3) -> logits (N, classes), and features (N, D) or None for D = 0; float32."""

    classes: tuple[str, ...]
    preprocess: Preprocess
    compute: Compute
    features: int = 0


def open_model(path: str | Path, engine: str | None = None, part: str | None = None) -> Model:
    """The model in a file or a run's folder.  Raises what `open_engine`, and for a `part` what `with_features` does."""
    if part is None:
        return of_engine(open_engine(path, engine))
    file = model_file(path)
    if file.suffix != ".safetensors" or engine not in (None, "torch"):
        what = f"features of {shown(file)} by {engine or 'its runtime'}: only a bundle's layers have names"
        raise ConfigError("L2", what, "give a model.safetensors or the folder of a run, and no --engine")
    return with_features(Bundle.load(file), part)


def of_engine(engine: Engine) -> Model:
    """Logits alone."""
    return Model(engine.classes, engine.preprocess, lambda pixels: (engine.predict(pixels), None))


def with_features(bundle: Bundle, part: str) -> Model:
    """Logits and the output of a named part of the network, averaged over its map, in one pass of PyTorch.

    The network is as it was trained: what makes others faster changes what lies between its layers.
    Raises ConfigError L2 for a name that is not in the network.
    """
    net = bundle.build().to(memory_format=torch.channels_last)
    pooled: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        pooled.append(output.mean((2, 3)) if output.dim() == 4 else output.flatten(1).clone())

    find(net, part).register_forward_hook(keep)

    @torch.inference_mode()
    def compute(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pooled.clear()
        logits = net(bundle.preprocess.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
        return logits.numpy(), pooled[-1].numpy()

    size = bundle.preprocess.size
    _, example = compute(np.zeros((1, size, size, 3), np.uint8))
    return Model(bundle.classes, bundle.preprocess, compute, example.shape[1])
