"""`predict`: one answer for each image, printed or in a file."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ResourceError, StoppedError, explain
from .parts import Commands, at_least, command

ENGINES = (
    "torch or compile for a bundle, onnxruntime or openvino for .onnx (default: the first); pt2 for .pt2, whose code "
    "runs then; auto: the fastest here; ray: by Ray, on all processors of this machine or of the cluster of "
    "$RAY_ADDRESS, with --out"
)


def add_commands(commands: Commands) -> None:
    """Declare it."""
    parser = command(commands, predict, "say what is on pictures, one answer for each", json=True)
    parser.add_argument("model", help="a model.safetensors, the folder of a run, or an exported .onnx, .xml or .pt2")
    images = "images, folders of them, WebDataset shards, Parquet files, or s3://... of images"
    parser.add_argument("images", nargs="+", help=images)
    out = "write .csv, .jsonl or .parquet instead of printing; stopped and started again, it goes on"
    parser.add_argument("--out", metavar="FILE", help=out)
    parser.add_argument("--top", type=at_least(1), default=3, help="classes to tell of an image (default: 3)")
    parser.add_argument("--probabilities", action="store_true", help="tell the probability of every class too")
    parser.add_argument("--features", metavar="PART", help="tell the mean output of a part too, such as stage4")
    parser.add_argument("--csv-safe", action="store_true", help="let no cell be a formula: ' before =, +, - and @")
    parser.add_argument("--engine", metavar="NAME", help=ENGINES)
    parser.add_argument("--batch", type=at_least(1), default=32, help="images at a time (default: 32)")
    workers = "threads that decode, or actors of Ray (default: as many as processors)"
    parser.add_argument("--workers", type=at_least(0), metavar="N", help=workers)
    parser.add_argument("--allow-failures", action="store_true", help="exit with 0 though an image was unreadable")


def predict(args: argparse.Namespace) -> int:
    """Exit code 3 if an image could not be read."""
    if not args.out and args.engine == "ray":
        raise ConfigError("L2", "--engine ray has nowhere to put what it makes", "give --out")
    if not args.out and not args.json and (args.probabilities or args.features):
        raise ConfigError("L2", "--probabilities and --features are not for reading", "give --out or --json")
    failed = write(args) if args.out else show(args)
    return 3 if failed and not args.allow_failures else 0


def opened(args: argparse.Namespace) -> Any:
    """The model, by the engine that is asked for."""
    from ..deploy import auto
    from ..deploy.model import of_engine, open_model

    if args.engine == "auto" and not args.features:
        choice = auto(args.model, batch=args.batch)
        print(choice.why, file=sys.stderr)
        return of_engine(choice.engine)
    return open_model(args.model, None if args.engine in ("auto", "ray") else args.engine, args.features)


def show(args: argparse.Namespace) -> bool:
    """Print a line for each image as it comes; whether one could not be read."""
    from ..deploy.inputs import find_inputs
    from ..deploy.predict import predict_inputs

    model, inputs, failed = opened(args), find_inputs(args.images), False
    settings = {"top": args.top, "probabilities": args.probabilities, "batch": args.batch, "workers": args.workers}
    with closing(predict_inputs(model, inputs, range(len(inputs)), **settings)) as rows:
        for row in rows:
            failed |= row.error is not None
            likely = ", ".join(f"{name} {p:.1%}" for name, p in row.top)
            say(json.dumps(row.to_dict()) if args.json else f"{row.path}: {row.error or likely}")
    return failed


def write(args: argparse.Namespace) -> bool:
    """Write a row for each image; whether one could not be read."""
    from ..deploy.bulk import Partial, about, make_here, write_rows
    from ..deploy.inputs import find_inputs
    from ..deploy.model import open_model
    from ..deploy.on_ray import make_on_ray
    from ..deploy.rows import Table, form_of
    from ..train.signals import stop_on_signal

    form = form_of(args.out)
    model, inputs = opened(args), find_inputs(args.images)
    top = min(args.top, len(model.classes))
    table = Table(form, model.classes, top, args.probabilities, model.features, args.csv_safe)
    results = Partial(Path(args.out), table, len(inputs))
    settings = {"inputs": inputs, "table": table, "batch": args.batch, "workers": args.workers}
    make = partial(make_here, model=model, **settings)
    if args.engine == "ray":
        make = partial(make_on_ray, open_model=partial(open_model, args.model, None, args.features), **settings)
    failed = 0
    with (
        held(results),
        stop_on_signal() as stop,
        bar(len(inputs), shown=not args.json) as update,
        closing(write_rows(results, make)) as progress,
    ):
        results.claim(about(args.model, inputs, table, args.features))
        for done, errors in progress:
            failed = errors
            update(done)
            if stop.signal is not None and done < len(inputs):
                what = f"stopped by signal {stop.signal}; {done:,} of {len(inputs):,} rows are in {results.folder}"
                raise StoppedError(stop.signal, what, "the same command goes on")
    summary = f"{args.out}: {len(inputs):,} rows, {failed:,} of them errors"
    say(json.dumps({"out": args.out, "rows": len(inputs), "errors": failed}) if args.json else summary)
    return failed > 0


@contextmanager
def held(results: Any) -> Iterator[None]:
    """Let no other process write the same results."""
    from ..train import lock

    try:
        lock.acquire(results.lock)
    except OSError as error:
        what = f"cannot write {results.folder}: {explain(error)}"
        raise ResourceError("C3", what, "give another --out") from error
    try:
        yield
    finally:
        lock.release(results.lock)
        with suppress(OSError):  # what is kept for the next time
            results.folder.rmdir()


@contextmanager
def bar(total: int, shown: bool) -> Iterator[Any]:
    """How many rows there are, on standard error if that is a terminal; it is told how many."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from ..train.progress import Rate

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task, before = progress.add_task("", total=total, images=0), None

        def update(done: int) -> None:
            nonlocal before
            before = done if before is None else before  # what was there has no rate
            progress.update(task, completed=done, images=done - before)

        yield update


def say(line: str) -> None:
    """Print a line.  Raises ResourceError C2 where standard output cannot take it."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again when it ends
        what = f"cannot write to standard output: {explain(error)}"
        raise ResourceError("C2", what, "free space, or print elsewhere") from error
