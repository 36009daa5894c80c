"""The main job: from images to a trained network, measured once on images that it never saw."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data import Preprocess
from ..data.check import changes
from ..data.open import open_data
from ..data.splits import PARTS
from ..errors import ConfigError, ResourceError
from ..tree import cost
from ..weights import Bundle
from ..zoo import Arch, spec
from ..zoo.spec import warn_if_too_small
from .checkpoint import State
from .choose import choose, preprocess_for
from .evaluate import Predictions
from .loop import train
from .pretrained import keeps_head, open_pretrained
from .progress import noted_warnings
from .recipe import Recipe, scaled
from .run import Run, environment
from .task import Machine, Task
from .watcher import Silent, Watcher


@dataclass(frozen=True)
class Plan:
    """A task, and how it came about."""

    task: Task
    source: str  # of the data: a name or an absolute path
    recipe_name: str
    why: str  # this network and size, in one sentence
    scaling: str | None  # what became of the recipe's rate, in one sentence


def plan(
    data: str | Path = "digits",
    *,
    network: str | None = None,
    size: int | None = None,
    recipe: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
    pretrained: str | None = None,
    seed: int = 0,
    split_seed: int = 0,
    device: str = "cpu",
    **opening: Any,
) -> Plan:
    """Open the data (`opening` goes to `open_data`) and choose what is not given: network, input size and recipe.

    `device` matters for the choice only.  Raises ConfigError and DataError for what cannot be trained, and what
    `open_pretrained` raises.
    """
    bundle = open_pretrained(pretrained, network) if pretrained else None
    if bundle:
        pre = bundle.preprocess.for_size(size or bundle.spec.size)
    else:
        pre = Preprocess(size, size) if size else Preprocess()  # but for what the images will say
    splits = open_data(data, seed=split_seed, enough=pre.enough, **opening)
    choice = choose(splits, device)
    name = str(recipe or ("finetune" if bundle else choice.recipe))
    chosen, scaling = scaled(Recipe.load(name), overrides or {})
    classes = len(splits.classes)
    if bundle:
        size, arch = pre.size, replace(bundle.spec, classes=classes, size=pre.size)
        head = "its head is kept" if keeps_head(bundle, splits.classes) else "its head is new"
        why = f"{arch.name} from {pretrained}, at {size} px; {head}"
    else:
        arch = spec(network or choice.network)
        size = size or min(choice.size, arch.size if network else choice.size)
        arch, pre = spec(arch.name, classes=classes, size=size), preprocess_for(splits.train, size)
        why = choice.why if network is None else f"{network} as asked, at {size} px"
    refuse_if_too_small(arch)
    task = Task(arch=arch, splits=splits, pre=pre, recipe=chosen, seed=seed, pretrained=bundle)
    return Plan(task, located(data), name, why, scaling)


def fit(
    plan: Plan,
    run: Run,
    watcher: Watcher | None = None,
    machine: Machine = Machine(),  # noqa: B008 - a frozen value
    *,
    command: str = "",
) -> dict[str, Any]:
    """Train, measure, and leave everything in the run's folder; the result, as in its `result.json`.

    A run that is there already goes on where it was stopped; a finished one is only read.  Raises what `train` raises,
    and ResourceError if memory runs out or a worker dies.
    """
    task, world = plan.task, machine.world
    record = task.splits.record()
    about = {
        "command": command,
        "source": plan.source,
        "recipe_name": plan.recipe_name,
        "why": plan.why,
        "device": machine.device,
        "processes": world.size,
    }
    config = described(task, record)
    world.agree({**config, "classes": task.splits.classes, "code": code_digest(), "torch": torch.__version__})
    with contextlib.closing(run):
        [finished] = world.most(world.leads and run.open(config, about))
        if finished:
            return run.read_json("result.json")
        if world.leads:
            run.write_json("split.json", record)
            run.write_bad_files(task.splits.bad)
        with resource_errors(task.recipe), noted_warnings() as noted:
            bundle, predictions, state = train(task, run, watcher or Silent(), machine)
        result = {"command": command, **summary(task, bundle, predictions, state)}
        result["warnings"] += noted
        if world.leads:
            run.write_json("result.json", result)
    return result


def summary(task: Task, bundle: Bundle, predictions: Predictions, state: State) -> dict[str, Any]:
    """What came out of a training, JSON-able."""
    splits = task.splits
    folded = cost(task.arch.skeleton(), task.arch.size, task.arch.in_channels)
    return {
        "environment": environment(),
        "network": task.arch.name,
        "params": folded.params,
        "macs": folded.macs,
        "data": splits.name,
        "how": splits.how,
        "images": {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
        "seed": task.seed,
        "epochs": task.recipe.epochs,
        "train_seconds": round(state.seconds, 1),
        "kept": bundle.metrics["val"],
        "test": predictions.metrics(),
        "warnings": [*splits.warnings, *state.notes, *(w for part in PARTS for w in changes(getattr(splits, part)))],
        "left_out": len(splits.bad),
    }


def described(task: Task, record: dict[str, Any]) -> dict[str, Any]:
    """The task as JSON-able values: two tasks described alike have the same result."""
    return {
        "network": task.arch.to_dict(),
        "preprocess": task.pre.to_dict(),
        "recipe": asdict(task.recipe),
        "pretrained": task.pretrained and task.pretrained.digest(),
        "data": task.splits.name,
        "seed": task.seed,
        "split": hashlib.sha256(json.dumps(record).encode()).hexdigest(),
    }


def code_digest() -> str:
    """The SHA-256 of all that this package runs."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def located(data: str | Path) -> str:
    """The name of a data set, or the absolute path of a folder, a file or a pattern of files."""
    path = Path(data).expanduser()
    return str(path.parent.resolve() / path.name) if path.exists() or path.parent != Path() else str(data)


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
    """Turn running out of memory (T3) into an error that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # a thread needs memory for its stack; a primitive is what oneDNN could not compile for lack of it
        signs = ("alloc", "out of memory", "start new thread", "could not create a primitive")
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in signs):
            raise
        remedy = f"try --batch {max(2, recipe.batch // 2)}"
        raise ResourceError("T3", f"out of memory with batches of {recipe.batch} images", remedy) from error
