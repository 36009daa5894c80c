"""The state of training, to disk and back: every bit of it, verified, with the state before it kept."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..errors import DivergedError, WeightsError
from ..tree import Net
from ..weights import read_tensors, write_tensors

KEPT = 2  # checkpoints
CALMER = "lower --lr, raise --warmup or set --clip, and give another --out"


@dataclass
class State:
    """All that changes during training.  Data order, augmentation and dropout need nothing: they follow from `step`."""

    net: Net
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    sums: dict[str, float] = field(default_factory=lambda: {"loss": 0.0, "right": 0, "seen": 0})  # of this epoch
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def evaluated(self) -> nn.Module:
        """The network that counts: the average if there is one."""
        return self.net if self.average is None else self.average.module


def tensors_of(state: State) -> dict[str, Tensor]:
    """Every tensor of the state by name.  Raises DivergedError if a number in it is not finite."""
    tensors = {f"net.{name}": t for name, t in state.net.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": t for name, t in state.average.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in values.items() if isinstance(t, Tensor)}
    bad = next((name for name, t in tensors.items() if not t.isfinite().all()), None)
    if bad:
        raise DivergedError("T1", f"{bad} is no longer finite at step {state.step}", CALMER)
    return tensors


def save(state: State, folder: Path) -> Path:
    """Write the state, then remove all but the newest two.  Raises DivergedError if it is not finite."""
    tensors = tensors_of(state)
    record = {
        "step": state.step,
        "sums": state.sums,
        "history": state.history,
        "best": state.best,
        "seconds": state.seconds,
        "scaler": state.scaler.state_dict(),
    }
    path = write_tensors(folder / f"checkpoint-{state.step:08}.safetensors", tensors, record)
    for old in saved(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def restore(state: State, folder: Path) -> list[str]:
    """Load the newest checkpoint that verifies, if there is one.  A line for each one that had to be passed over."""
    passed = []
    for path in saved(folder):
        try:
            tensors, record = read_tensors(path)
        except WeightsError as error:
            passed.append(error.what)
            continue
        state.net.load_state_dict(_under("net.", tensors))
        if state.average is not None:
            state.average.load_state_dict(_under("average.", tensors))
        values: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            values.setdefault(int(index), {})[key] = tensor
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": values, "param_groups": groups})
        state.scaler.load_state_dict(record.pop("scaler"))
        for name in ("step", "sums", "history", "best", "seconds"):
            setattr(state, name, record[name])
        break
    return passed


def saved(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
