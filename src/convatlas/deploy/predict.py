"""What is on these pictures: exactly one answer, a prediction or an error, for each input and in its order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Preprocess, decode
from ..data.decode import shown
from ..data.scan import Scan
from ..errors import DataError
from ..weights import Bundle


@dataclass(frozen=True)
class Prediction:
    """One input: its most probable classes with their probabilities, or why there are none."""

    path: str
    top: tuple[tuple[str, float], ...] = ()
    error: DataError | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        if self.error is not None:
            return {"path": self.path, "error": {"id": self.error.id, "message": str(self.error)}}
        name, probability = self.top[0]
        return {"path": self.path, "class": name, "probability": probability, "top": dict(self.top)}


@torch.inference_mode()
def predict_files(bundle: Bundle, paths: Iterable[Path], *, top: int = 5, batch: int = 32) -> Iterator[Prediction]:
    """Predictions for image files, and for all image files under folders, as they come."""
    net, k = bundle.build(), min(top, len(bundle.classes))
    files = [file for path in paths for file in expand(path)]
    for start in range(0, len(files), batch):
        group = files[start : start + batch]
        inputs = [read(file, bundle.preprocess) for file in group]
        good = [image for image in inputs if isinstance(image, Tensor)]
        best = net(torch.stack(good)).softmax(1).topk(k) if good else ((), ())
        answers = zip(*best, strict=True)
        for file, image in zip(group, inputs, strict=True):
            if isinstance(image, DataError):
                yield Prediction(shown(file), error=image)
            else:
                probabilities, classes = (row.tolist() for row in next(answers))
                names = [bundle.classes[i] for i in classes]
                yield Prediction(shown(file), tuple(zip(names, probabilities, strict=True)))


def expand(path: Path) -> list[Path]:
    """All image files under a folder in the order of their names; a file itself, and a folder that offers none."""
    try:
        found = Scan(path).images("") if is_folder(path) else []
    except DataError:  # not to be listed, which `read` will say
        found = []
    return [path / name for name in found] or [path]


def read(path: Path, preprocess: Preprocess) -> Tensor | DataError:
    """What the network takes of the image, or the error that says why there is none."""
    try:
        if is_folder(path):
            Scan(path).listing()
            raise DataError("D10", f"{shown(path)}: no images in the folder", "give image files, or folders of them")
        return preprocess(decode(path))
    except DataError as error:
        return error


def is_folder(path: Path) -> bool:
    """False also for what may not be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False
