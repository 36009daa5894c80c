"""What is on these pictures: exactly one answer, a prediction or an error, for each input and in its order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import decode
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
    """Predictions for image files, and for all files under folders, as they come."""
    net, k = bundle.build(), min(top, len(bundle.classes))
    files = [file for path in paths for file in expand(path)]
    for start in range(0, len(files), batch):
        group = files[start : start + batch]
        images = [read(file) for file in group]
        good = [bundle.preprocess(image) for image in images if isinstance(image, Tensor)]
        best = net(torch.stack(good)).softmax(1).topk(k) if good else ((), ())
        answers = zip(*best, strict=True)
        for file, image in zip(group, images, strict=True):
            if isinstance(image, DataError):
                yield Prediction(shown(file), error=image)
            else:
                probabilities, classes = (row.tolist() for row in next(answers))
                names = [bundle.classes[i] for i in classes]
                yield Prediction(shown(file), tuple(zip(names, probabilities, strict=True)))


def expand(path: Path) -> list[Path]:
    """The file itself, or all images under a folder in the order of their names."""
    return [path / name for name in Scan(path).images("")] if path.is_dir() else [path]


def read(path: Path) -> Tensor | DataError:
    """The decoded image, or the error that says why there is none."""
    try:
        return decode(path)
    except DataError as error:
        return error
