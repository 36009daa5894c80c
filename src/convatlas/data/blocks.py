"""Which images lie together in storage, and an order of training that keeps near what is near."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Blocks:
    """Runs of images that are read together, such as the row groups of a Parquet file.

    of: int64 (n,), the block that each image lies in
    window: blocks that fit into memory at the same time
    """

    of: Tensor
    window: int

    @classmethod
    def of_sizes(cls, blocks: Sequence[tuple[int, int]], held_bytes: int) -> "Blocks | None":
        """Blocks of so many (images, bytes), one after another; None if all of them fit `held_bytes`."""
        images, sizes = np.array(blocks, np.int64).reshape(-1, 2).T
        if sizes.sum() <= held_bytes:
            return None
        return cls(torch.from_numpy(np.arange(len(images)).repeat(images)), max(1, held_bytes // int(sizes.max())))

    def subset(self, places: np.ndarray) -> "Blocks":
        """The blocks of the images at `places`, int64 (m,)."""
        return Blocks(self.of[torch.from_numpy(places)], self.window)


def block_permutation(blocks: Blocks, generator: torch.Generator) -> Tensor:
    """A random order of n images, int64 (n,), that reads each block within one window of `blocks.window` blocks.

    The blocks are put in random order and cut into windows; within a window the images are in random order.
    """
    numbers, place = blocks.of.unique(return_inverse=True)  # a part of the images may lack blocks
    window = torch.randperm(len(numbers), generator=generator)[place] // blocks.window
    shuffled = torch.randperm(len(place), generator=generator)
    return shuffled[window[shuffled].argsort(stable=True)]
