"""From images to batches, without any state.

The order of an epoch is a function of (seed, epoch), the augmentation of an image one of (seed, epoch, index).  So a
run can go on at any step, with any number of workers, and see exactly what it would have seen.
"""

from collections.abc import Generator, Sequence
from contextlib import closing

import torch
from torch import Tensor

from ..data import Images
from ..data.decode import shown
from .augment import Augment
from .order import Order, Place, mix
from .pool import read_ahead
from .watchdog import Mark, watched


class Augmented:
    """Training images: item (epoch, index) is uint8 (3, size, size), the same whenever and wherever it is read."""

    def __init__(self, images: Images, augment: Augment, seed: int):
        self.images, self.augment, self.seed = images, augment, seed

    def __getitem__(self, place: Place) -> Tensor:
        epoch, index = place
        image = self.images.read(index)
        torch.default_generator.manual_seed(mix(self.seed, epoch, index))
        return self.augment(image)

    def fill(self, batch: Tensor, places: Sequence[Place], mark: Mark) -> Tensor:
        """Read the images at `places` into `batch`, uint8 (N, 3, size, size)."""
        for image, place in zip(batch, places, strict=True):
            mark.at(place[1])
            image.copy_(self[place])
        mark.leave()
        return batch


def train_batches(
    images: Images, augment: Augment, size: int, order: Order, workers: int = 0, read_timeout: float = 120
) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
    """Batches (uint8 (N, 3, size, size) channels last, labels (N,), indices (N,)) in the given order.

    With `workers`, that many processes read ahead.  Raises DataError for an image that can no longer be read, and
    LostWorkerError for the second worker that dies, or takes `read_timeout` seconds for one image; without workers
    such an image ends this process with exit code 6.
    """
    augmented = Augmented(images, augment, order.seed)

    def name_of(index: int) -> str:
        return shown(images.names[index])

    def read_here() -> Generator[Tensor, None, None]:
        mark, pinned = Mark(), torch.cuda.is_available()
        with watched(mark, name_of, read_timeout):
            for places in order:
                batch = torch.empty((len(places), size, size, 3), dtype=torch.uint8, pin_memory=pinned)
                yield augmented.fill(batch.movedim(-1, 1), places, mark)

    def read_elsewhere() -> Generator[Tensor, None, None]:
        return read_ahead(augmented.fill, order, size, workers, read_timeout, name_of)

    with closing(read_elsewhere() if workers else read_here()) as batches:
        for pixels, places in zip(batches, order, strict=True):
            indices = torch.tensor([index for _, index in places])
            yield pixels, images.labels[indices], indices
