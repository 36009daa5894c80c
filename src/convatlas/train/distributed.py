"""The processes of a job: a single one here."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn


class World:
    """All processes of a job, seen from one of them: `rank` of `size`.  Rank 0 leads: it alone writes and shows."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def wrap(self, net: nn.Module) -> nn.Module:
        """What training images go through: `net`, its gradients averaged over the processes."""
        return net

    def gathering(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        """Within it gradients add up in this process; they are averaged over all of them only if `last`."""
        return nullcontext()

    def sum(self, *numbers: float) -> list[float]:
        """The sums over all processes, in double precision."""
        return list(numbers)

    def most(self, *numbers: int) -> list[int]:
        """The largest of each over all processes."""
        return list(numbers)

    def share_statistics(self, *nets: nn.Module) -> None:
        """Give every process the leading one's buffers."""

    def deal(self, pieces: Sequence[int]) -> Sequence[int]:
        """This process's share of the pieces of work: every `size`-th."""
        return pieces[self.rank :: self.size]

    def gather(self, results: list[Tensor]) -> list[Tensor]:
        """The results of all the pieces that were dealt, in order, in every process."""
        return results


ALONE = World()
