"""Measuring a finished network on images: those of its own run, or others with the same classes."""

import json
from pathlib import Path
from typing import Any

from ..data import Splits
from ..data.open import open_data
from ..errors import ConfigError
from ..weights import Bundle
from ..weights.bundle import model_file
from .evaluate import Predictions, align, predict
from .fit import located, pick_device


def measure(
    model: str | Path,
    data: str | Path | None = None,
    *,
    part: str = "test",
    split_seed: int = 0,
    device: str | None = None,
    **opening: Any,
) -> tuple[Bundle, Predictions, str]:
    """The bundle, its predictions on one part of the data, and where that part comes from; see `data_of`."""
    bundle, splits = data_of(model, data, split_seed=split_seed, **opening)
    images = align(getattr(splits, part), bundle.classes)
    device = pick_device(device)
    predictions = predict(bundle.build().to(device), bundle.preprocess, images, device=device)
    return bundle, predictions, splits.how


def data_of(
    model: str | Path, data: str | Path | None = None, *, split_seed: int = 0, **opening: Any
) -> tuple[Bundle, Splits]:
    """A bundle and images to measure it on.

    On the data that the model's own run had (the default) the parts are exactly those of the run, so that nothing it
    was trained on is measured as new.  Raises DataError if the data has a class that the model does not know.
    """
    file = model_file(model)
    bundle = Bundle.load(file)
    run, split = file.with_name("run.json"), file.with_name("split.json")
    own = json.loads(run.read_text("utf-8"))["source"] if run.exists() else None
    source = own if data is None else located(data)
    if source is None:
        raise ConfigError("L2", f"{file} is not in a run's folder, so there is nothing to measure it on", "add --data")
    record = json.loads(split.read_text("utf-8")) if source == own else None
    if record is not None:
        opening["on_bad_file"] = "lazy"  # the record knows which files were left out
    return bundle, open_data(source, seed=split_seed, record=record, enough=bundle.preprocess.enough, **opening)
