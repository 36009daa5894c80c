"""The lab: images, seeds and a budget; and trials in it, each the training of one network with one seed."""

import hashlib
import inspect
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..data import Preprocess
from ..data.splits import Splits
from ..files import write_text
from ..train.choose import choose, preprocess_for
from ..train.evaluate import Predictions
from ..train.fit import described
from ..train.loop import train
from ..train.recipe import Recipe
from ..train.run import Run
from ..train.task import Task
from ..train.watcher import Silent
from ..tree import Net, cost
from ..zoo import Arch, spec

SHORT_STEPS = 80  # of a training at the short budget, or one epoch if that is more
BUDGETS = ("short", "full")

Look = Callable[[Net, Predictions], dict[str, Any]]
Trials = dict[str, list[dict[str, Any]]]  # by arm, one for each seed


@dataclass(frozen=True, kw_only=True)
class Built(Arch):
    """A network that an experiment puts together itself; `make` takes the spec, for its classes and channels."""

    make: Callable[[Arch], Net]

    def assemble(self) -> Net:
        """What `make` makes."""
        return self.make(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the tree as text; there is no way back."""
        return {"family": "Built", "name": self.name, "tree": repr(self.skeleton())}


@dataclass(frozen=True)
class Lab:
    """Where an experiment is run.

    At the short budget a training takes about 80 steps, at least an epoch; at the full one what the recipe for these
    images says.  `folder` keeps every finished trial, and an unfinished one's checkpoint, so that an experiment goes on
    where it was stopped; `spared` are the seconds that the trials took which were there already.  `trained` are the
    parameters, MACs, training images and epochs by arm.  `progress` is told of every step: arm, seed, steps done, steps
    in all.
    """

    splits: Splits
    folder: Path
    seeds: Sequence[int] = (0, 1, 2)
    budget: str = "short"
    progress: Callable[[str, int, int, int], object] = lambda arm, seed, done, total: None
    spared: list[float] = field(default_factory=list)
    trained: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether the budget is the full one."""
        return self.budget == "full"

    @property
    def size(self) -> int:
        """The side of the square input, in pixels."""
        return choose(self.splits).size

    @property
    def recipe(self) -> Recipe:
        """The recipe for these images, cut down at the short budget."""
        name = "cifar10" if self.splits.name.startswith("cifar10") else choose(self.splits).recipe
        recipe = Recipe.load(name)
        if self.full:
            return recipe
        epochs = max(1, round(SHORT_STEPS / math.ceil(len(self.splits.train) / recipe.batch)))
        return recipe.replaced(epochs=epochs, warmup=min(recipe.warmup, epochs / 5))

    def spec(self, name: str, **fields: Any) -> Arch:
        """A registered network for these images."""
        return spec(name, **{"classes": len(self.splits.classes), "size": self.size, **fields})

    def built(self, name: str, make: Callable[[Arch], Net]) -> Built:
        """A network that is not registered, for these images."""
        return Built(name=name, paper="", use="", classes=len(self.splits.classes), size=self.size, make=make)

    def trials(self, arms: Mapping[str, Arch], look: Look | None = None, **recipe: Any) -> Trials:
        """Every arm trained with every seed, fields of the recipe replaced; what `trial` says of each."""
        found: Trials = {arm: [] for arm in arms}
        for seed in self.seeds:  # outside, so that what was stopped compares all arms
            for arm, arch in arms.items():
                found[arm].append(self.trial(arm, arch, seed, look, **recipe))
        return found

    def trial(self, arm: str, arch: Arch, seed: int, look: Look | None = None, **recipe: Any) -> dict[str, Any]:
        """One training: test accuracy, loss and calibration error, the log, and what `look` sees in the network.

        `look` takes the trained network and its predictions for the test images, and gives JSON-able values.
        """
        task = Task(arch=arch, splits=self.splits, pre=self.pre, recipe=self.recipe.replaced(**recipe), seed=seed)
        card = cost(arch.skeleton(), self.size, arch.in_channels)
        counts = {"params": card.params, "macs": card.macs, "images": len(self.splits.train)}
        self.trained[arm] = {**counts, "epochs": task.recipe.epochs}
        folder = self.folder / f"{arm.replace('/', '-')}-{seed}-{key(task, look)}"
        kept = folder / "trial.json"
        if kept.exists():
            trial = json.loads(kept.read_text("utf-8"))
            self.spared.append(trial["seconds"])
            return trial
        bundle, predictions, state = train(task, Run(folder), Watching(self, arm, seed))
        net = task.arch.build()
        net.load_state_dict(bundle.weights)
        seen = look(net.eval(), predictions) if look else {}
        trial = {**predictions.metrics(), "log": state.history, "seconds": round(state.seconds, 1), **seen}
        shutil.rmtree(folder)  # checkpoints and weights
        write_text(kept, json.dumps(trial, indent=1) + "\n")
        return trial

    @property
    def pre(self) -> Preprocess:
        """Resizing, and the training images' mean and standard deviation."""
        return preprocess_for(self.splits.train, self.size)

    def batch(self, images: int, part: str = "test") -> tuple[torch.Tensor, torch.Tensor]:
        """Some images of a part, evenly spaced: (N, 3, size, size) normalised, and their labels (N,)."""
        source, pre = getattr(self.splits, part), self.pre
        chosen = torch.linspace(0, len(source) - 1, min(images, len(source))).long().tolist()
        pixels = torch.stack([pre.geometry(source.read(i)) for i in chosen])
        return pre.normalize(pixels), source.labels[chosen]


def key(task: Task, look: Look | None) -> str:
    """A few characters that differ where the trial may: by network, recipe, images, and what looks at it."""
    text = json.dumps(described(task, task.splits.record())) + (inspect.getsource(look) if look else "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Watching(Silent):
    """A watcher that hands on how far a trial is."""

    def __init__(self, lab: Lab, arm: str, seed: int):
        self.lab, self.arm, self.seed = lab, arm, seed

    def step(self, state, total, images):
        """A step is done."""
        self.lab.progress(self.arm, self.seed, state.step, total)


def values(trials: Trials, quantity: str) -> dict[str, list[float]]:
    """One quantity of all trials, by arm."""
    return {arm: [trial[quantity] for trial in of_arm] for arm, of_arm in trials.items()}
