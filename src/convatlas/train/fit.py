"""The main job: from images to a trained network, measured once on images that it never saw."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.open import open_data
from ..data.splits import Splits
from ..errors import ConfigError, ResourceError
from ..tree import cost
from ..zoo import Arch, spec
from ..zoo.spec import warn_if_too_small
from .choose import choose, preprocess_for
from .loop import Silent, Watcher, train
from .recipe import Recipe
from .run import Run, environment


@dataclass(frozen=True)
class Plan:
    """All that a run is made of, before it starts."""

    source: str  # of the data: a name or an absolute path
    splits: Splits
    arch: Arch
    recipe: Recipe
    recipe_name: str
    why: str
    seed: int
    device: str


def plan(
    data: str | Path = "digits",
    *,
    network: str | None = None,
    size: int | None = None,
    recipe: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
    seed: int = 0,
    split_seed: int = 0,
    device: str | None = None,
    **opening: Any,
) -> Plan:
    """Open the data (`opening` goes to `open_data`) and choose what is not given: network, input size and recipe.

    Raises ConfigError and DataError for what cannot be trained.
    """
    splits = open_data(data, seed=split_seed, **opening)
    device = pick_device(device)
    choice = choose(splits, device)
    name = str(recipe or choice.recipe)
    chosen = Recipe.load(name).replaced(**(overrides or {}))
    arch = spec(network or choice.network)
    size = size or min(choice.size, arch.size if network else choice.size)
    why = choice.why if network is None else f"{network} as asked, at {size} px"
    arch = spec(arch.name, classes=len(splits.classes), size=size)
    refuse_if_too_small(arch)
    return Plan(located(data), splits, arch, chosen, name, why, seed, device)


def fit(plan: Plan, run: Run, watcher: Watcher | None = None, *, workers: int = 0, command: str = "") -> dict[str, Any]:
    """Train, measure, and leave everything in the run's folder; the result, as in its `result.json`.

    A run that is there already goes on where it was stopped; a finished one is only read.  Raises what `train` raises,
    and ResourceError if memory runs out or a worker dies.
    """
    splits, arch = plan.splits, plan.arch
    pre = preprocess_for(splits.train, arch.size)
    record = splits.record()
    config = {
        "network": arch.to_dict(),
        "preprocess": pre.to_dict(),
        "recipe": asdict(plan.recipe),
        "data": splits.name,
        "seed": plan.seed,
        "split": hashlib.sha256(json.dumps(record).encode()).hexdigest(),
    }
    about = {
        "command": command,
        "source": plan.source,
        "recipe_name": plan.recipe_name,
        "why": plan.why,
        "device": plan.device,
    }
    if run.open(config, about):
        return run.read_json("result.json")
    run.write_json("split.json", record)
    run.write_bad_files(splits.bad)
    with resource_errors(plan.recipe):
        bundle, predictions, state = train(
            arch,
            splits,
            pre,
            plan.recipe,
            run,
            watcher or Silent(),
            seed=plan.seed,
            device=plan.device,
            workers=workers,
        )
    folded = cost(arch.skeleton(), arch.size, arch.in_channels)
    result = {
        "command": command,
        "environment": environment(),
        "network": arch.name,
        "params": folded.params,
        "macs": folded.macs,
        "data": splits.name,
        "how": splits.how,
        "images": {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
        "seed": plan.seed,
        "epochs": plan.recipe.epochs,
        "train_seconds": round(state.seconds, 1),
        "kept": bundle.metrics["val"],
        "test": predictions.metrics(),
        "warnings": list(splits.warnings),
        "left_out": len(splits.bad),
    }
    run.write_json("result.json", result)
    return result


def located(data: str | Path) -> str:
    """The name of a data set, or the absolute path of a folder or file."""
    return str(Path(data).expanduser().resolve()) if Path(data).expanduser().exists() else str(data)


def refuse_if_too_small(arch: Arch) -> None:
    """Raise ConfigError if images of the spec's size do not get through the network, warn if they barely do."""
    net = arch.skeleton()
    try:
        cost(net, arch.size, arch.in_channels)
    except ValueError as error:
        what = f"{arch.name} cannot take {arch.size}x{arch.size} images: {error}"
        raise ConfigError("L2", what, "choose a larger --size or a network for small images") from None
    warn_if_too_small(arch, net)


def pick_device(name: str | None) -> str:
    """`name`, or the GPU if there is one.  Raises ConfigError for a device that is not there."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] == "cuda" and not torch.cuda.is_available():
        raise ConfigError("L5", f"there is no device {name!r}", "use --device cpu, or a torch built for your GPU")
    return name


@contextlib.contextmanager
def resource_errors(recipe: Recipe) -> Iterator[None]:
    """Turn running out of memory (T3) and the death of a worker (T4) into errors that say what to do."""
    try:
        yield
    except (MemoryError, RuntimeError, ConnectionError, EOFError) as error:
        signs = ("alloc", "out of memory", "start new thread")  # a thread needs memory for its stack
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in signs):
            what, remedy = (
                f"out of memory with batches of {recipe.batch} images",
                f"--batch {max(2, recipe.batch // 2)}",
            )
            raise ResourceError("T3", what, f"try {remedy}") from error
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        remedy = "fewer --workers, or --workers 0; the same command goes on from the last checkpoint"
        raise ResourceError("T4", "a process that reads images has died (out of memory?)", remedy) from error
