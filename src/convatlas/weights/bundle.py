"""Our weights file: a trained network with all that is needed to use it, in one file.

A `.safetensors` file whose record carries the network's spec, the preprocessing, the class names, metrics, recipe,
licence and the sha256 of every tensor.  Nothing in it is ever executed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data import Preprocess
from ..errors import WeightsError
from ..tree import Net
from ..zoo import Arch
from .store import read_tensors, write_tensors


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
        """The network with these weights, in eval mode."""
        net = self.spec.build()
        net.load_state_dict(self.weights)
        return net.eval()

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
        except KeyError as missing:
            raise WeightsError(
                "X4", f"{path} says nothing of {missing}", "give a model.safetensors, not a checkpoint"
            ) from None
        check(bundle, path, allow_nonfinite=allow_nonfinite)
        return bundle


def check(bundle: Bundle, path: str | Path, *, allow_nonfinite: bool = False) -> None:
    """Raise WeightsError unless weights, spec and classes belong together and every weight is finite."""
    problems = mismatches(bundle.spec, bundle.weights)
    if problems:
        what = f"{path} does not hold {bundle.spec.name}: {summary(problems)}"
        raise WeightsError("C8", what, "save it with the spec that built it")
    if len(bundle.classes) != bundle.spec.classes:
        raise WeightsError(
            "C8", f"{path} names {len(bundle.classes)} classes for {bundle.spec.classes} outputs", "name every class"
        )
    for name, tensor in bundle.weights.items():
        if not allow_nonfinite and not tensor.isfinite().all():
            raise WeightsError("C9", f"{path}: tensor {name!r} holds NaN or infinity", "use an older checkpoint")


def mismatches(spec: Arch, weights: dict[str, Tensor]) -> list[str]:
    """How a state dict differs from the one that the spec builds, a line for each tensor; empty if it fits."""
    expected = spec.skeleton().state_dict()
    lines = []
    for name in (*expected, *(name for name in weights if name not in expected)):
        if name not in weights:
            lines.append(f"lacks {name}")
        elif name not in expected:
            lines.append(f"has an unknown {name}")
        elif weights[name].shape != expected[name].shape:
            lines.append(f"{name} is {tuple(weights[name].shape)}, not {tuple(expected[name].shape)}")
    return lines


def summary(problems: list[str]) -> str:
    """The first five problems on one line."""
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + more
