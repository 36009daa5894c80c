"""What is on these pictures: exactly one answer, a prediction or an error, for each input and in its order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ..data import Preprocess, decode
from ..data.decode import shown
from ..errors import DataError
from ..machine import processors
from .engine import Engine
from .inputs import Inputs, find_inputs
from .model import Model, of_engine

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """One input: its most probable classes with their probabilities, or why there are none.

    probabilities: float32 (classes,), of all of them; features: float32 (D,); both only if asked for
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    error: DataError | None = None
    probabilities: np.ndarray | None = None
    features: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        if self.error is not None:
            return {"path": self.path, "error": {"id": self.error.id, "message": str(self.error)}}
        name, probability = self.top[0]
        row = {"path": self.path, "class": name, "probability": probability, "top": dict(self.top)}
        more = {"probabilities": self.probabilities, "features": self.features}
        return row | {key: values.tolist() for key, values in more.items() if values is not None}


def predict_files(
    engine: Engine, places: Iterable[str | Path], *, top: int = 5, batch: int = 32, workers: int | None = None
) -> Iterator[Prediction]:
    """Predictions for image files, and for all images in folders, shards and Parquet files, as they come.

    See `find_inputs` for what a place is, `predict_inputs` for the rest.
    """
    inputs = find_inputs(places)
    return predict_inputs(of_engine(engine), inputs, range(len(inputs)), top=top, batch=batch, workers=workers)


def predict_inputs(
    model: Model,
    inputs: Inputs,
    which: range,
    *,
    top: int = 5,
    probabilities: bool = False,
    batch: int = 32,
    workers: int | None = None,
) -> Generator[Prediction]:
    """Predictions for some of the inputs, in batches of images that `workers` threads decode meanwhile.

    At most two batches of them are held.  Without `workers` there are as many as processors, with 0 no threads.
    """
    workers = processors() if workers is None else workers
    images = ahead(lambda index: read(inputs, index, model), which, workers, 2 * batch)
    pairs = zip(which, images, strict=True)
    while group := list(islice(pairs, batch)):
        good = [image for _, image in group if not isinstance(image, DataError)]
        answers = iter(answer(model, np.stack(good), top, probabilities)) if good else iter(())
        for index, image in group:
            path = shown(inputs.names[index])
            yield Prediction(path, error=image) if isinstance(image, DataError) else Prediction(path, **next(answers))


def answer(model: Model, pixels: np.ndarray, top: int, probabilities: bool) -> Iterator[dict[str, Any]]:
    """What the rows of a batch, uint8 (N, size, size, 3), say."""
    logits, features = model.compute(pixels)
    for row, likely in enumerate(softmax(logits)):
        best = np.argsort(-likely, kind="stable")[:top]
        yield {
            "top": tuple((model.classes[i], float(likely[i])) for i in best),
            "probabilities": likely if probabilities else None,
            "features": None if features is None else features[row],
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (N, classes)."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def read(inputs: Inputs, index: int, model: Model) -> np.ndarray | DataError:
    """What a model takes of an input, uint8 (size, size, 3), or the error that says why there is none."""
    pre = model.preprocess
    try:
        image = decode(inputs.content(index), enough=pre.enough, name=shown(inputs.names[index]))
        return pixels_of(image, pre)
    except DataError as error:
        return error


def pixels_of(image: Tensor, preprocess: Preprocess) -> np.ndarray:
    """A decoded image, uint8 (3, H, W), resized and cropped: uint8 (size, size, 3)."""
    return preprocess.geometry(image).permute(1, 2, 0).numpy()


def ahead(work: Callable[[S], T], items: Iterable[S], workers: int, most: int) -> Iterator[T]:
    """`work` of each item, in their order, by threads that are at most `most` items ahead of what is wanted."""
    if workers == 0:
        yield from map(work, items)
        return
    items, pool = iter(items), ThreadPoolExecutor(workers)
    try:
        waiting = deque(pool.submit(work, item) for item in islice(items, most))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(items, 1))
    finally:
        pool.shutdown(cancel_futures=True)
