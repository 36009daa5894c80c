"""Processes that read batches ahead of training, and what happens when one of them dies (T4) or hangs (T5).

torch's DataLoader would do but for this: it raises the death of a worker from a signal handler, in the middle of
whatever step is being made; it does not know which image the worker was at; it lets a hung one be; and it passes
batches through /dev/shm, which containers keep small (T6).  Here pixels go through anonymous shared memory, which no
file system limits, and a pipe to each worker says when: whoever dies closes its end.
"""

import itertools
import math
import mmap
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch
from torch import Tensor

from ..errors import ResourceError
from .order import Order, Place
from .watchdog import REMEDY, Mark, Watchdog

AHEAD = 2  # batches that each worker reads before they are wanted

Fill = Callable[[Tensor, Sequence[Place], Mark], object]
"""Reads the images at those places into a tensor (N, 3, size, size), noting each one in the mark."""


class LostWorkerError(ResourceError):
    """A worker died or hung."""


def read_ahead(
    fill: Fill, order: Order, size: int, workers: int, timeout: float, name_of: Callable[[int], str]
) -> Generator[Tensor, None, None]:
    """The batches of `order`, uint8 (N, 3, size, size), read by `workers` processes.

    What a step reads depends on the step alone, so the first worker that is lost costs a warning, and new ones go on at
    that step; for the second one LostWorkerError is raised.  An image that takes `timeout` seconds makes a worker lost.
    Raises what `fill` raises.
    """
    step, replaced = order.start, False
    while step < order.stop:
        try:
            with closing(Pool(fill, replace(order, start=step), size, workers, timeout, name_of)) as pool:
                for pixels in pool:
                    yield pixels
                    step += 1
        except LostWorkerError as error:
            if replaced:
                raise
            replaced = True
            warnings.warn(f"{error.what}; new ones go on at step {step}", stacklevel=2)


@dataclass(frozen=True)
class Worker:
    """A process, our end of its pipe, the image it is at, and room for the batches that it has read ahead."""

    number: int
    process: BaseProcess
    pipe: Connection
    mark: Mark
    room: Tensor  # uint8 (AHEAD, batch, 3, size, size), channels last


class Pool:
    """The batches of `order`; worker i of n reads every n-th of them, from the i-th on."""

    def __init__(
        self, fill: Fill, order: Order, size: int, workers: int, timeout: float, name_of: Callable[[int], str]
    ):
        self.order, self.timeout, self.name_of = order, timeout, name_of
        self.workers: list[Worker] = []
        for number in range(min(workers, len(order))):
            room, mark = shared(AHEAD, -(-order.batch // order.size), size), Mark()
            pipe, its_end = multiprocessing.Pipe()
            ours = [worker.pipe for worker in self.workers] + [pipe]
            batches = itertools.islice(order, number, None, workers)
            process = multiprocessing.get_context("fork").Process(
                target=work, args=(fill, batches, room, mark, its_end, ours), daemon=True
            )
            process.start()
            its_end.close()  # so that the worker alone holds it
            for _ in range(AHEAD):
                pipe.send(None)
            self.workers.append(Worker(number, process, pipe, mark, room))

    def __iter__(self) -> Iterator[Tensor]:
        for number, places in enumerate(self.order):
            turn, which = divmod(number, len(self.workers))
            worker = self.workers[which]
            error = self._hear(worker)
            if error is not None:
                raise error
            read = worker.room[turn % AHEAD, : len(places)]
            pixels = read.pin_memory() if torch.cuda.is_available() else read.clone()
            with suppress(ConnectionError):  # of a worker that has done its part
                worker.pipe.send(None)
            yield pixels

    def _hear(self, worker: Worker) -> Exception | None:
        """Wait for a worker's next batch; what went wrong with it, if anything did."""
        dog = Watchdog(worker.mark, self.timeout)
        while not worker.pipe.poll(dog.pause):
            if dog.finds_it_hung():
                what = f"data worker {worker.number} has been{self._doing(worker)} for more than {self.timeout:g} s"
                raise LostWorkerError("T5", what, REMEDY)
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):  # OSError: in the middle of a word
            worker.process.join(5)
            code = worker.process.exitcode or 0
            end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            memory = " (out of memory?)" if code in (-signal.SIGKILL, -signal.SIGBUS) else ""
            what = f"data worker {worker.number} {end} while{self._doing(worker)}{memory}"
            remedy = "fewer --workers or smaller --max-pixels; the same command goes on from the last checkpoint"
            raise LostWorkerError("T4", what, remedy) from None

    def _doing(self, worker: Worker) -> str:
        index = worker.mark.index
        return " idle" if index is None else f" reading {self.name_of(index)}"

    def close(self) -> None:
        """End the workers, whatever they are at."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join(5)
            worker.pipe.close()


def work(
    fill: Fill, batches: Iterable[list[Place]], room: Tensor, mark: Mark, pipe: Connection, others: list[Connection]
) -> None:
    """What a worker does: wait for room, read a batch, say so, until there are no more or its parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the parent must finish its step first
        signal.signal(number, signal.SIG_IGN)
    for other in others:  # the parent's ends, which fork has copied: open here, they would outlive it
        other.close()
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):
        for places, batch in zip(batches, itertools.cycle(room)):
            pipe.recv()
            try:
                fill(batch[: len(places)], places, mark)
            except Exception as error:
                pipe.send(error)
            else:
                pipe.send(None)


def shared(batches: int, images: int, size: int) -> Tensor:
    """Zeros, uint8 (batches, images, 3, size, size), channels last, in memory that processes forked later share."""
    shape = (batches, images, size, size, 3)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=torch.uint8).view(shape).movedim(-1, -3)
