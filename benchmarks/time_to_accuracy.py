"""Epochs until ResNet-20 reaches a validation accuracy on CIFAR-10: our short recipe against two well-known ones.

    python benchmarks/time_to_accuracy.py DATA --epochs 5 --target 0.76 [--seeds 0 1 2]

Ours is the recipe `cifar10` over `--epochs`, so its rate has fallen to zero at the end.  The others run on their own
schedules (the paper's 182 epochs, and the 200 of kuangliu/pytorch-cifar) until an epoch ends at the target or above, or
four times our epochs are over.  The validation images are 15 % of the training images; the test images are not read.
Every run is kept in `--runs`, so that a series goes on where it was stopped.  Writes results/time_to_accuracy.json.
"""

import argparse
import contextlib
import json
import statistics
from pathlib import Path

from convatlas import Recipe, Run, open_data, spec
from convatlas.train.choose import preprocess_for
from convatlas.train.loop import train
from convatlas.train.run import environment
from convatlas.train.task import Task
from convatlas.train.watcher import Silent

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results/time_to_accuracy.json"
KUANGLIU = Recipe(  # main.py and utils.py of kuangliu/pytorch-cifar
    epochs=200, batch=128, lr=0.1, momentum=0.9, nesterov=False, weight_decay=5e-4, decay_norm=True, schedule="cosine",
    warmup=0, augment="small",
)  # fmt: skip


class Enough(Exception):  # noqa: N818 - no error
    """The target, or the last epoch that matters, is reached."""


class Until(Silent):
    """Ends the training by Enough."""

    def __init__(self, target: float, most: int):
        self.target, self.most, self.accuracies = target, most, []

    def begin(self, state, total, notes):
        self.accuracies = [row["val_accuracy"] for row in state.history]

    def epoch(self, row, best):
        self.accuracies.append(row["val_accuracy"])
        print(f"    epoch {row['epoch']}: {row['val_accuracy']:.2%}", flush=True)
        if row["val_accuracy"] >= self.target or row["epoch"] == self.most:
            raise Enough


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="cifar10, or a folder with its images in Parquet files")
    parser.add_argument("--epochs", type=int, required=True, help="of our recipe")
    parser.add_argument("--target", type=float, required=True, help="validation accuracy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/time_to_accuracy")
    options = parser.parse_args()
    splits = open_data(options.data)
    pre = preprocess_for(splits.train, 32)
    arch = spec("resnet20", classes=10)
    recipes = {
        "ours": Recipe.load("cifar10").replaced(epochs=options.epochs),
        "paper": Recipe.load("resnet_cifar"),
        "kuangliu/pytorch-cifar": KUANGLIU,
    }
    rows = []
    for name, recipe in recipes.items():
        most = options.epochs * (1 if name == "ours" else 4)
        curves = []
        for seed in options.seeds:
            print(f"{name}, seed {seed}", flush=True)
            task = Task(arch=arch, splits=splits, pre=pre, recipe=recipe, seed=seed)
            curves.append(
                curve(task, options.runs / f"{name.split('/')[0]}-{recipe.epochs}-{seed}", options.target, most)
            )
        rows.append(row(name, recipe, curves, options, most))
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{name}: {rows[-1]['epochs']}")


def curve(task: Task, folder: Path, target: float, most: int) -> list[float]:
    """The validation accuracy of each epoch up to the target, or to the last one that matters."""
    known, until = folder / "curve.json", Until(target, most)
    accuracies = json.loads(known.read_text()) if known.exists() else []
    if not (len(accuracies) >= most or any(a >= target for a in accuracies)):
        with contextlib.suppress(Enough):
            train(task, Run(folder), until)
        accuracies = until.accuracies
        known.write_text(json.dumps(accuracies))
    first = next((n for n, a in enumerate(accuracies, 1) if a >= target), most)
    return accuracies[:first]


def row(name: str, recipe: Recipe, curves: list[list[float]], options: argparse.Namespace, most: int) -> dict:
    epochs = [len(c) if c[-1] >= options.target else None for c in curves]
    return {
        "recipe": name,
        "schedule_epochs": recipe.epochs,
        "target": options.target,
        "seeds": options.seeds,
        "epochs": epochs,  # None: not within four times ours
        "mean": statistics.mean(epochs) if None not in epochs else None,
        "more_than": most if None in epochs else None,
        "val_accuracy": curves,
        "command": f"python benchmarks/time_to_accuracy.py cifar10 --epochs {options.epochs} --target {options.target}",
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
