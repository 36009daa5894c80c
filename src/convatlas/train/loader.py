"""From images to batches, without any state.

The order of an epoch is a function of (seed, epoch), the augmentation of an image one of (seed, epoch, index).  So a
run can go on at any step, with any number of workers, and see exactly what it would have seen.
"""

import hashlib
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ..data import Images
from ..errors import DataError
from .augment import Augment


def mix(*numbers: int) -> int:
    """A seed, 63 bits, that depends on all of the numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


@dataclass(frozen=True)
class Order(Sampler):
    """The batches of steps start..stop, each a list of (epoch, index).

    An epoch is a permutation of the `count` images, cut into batches; a last batch of a single image is left out,
    since BatchNorm cannot learn from it.
    """

    count: int
    batch: int
    seed: int
    start: int
    stop: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.count, self.batch)
        return max(1, full + (rest > 1))

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled, indices = -1, []
        for step in range(self.start, self.stop):
            epoch, number = divmod(step, self.steps_per_epoch)
            if epoch != shuffled:
                generator = torch.Generator().manual_seed(mix(self.seed, epoch))
                shuffled, indices = epoch, torch.randperm(self.count, generator=generator).tolist()
            yield [(epoch, index) for index in indices[number * self.batch : (number + 1) * self.batch]]


class Augmented(Dataset):
    """Training images: item (epoch, index) is (uint8 (3, size, size), label, index), or why it can't be read."""

    def __init__(self, images: Images, augment: Augment, seed: int):
        self.images, self.augment, self.seed = images, augment, seed

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, int, int] | DataError:
        epoch, index = place
        try:
            image, label = self.images[index]
        except DataError as error:  # torch would hand on only the text of an error raised in a worker
            return error
        torch.default_generator.manual_seed(mix(self.seed, epoch, index))
        return self.augment(image), label, index


def train_batches(
    images: Images, augment: Augment, order: Order, workers: int
) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
    """Batches (uint8 (N, 3, size, size), labels (N,), indices (N,)) in the given order.

    Raises DataError for an image that can no longer be read.
    """
    loader = DataLoader(
        Augmented(images, augment, order.seed),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=leave_signals_to_the_parent,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def collate(items: list[Any]) -> Any:
    """The items as tensors, or the first error among them."""
    return next((item for item in items if isinstance(item, DataError)), None) or default_collate(items)


def leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and batch systems signal the whole group; a worker must live until the parent has finished its step."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
