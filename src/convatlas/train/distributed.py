"""The processes of a job and what they do together: the training code asks its `World` and knows nothing else of them.

The result is a function of task and number of processes, to the last bit, whether the job was stopped or not.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ..errors import DistributedError
from .differences import differences


class World:
    """All processes of a job, seen from one of them: `rank` of `size`.  Rank 0 leads: it alone writes and shows."""

    rank: int = 0
    size: int = 1
    step: int = 0  # where this process is, for those who may have to say so

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

    def wait(self) -> None:
        """Until all processes have come here."""

    def share_statistics(self, *nets: nn.Module) -> None:
        """Give every process the leading one's buffers."""

    def deal(self, pieces: Sequence[int]) -> Sequence[int]:
        """This process's share of the pieces of work: every `size`-th."""
        return pieces[self.rank :: self.size]

    def gather(self, results: list[Tensor]) -> list[Tensor]:
        """The results of all the pieces that were dealt, in order, in every process."""
        return results

    def in_one_piece(self, net: nn.Module) -> nn.Module:
        """What this process can evaluate by itself: `net`, or a copy if it has only a part of the weights."""
        return net

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Raises DistributedError R6, in every process, if the facts (JSON-able) are not the same everywhere."""


ALONE = World()


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in one piece each, of which the processes of a job may have parts; they must ask for it together."""
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}


def like(target: Tensor, tensor: Tensor) -> Tensor:
    """The tensor, the same in all processes, laid out as `target` is if it has its shape: in parts, or channels last.

    A fused optimizer pairs weights and momentum by their place in memory.
    """
    if target.shape != tensor.shape:
        return tensor
    if isinstance(target, DTensor):
        return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements)
    return torch.empty_like(target, dtype=tensor.dtype).copy_(tensor)


class Ranks(World):
    """The processes of torch's default process group."""

    def __init__(self):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def wrap(self, net: nn.Module) -> nn.Module:
        """`net` in DistributedDataParallel.

        After its first step that puts gradients into other buckets, in which they add up in another order, so a job
        that was stopped would end with other last bits; not so if it looks for unused parameters.
        """
        return DistributedDataParallel(net, find_unused_parameters=True)

    def gathering(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        """`no_sync`, but for the last part of a step."""
        assert isinstance(model, DistributedDataParallel)
        return nullcontext() if last else model.no_sync()

    def sum(self, *numbers: float) -> list[float]:
        """By an all-reduce."""
        return self._reduced(torch.tensor(numbers, dtype=torch.float64), dist.ReduceOp.SUM)

    def most(self, *numbers: int) -> list[int]:
        """By an all-reduce."""
        return self._reduced(torch.tensor(numbers, dtype=torch.int64), dist.ReduceOp.MAX)

    def _reduced(self, numbers: Tensor, operation: dist.ReduceOp.RedOpType) -> list[Any]:
        dist.all_reduce(numbers, operation)
        return numbers.tolist()

    def wait(self) -> None:
        """By a reduction, as gloo's and NCCL's barrier is one too."""
        self.most(0)

    def share_statistics(self, *nets: nn.Module) -> None:
        """By a broadcast of each buffer."""
        for buffer in {id(b): b for net in nets for b in net.buffers()}.values():
            dist.broadcast(buffer, 0)

    def gather(self, results: list[Tensor]) -> list[Tensor]:
        """By an all-gather of what was dealt in turn."""
        everyones = self._from_everyone(results)
        return [everyones[i % self.size][i // self.size] for i in range(sum(map(len, everyones)))]

    def agree(self, facts: Mapping[str, Any]) -> None:
        """By an all-gather; the error names what differs from rank 0, at which ranks."""
        everyones = self._from_everyone(dict(facts))
        for rank, theirs in enumerate(everyones):
            differing = differences(everyones[0], theirs)
            if differing:
                what = f"rank {rank} differs from rank 0: {', '.join(d[:200] for d in differing[:5])}"
                raise DistributedError("R6", what, "start the same command, code and data everywhere")

    def _from_everyone(self, value: Any) -> list[Any]:
        everyones = [None] * self.size
        dist.all_gather_object(everyones, value)
        return everyones
