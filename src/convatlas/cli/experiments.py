"""`lab`."""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from .parts import Commands, add_reading, at_least, command, print_table, reading


def add_commands(commands: Commands) -> None:
    """Declare it."""
    parser = command(commands, lab, "list the experiments on the papers' claims, or run some")
    actions = parser.add_subparsers(title="actions", metavar="run")
    what = "run an experiment: JSON, a picture and a page"
    parser = actions.add_parser("run", help=what, description=f"{what[0].upper()}{what[1:]}.")
    parser.set_defaults(run=run_experiments)
    which = "name or number of an experiment, or a Python file with an EXPERIMENT, which is run"
    parser.add_argument("names", nargs="*", metavar="NAME", help=which)
    parser.add_argument("--all", action="store_true", help="run them all")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="trainings of each network (default: 3)")
    budget = "about 80 steps a training, or what the recipe for the images says (default: short)"
    parser.add_argument("--budget", choices=("short", "full"), default="short", help=budget)
    images = "what `convatlas train` takes (default: digits, which are embedded)"
    parser.add_argument("--data", default="digits", help=images)
    parser.add_argument("--out", type=Path, default=Path("runs/lab"), help="the folder to write to (default: runs/lab)")
    threads = "of an experiment; several experiments share the cores out (default: all of them, or one each)"
    parser.add_argument("--threads", type=at_least(1), help=threads)
    add_reading(parser)


def lab(args: argparse.Namespace) -> None:
    """The table of experiments."""
    from ..lab import experiments

    rows = [(e.number, e.name, e.claim) for e in experiments().values()]
    print_table(("#", "experiment", "claim"), rows)


def run_experiments(args: argparse.Namespace) -> None:
    """Run each, several at a time if there are processors for them, and print the verdicts."""
    from ..errors import ConfigError
    from ..lab import experiment, experiments
    from ..lab.side_by_side import side_by_side
    from ..machine import processors

    names = list(experiments()) if args.all else args.names
    if not names:
        raise ConfigError("L2", "no experiment is named", "name some of `convatlas lab`, or give --all")
    for name in names:
        experiment(name)  # a wrong name ends it before there is work to lose
    jobs = max(1, min(len(names), processors() // (args.threads or 1)))
    if jobs == 1:
        if args.threads:
            import torch

            torch.set_num_threads(args.threads)
        records = [run_one(args, name, bar=True) for name in names]
    else:
        records = side_by_side(partial(run_one, args), names, jobs, args.threads or processors() // jobs)
    rows = []
    for record in records:
        rows += [(record["number"], record["name"], record["verdict"], finding(f)) for f in record["findings"]] or [
            (record["number"], record["name"], record["verdict"], "exact only")
        ]
    print_table(("#", "experiment", "verdict", "finding: mean (95 % interval)"), rows)


def run_one(args: argparse.Namespace, name: str, bar: bool = False) -> dict[str, Any]:
    """Run an experiment, write what came out, and say so; its record."""
    from rich.console import Console

    from ..data.open import open_data
    from ..lab import Lab, experiment
    from ..lab.run import run, write

    chosen, splits = experiment(name), open_data(args.data, **reading(args))
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 200)
    with Progress(console, chosen.title, shown=bar) as progress:
        folder = args.out / f"trials-{args.budget}" / chosen.title
        place = Lab(splits, folder, range(args.seeds), args.budget, progress)
        flags = f"--budget {args.budget} --seeds {args.seeds} --data {shlex.quote(splits.name)}"
        record = run(chosen, place, f"convatlas lab run {chosen.name} {flags}")
    page = write(chosen, record, args.out)
    console.print(f"{chosen.title}: {record['verdict']}, {record['seconds']:.0f} s, {page}")
    return record


def finding(f: dict[str, Any]) -> str:
    """One line."""
    interval = "one seed" if f["low"] is None else f"{f['low']:.4g} to {f['high']:.4g}"
    return f"{f['what']}: {f['mean']:.4g} ({interval})"


class Progress:
    """A context that shows the steps of the trial that runs, on standard error, if it is to and that is a terminal."""

    def __init__(self, console: Any, title: str, shown: bool):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn(title), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.task, self.shown = self.bar.add_task("", total=None), shown and console.is_terminal

    def __enter__(self) -> "Progress":
        if self.shown:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.shown:
            self.bar.stop()

    def __call__(self, arm: str, seed: int, done: int, total: int) -> None:
        """So many steps of a trial are done."""
        self.bar.update(self.task, description=f"{arm}, seed {seed}", completed=done, total=total)
