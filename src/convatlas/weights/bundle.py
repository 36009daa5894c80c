"""Our weights file: a trained network with all that is needed to use it, in one file.

A `.safetensors` file whose record carries the network's spec, the preprocessing, the class names, metrics, recipe,
licence and the sha256 of every tensor.  Nothing in it is ever executed.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Preprocess
from ..errors import ConvatlasError, WeightsError
from ..tree import Net
from ..zoo import Arch
from .store import DTYPES, digest, read_tensors, reason, write_tensors


@dataclass(frozen=True, eq=False)
class Bundle:
    """A network's spec and weights, and what they mean: classes, preprocessing, where they come from."""

    spec: Arch
    weights: dict[str, Tensor]
    classes: tuple[str, ...]
    preprocess: Preprocess
    metrics: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    licence: str = "not stated"

    def build(self) -> Net:
        """The network with a copy of these weights, in eval mode."""
        net = self.spec.skeleton()
        types = {name: tensor.dtype for name, tensor in net.state_dict().items()}
        copies = {
            name: tensor.to(types.get(name), copy=True, memory_format=torch.contiguous_format)
            for name, tensor in self.weights.items()
        }
        net.load_state_dict(copies, assign=True)  # `to_empty` would import all of sympy
        return net.eval()

    def digest(self) -> str:
        """The sha256 of the weights, with their names."""
        digests = {name: digest(tensor.contiguous()) for name, tensor in self.weights.items()}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write the file.  Raises WeightsError if the weights are not those of the spec or not finite."""
        check(self, path)
        return write_tensors(
            path,
            self.weights,
            {
                "spec": self.spec.to_dict(),
                "classes": list(self.classes),
                "preprocess": self.preprocess.to_dict(),
                "metrics": self.metrics,
                "recipe": self.recipe,
                "source": self.source,
                "licence": self.licence,
            },
        )

    @staticmethod
    def load(path: str | Path, *, allow_nonfinite: bool = False) -> "Bundle":
        """Read and verify a file.

        Raises WeightsError if a bit has changed (naming the tensor), if the weights are not those of the spec, or if
        one is not finite, unless that is allowed.
        """
        weights, record = read_tensors(path)
        try:
            bundle = Bundle(
                Arch.from_dict(record["spec"]),
                weights,
                tuple(record["classes"]),
                Preprocess.from_dict(record["preprocess"]),
                record["metrics"],
                record["recipe"],
                record["source"],
                record["licence"],
            )
            layout(bundle.spec)
        except KeyError as missing:
            raise WeightsError(
                "X4", f"{path} says nothing of {missing}", "give a model.safetensors, not a checkpoint"
            ) from None
        except Exception as error:  # a record that others wrote may hold anything
            why = error.what if isinstance(error, ConvatlasError) else reason(error)
            raise WeightsError(
                "X4", f"{path} does not describe a network ({why})", "load it with the convatlas version that wrote it"
            ) from None
        check(bundle, path, allow_nonfinite=allow_nonfinite)
        return bundle


def model_file(path: str | Path) -> Path:
    """The bundle itself, or that of a run's folder."""
    return Path(path) / "model.safetensors" if os.path.isdir(path) else Path(path)  # noqa: PTH112 - for any path


def check(bundle: Bundle, path: str | Path, *, allow_nonfinite: bool = False) -> None:
    """Raise WeightsError unless weights, spec, classes and preprocessing fit together and every weight is finite."""
    problems = mismatches(bundle.spec, bundle.weights)
    if problems:
        what = f"{path} does not hold {bundle.spec.name}: {summary(problems)}"
        raise WeightsError("C8", what, "save it with the spec that built it")
    if len(bundle.classes) != bundle.spec.classes:
        raise WeightsError(
            "C8", f"{path} names {len(bundle.classes)} classes for {bundle.spec.classes} outputs", "name every class"
        )
    if bundle.preprocess.channels != bundle.spec.in_channels:
        channels = f"{bundle.spec.in_channels} channels, not the {bundle.preprocess.channels} of its preprocessing"
        raise WeightsError("C8", f"{path}: the network takes {channels}", "give the preprocessing it was trained with")
    for name, tensor in bundle.weights.items():
        if not allow_nonfinite and not (tensor.sum().isfinite() or tensor.isfinite().all()):  # the sum is quick
            raise WeightsError("C9", f"{path}: tensor {name!r} holds NaN or infinity", "use an older checkpoint")


@cache
def layout(spec: Arch) -> dict[str, Tensor]:
    """The state dict that the spec builds: names, shapes and types, without memory."""
    return skeleton(spec).state_dict()


@cache
def skeleton(spec: Arch) -> Net:
    """The network on the meta device, to look at and not to change."""
    return spec.skeleton()


def mismatches(spec: Arch, weights: dict[str, Tensor]) -> list[str]:
    """How a state dict differs from the one that the spec builds, a line for each tensor; empty if it fits."""
    expected = layout(spec)
    lines = [f"has an unknown {name!r}" for name in weights if name not in expected]
    for name, wanted in expected.items():
        if name not in weights:
            lines.append(f"lacks {name!r}")
        elif weights[name].shape != wanted.shape:
            lines.append(f"{name!r} is {tuple(weights[name].shape)}, not {tuple(wanted.shape)}")
        elif weights[name].dtype not in DTYPES or weights[name].is_floating_point() != wanted.is_floating_point():
            lines.append(f"{name!r} holds {weights[name].dtype}")
    return lines


def summary(problems: list[str]) -> str:
    """The first five problems on one line."""
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + more
