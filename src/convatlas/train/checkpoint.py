"""The state of training, to disk and back: every bit of it, verified, with the state before it kept."""

import contextlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel

from ..errors import DivergedError, ResourceError, WeightsError
from ..tree import Net
from ..weights import read_tensors, write_tensors
from .differences import differences
from .distributed import like, whole
from .run import Run

KEPT = 2  # checkpoints
CALMER = "lower --lr, raise --warmup or set --clip, and give another --out"


@dataclass
class State:
    """All that changes during training.  Data order, augmentation and dropout need nothing: they follow from `step`."""

    net: Net
    model: nn.Module  # what training images go through: `net`, or `net` distributed
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    sums: dict[str, float] = field(default_factory=lambda: {"loss": 0.0, "right": 0, "seen": 0})  # of this epoch
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)  # where it went on, but not bitwise as if it had not been stopped

    @property
    def evaluated(self) -> nn.Module:
        """The network that counts: the average if there is one."""
        return self.net if self.average is None else self.average.module


def tensors_of(state: State) -> dict[str, Tensor]:
    """Every tensor of the state by name; all processes of a job must ask for them together, as they may have parts.

    Raises DivergedError if a number in it is not finite.
    """
    tensors = {f"net.{name}": t for name, t in state.net.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": t for name, t in state.average.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in values.items() if isinstance(t, Tensor)}
    tensors = whole(tensors)
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
        "notes": state.notes,
        "scaler": state.scaler.state_dict(),
        "platform": platform_of(state),
    }
    path = write_tensors(folder / f"checkpoint-{state.step:08}.safetensors", tensors, record)
    prune(folder)
    return path


def prune(folder: Path) -> None:
    """Remove all checkpoints but the newest two."""
    for old in saved(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def restore(state: State, folder: Path) -> list[str]:
    """Load the newest checkpoint that verifies, if there is one; what is to be said about it, a line each.

    Those that do not verify are renamed to `.damaged`.  Raises WeightsError if one is of a newer format or of another
    network, ResourceError if it can't be read.
    """
    passed = []
    for path in saved(folder):
        try:
            tensors, record = read_tensors(path)
        except WeightsError as error:
            if error.id == "C10":  # not damaged
                raise
            with contextlib.suppress(FileNotFoundError):  # another process of the job was quicker
                path.rename(path.with_suffix(".damaged"))
            passed.append(f"{error.what}; it is passed over")
            continue
        before = len(record.get("notes", []))
        _load(state, tensors, record, path)
        prune(folder)  # a process that was killed while saving may have left three
        return passed + state.notes[before:]
    return passed


def _load(state: State, tensors: dict[str, Tensor], record: dict[str, Any], path: Path) -> None:
    weights, own = _under("net.", tensors), state.net.state_dict()
    differing = differences(_shapes(weights), _shapes(own))
    if differing:
        raise WeightsError("C8", f"{path} is of another network: {', '.join(differing[:5])}", "give another --out")
    state.net.load_state_dict({name: like(own[name], t) for name, t in weights.items()})
    if state.average is not None:
        state.average.load_state_dict(_under("average.", tensors))
    trained = [p for group in state.optimizer.param_groups for p in group["params"]]
    values: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer.", tensors).items():
        index, key = name.split(".", 1)
        values.setdefault(int(index), {})[key] = like(trained[int(index)], tensor)
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": values, "param_groups": groups})
    state.scaler.load_state_dict(record["scaler"])
    for name in ("step", "sums", "history", "best", "seconds"):
        setattr(state, name, record[name])
    state.notes = record.get("notes", [])
    changed = differences(record.get("platform", {}), platform_of(state))
    if changed:
        state.notes = [*state.notes, f"resume is not bitwise: {', '.join(changed)} at step {state.step}"]


def platform_of(state: State) -> dict[str, Any]:
    """What the last bits of the numbers depend on, besides the seed."""
    return {
        "torch": torch.__version__,
        "device": next(state.net.parameters()).device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": distributed.get_world_size() if distributed.is_initialized() else 1,
    }


class Saver:
    """Saves what must survive of a run.  A failure is a warning, for training holds it all; the next one is raised."""

    def __init__(self, run: Run):
        self.run, self.failed = run, False
        self.best: tuple[dict[str, Tensor], dict[str, Any]] | None = None  # weights and row, not yet written

    def keep(self, weights: dict[str, Tensor], row: dict[str, Any]) -> None:
        """Let the next `save` write `best.safetensors`: these weights, as they are now."""
        self.best = {name: t.detach().clone() for name, t in weights.items()}, row

    def save(self, state: State, *, last: bool = False) -> None:
        """Write the best weights if there are new ones, the log and the state.

        Raises ResourceError if it fails a second time in a row, or is the `last` time; DivergedError as `save`.
        """
        try:
            if self.best is not None:
                write_tensors(self.run.path("best.safetensors"), *self.best)
            self.run.write_log(state.history)
            save(state, self.run.folder)
        except ResourceError as error:
            newest = next(iter(saved(self.run.folder)), None)
            step = int(newest.stem.removeprefix("checkpoint-")) if newest else 0
            held = f"Training state up to step {step} is in {newest}" if newest else "No state of training is saved"
            if self.failed or last:
                remedy = "free space, then run the same command again"
                raise ResourceError(error.id, f"{error.what}. {held}", remedy) from error
            warnings.warn(f"{error.what}. {held}; training goes on", RuntimeWarning, stacklevel=2)
            self.failed = True
        else:
            self.failed, self.best = False, None


def saved(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in tensors.items()}
