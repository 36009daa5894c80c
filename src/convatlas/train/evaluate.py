"""Predicting whole data sets, and the figures that say how good the predictions are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Images, Preprocess
from ..data.splits import differing_classes
from .distributed import ALONE, World

BINS = 15  # of the calibration figures


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits (n, classes) for n labelled images."""

    classes: tuple[str, ...]
    names: Sequence[str]
    labels: Tensor
    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """(n, classes)."""
        return self.logits.softmax(1)

    @property
    def accuracy(self) -> float:
        """Share of the images whose most probable class is the right one."""
        return self.top(1)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(self.logits, self.labels).item()

    def top(self, k: int) -> float:
        """Share of the images whose class is among the k most probable ones (at most as many as there are)."""
        k = min(k, len(self.classes))
        return (self.logits.topk(k).indices == self.labels[:, None]).any(1).double().mean().item()

    def calibration(self) -> list[tuple[int, float, float]]:
        """(images, mean confidence, accuracy) of each bin of confidence, from low to high."""
        confidence, predicted = self.probabilities.max(1)
        place = (confidence * BINS).long().clamp(max=BINS - 1)
        right = (predicted == self.labels).double()
        bins = [(place == i) for i in range(BINS)]
        return [
            (int(b.sum()), confidence[b].double().mean().item(), right[b].mean().item()) if b.any() else (0, 0.0, 0.0)
            for b in bins
        ]

    def calibration_error(self) -> float:
        """Expected calibration error: the mean distance of confidence and accuracy over the images' bins."""
        return sum(n * abs(confidence - right) for n, confidence, right in self.calibration()) / len(self.labels)

    def metrics(self) -> dict[str, Any]:
        """JSON-able: accuracy, top 5, loss, calibration error, number of images."""
        return {
            "images": len(self.labels),
            "accuracy": self.accuracy,
            "top5": self.top(5),
            "loss": self.loss,
            "calibration_error": self.calibration_error(),
        }


@torch.inference_mode()
def predict(
    net: nn.Module,
    pre: Preprocess,
    images: Images,
    *,
    batch: int = 256,
    device: torch.device | str = "cpu",
    world: World = ALONE,
    progress: Callable[[int, int], object] | None = None,
) -> Predictions:
    """Run `net`, in eval mode, over all images in their order; whole batches are dealt to the processes of a job."""
    net.eval()
    logits = []
    for start in world.deal(range(0, len(images), batch)):
        stop = min(start + batch, len(images))
        pixels = torch.stack([pre.geometry(images.read(i)) for i in range(start, stop)])
        logits.append(net(pre.normalize(pixels.to(device))).float().cpu())
        if progress is not None:
            progress(stop, len(images))
    return Predictions(images.classes, images.names, images.labels, torch.cat(world.gather(logits)))


def align(images: Images, classes: tuple[str, ...]) -> Images:
    """The same images with labels that index `classes`, matched by name.  Raises DataError D11 if one is not there."""
    if set(images.classes) - set(classes):
        raise differing_classes("the data", images.classes, "those of the weights", classes)
    place = torch.tensor([classes.index(name) for name in images.classes])
    return replace(images, classes=classes, labels=place[images.labels])
