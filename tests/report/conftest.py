"""Finished runs: folders as training leaves them, of predictions made up on the spot."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from convatlas.data import Images, Preprocess
from convatlas.train.evaluate import Predictions
from convatlas.train.recipe import Recipe
from convatlas.train.run import Run, environment
from convatlas.zoo import spec

HOW = "val is 15% and test 15% of each class, cut by seed 0; train is the rest"


def picture(index: int) -> torch.Tensor:
    """Image `index` of every made-up data set."""
    return torch.full((3, 8, 8), index % 256, dtype=torch.uint8)


def finish(
    folder: Path,
    classes: tuple[str, ...],
    labels: list[int],
    predicted: list[int],
    *,
    epochs: int = 3,
    names: tuple[str, ...] | None = None,
    network: str = "resnet20",
    size: int = 16,
    **result: Any,
) -> Path:
    """Write a run whose network took images of class `labels[i]` for `predicted[i]`, with a logit of 2."""
    names = names or tuple(f"images/{i}.png" for i in range(len(labels)))
    logits = torch.zeros(len(labels), len(classes))
    logits[range(len(labels)), predicted] = 2
    target = torch.tensor(labels)
    predictions = Predictions(classes, names, target, logits)
    log = [
        {"epoch": e, "lr": 0.1 / e, "train_loss": 2 / e, "train_accuracy": 1 - 1 / e, "val_loss": 3 / e,
         "val_accuracy": 1 - 1 / (e + 1)}
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    run = Run(folder)
    run.write_json(
        "run.json",
        {
            "command": "convatlas train --data made-up",
            "network": spec(network, classes=len(classes), size=size).to_dict(),
            "preprocess": Preprocess(size=size, resize=size).to_dict(),
            "recipe": asdict(Recipe(epochs=epochs)),
            "recipe_name": "small",
            "data": "made-up",
            "seed": 0,
            "device": "cpu",
            "why": "the images' median shorter side is 8 px",
            "environment": environment(),
        },
    )
    run.write_json("split.json", {"classes": list(classes), "how": HOW})
    run.write_log(log)
    run.write_test(predictions, Images(classes, target, names, picture))
    run.write_json(
        "result.json",
        {
            "images": {"train": 1234, "val": 56, "test": len(labels)},
            "epochs": epochs,
            "train_seconds": 83.4,
            "kept": {"which": "last", **log[-1]},
            "test": predictions.metrics(),
            "warnings": [],
            "left_out": 0,
            **result,
        },
    )
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Callable[..., Path]:
    """`finished(classes, labels, predicted)`: the folder of a finished run."""
    return lambda *args, **options: finish(tmp_path_factory.mktemp("runs") / "run", *args, **options)
