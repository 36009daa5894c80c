"""`lab`."""

import argparse
import shlex
import sys
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
    parser.add_argument("--threads", type=at_least(1), help="of one operation on the CPU (default: one a core)")
    add_reading(parser)


def lab(args: argparse.Namespace) -> None:
    """The table of experiments."""
    from ..lab import experiments

    rows = [(e.number, e.name, e.claim) for e in experiments().values()]
    print_table(("#", "experiment", "claim"), rows)


def run_experiments(args: argparse.Namespace) -> None:
    """Run each, write what came out, and print the verdicts."""
    from rich.console import Console

    from ..data.open import open_data
    from ..errors import ConfigError
    from ..lab import Lab, experiment, experiments
    from ..lab.run import run, write

    chosen = list(experiments().values()) if args.all else [experiment(name) for name in args.names]
    if not chosen:
        raise ConfigError("L2", "no experiment is named", "name some of `convatlas lab`, or give --all")
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    splits = open_data(args.data, **reading(args))
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 200)
    rows = []
    for each in chosen:
        with Progress(console, each.title) as progress:
            folder = args.out / f"trials-{args.budget}" / each.title
            place = Lab(splits, folder, range(args.seeds), args.budget, progress)
            flags = f"--budget {args.budget} --seeds {args.seeds} --data {shlex.quote(splits.name)}"
            record = run(each, place, f"convatlas lab run {each.name} {flags}")
        page = write(each, record, args.out)
        console.print(f"{each.title}: {record['verdict']}, {record['seconds']:.0f} s, {page}")
        rows += [(each.number, each.name, record["verdict"], finding(f)) for f in record["findings"]] or [
            (each.number, each.name, record["verdict"], "exact only")
        ]
    print_table(("#", "experiment", "verdict", "finding: mean (95 % interval)"), rows)


def finding(f: dict[str, Any]) -> str:
    """One line."""
    interval = "one seed" if f["low"] is None else f"{f['low']:.4g} to {f['high']:.4g}"
    return f"{f['what']}: {f['mean']:.4g} ({interval})"


class Progress:
    """A context that shows the steps of the trial that runs, on standard error, if that is a terminal."""

    def __init__(self, console: Any, title: str):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn(title), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.task = self.bar.add_task("", total=None)

    def __enter__(self) -> "Progress":
        if self.bar.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, arm: str, seed: int, done: int, total: int) -> None:
        """So many steps of a trial are done."""
        self.bar.update(self.task, description=f"{arm}, seed {seed}", completed=done, total=total)
