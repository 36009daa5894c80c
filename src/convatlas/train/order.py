"""Which images a step sees: a function of the seed and the step, so that there is no state to lose.

A run can go on at any step, and sees exactly what it would have seen.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..data.blocks import Blocks, block_permutation
from ..errors import ConfigError, DataError

Place = tuple[int, int]
"""(epoch, index): one image in one epoch."""


def mix(*numbers: int) -> int:
    """A seed, 63 bits, that depends on all of the numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


@dataclass(frozen=True)
class Order:
    """What process `rank` of `size` reads in steps start..stop: its share of each batch, a list of (epoch, index).

    An epoch is a permutation of the `count` images, block-wise if `blocks` are given, cut into batches of the whole
    job.  Every process takes a contiguous share of each; shares differ by one image at most.  A last batch is left out
    if a share of it would have fewer than two images, since BatchNorm cannot learn from one.
    Raises DataError or ConfigError T8 if not even a whole batch has two images for each of several processes.
    """

    count: int
    batch: int
    seed: int
    start: int
    stop: int
    rank: int = 0
    size: int = 1
    blocks: Blocks | None = None

    def __post_init__(self):
        needed = 2 * self.size
        if self.size > 1 and self.count < needed:
            what = f"{self.count} training images are too few for {self.size} processes, of 2 images each"
            raise DataError("T8", what, f"add images or start at most {max(1, self.count // 2)} processes")
        if self.size > 1 and self.batch < needed:
            what = f"batches of {self.batch} images are too small for {self.size} processes, of 2 images each"
            raise ConfigError("T8", what, f"give --batch {needed} or more")

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.count, self.batch)
        return max(1, full + (rest >= 2 * self.size))

    def images_in(self, step: int) -> int:
        """How many images all the processes read in a step."""
        return min(self.batch, self.count - step % self.steps_per_epoch * self.batch)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Place]]:
        shuffled, indices = -1, []
        for step in range(self.start, self.stop):
            epoch, number = divmod(step, self.steps_per_epoch)
            if epoch != shuffled:
                shuffled, indices = epoch, self._permutation(epoch)
            images = self.images_in(step)
            first, last = (number * self.batch + images * rank // self.size for rank in (self.rank, self.rank + 1))
            yield [(epoch, index) for index in indices[first:last]]

    def _permutation(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(mix(self.seed, epoch))
        if self.blocks is None:
            return torch.randperm(self.count, generator=generator).tolist()
        return block_permutation(self.blocks, generator).tolist()
