"""Several experiments at a time, each in a process of its own, for none of them uses more than one processor well."""

import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from ..errors import ResourceError
from ..train.job import end_with_launcher

T = TypeVar("T")


def side_by_side(run: Callable[[str], T], names: Iterable[str], jobs: int, threads: int) -> list[T]:
    """What `run`, which can be pickled, gives for each name, in their order; `jobs` at a time on so many threads each.

    The first exception ends it when the runs under way are over.  Raises ResourceError T4 if a process is killed.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=begin, initargs=(threads, warnings.showwarning))
    try:
        futures = [pool.submit(run, name) for name in names]
        for future in as_completed(futures):
            future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        what = "a process of the lab was killed (out of memory?)"
        raise ResourceError("T4", what, "a larger --threads runs fewer at a time; the same command goes on") from None
    finally:
        pool.shutdown(cancel_futures=True)


def begin(threads: int, showwarning: Any) -> None:
    """Set up a process of the pool: it ends with its parent, and at Ctrl-C, for trials that were stopped go on."""
    end_with_launcher()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.showwarning = showwarning
    torch.set_num_threads(threads)
