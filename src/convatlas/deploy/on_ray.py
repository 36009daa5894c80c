"""The pieces of bulk prediction made by many processes, on this machine or a cluster, with Ray Data.

An actor makes whole pieces; who started it writes them.  Ray starts a lost actor anew and gives its pieces to others,
and a piece is named by its inputs, so that nothing is lost or doubled.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from ..errors import DistributedError, library
from .bulk import Made, Span, encoded
from .inputs import Inputs
from .model import Model
from .predict import predict_inputs
from .rows import Table

PIECE = 256  # inputs, about


def make_on_ray(
    spans: Iterable[Span],
    *,
    open_model: Callable[[], Model],
    inputs: Inputs,
    table: Table,
    batch: int,
    workers: int | None,
) -> Iterator[Made]:
    """The pieces of these spans as they come, made by `workers` actors on one processor each (default: all there are).

    Every actor opens the model and the inputs itself, so each machine must find them under the same names.  The
    cluster is that of `RAY_ADDRESS`, or this machine.  Raises ResourceError without Ray, and DistributedError R1 if it
    gives up, whatever the reason.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
    ray, data = library("ray", "ray"), library("ray.data", "ray")
    with keeping_sigterm():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        places = [{"start": part.start, "stop": part.stop} for part in cut(spans, max(1, PIECE // batch) * batch)]
        actors = min(workers or int(ray.cluster_resources()["CPU"]), len(places))
        made = data.from_items(places, override_num_blocks=len(places)).map_batches(
            Maker,
            batch_size=1,
            fn_constructor_args=(open_model, inputs, table, batch),
            compute=data.ActorPoolStrategy(size=actors),
            num_cpus=1,
        )
        for row in made.iter_rows():
            yield Span(row["start"], row["stop"]), row["failed"], row["content"]
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[-1]
        raise DistributedError("R1", f"Ray gave up: {why}", "the same command goes on") from error
    finally:
        ray.shutdown()


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Ray has SIGTERM end the process at once; but whoever called may want to stop in order."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def cut(spans: Iterable[Span], size: int) -> Iterator[Span]:
    """The spans in parts of at most `size`."""
    for span in spans:
        for start in range(span.start, span.stop, size):
            yield Span(start, min(start + size, span.stop))


class Maker:
    """An actor: makes a piece of the rows of a span."""

    def __init__(self, open_model: Callable[[], Model], inputs: Inputs, table: Table, batch: int):
        self.model, self.inputs, self.table, self.batch = open_model(), inputs, table, batch

    def __call__(self, places: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """A column for each of what a piece is."""
        span = Span(int(places["start"][0]), int(places["stop"][0]))
        wanted = {"top": self.table.top, "probabilities": self.table.probabilities}
        with closing(predict_inputs(self.model, self.inputs, span, **wanted, batch=self.batch, workers=0)) as rows:
            _, failed, content = encoded(self.table, span.start, list(rows))
        return {"start": [span.start], "stop": [span.stop], "failed": [failed], "content": [content]}
