"""What the commands share: declaring one, printing a table, printing JSON."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

Commands = Any  # argparse does not name what add_subparsers returns


def command(
    commands: Commands, run: Callable[[argparse.Namespace], int | None], help: str, *, json: bool = False
) -> argparse.ArgumentParser:
    """Declare the command that is called like the function `run`, with `--json` if it can print that."""
    name = run.__name__.removesuffix("_")
    parser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.set_defaults(run=run)
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, indent=1))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str | None = None) -> None:
    """A table; columns whose name ends in ` #` are numbers and stand right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in columns:
        table.add_column(name.removesuffix(" #"), justify="right" if name.endswith(" #") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    wide = None if sys.stdout.isatty() else 200  # a pipe has no width
    Console(width=wide, highlight=False, markup=False).print(table)


def count(n: float) -> str:
    """`25,557,032`, or a fraction as it is."""
    return f"{n:,.0f}" if n == int(n) else f"{n:g}"


class Download:
    """A context that shows on standard error how much of a file has come, if that is a terminal."""

    def __enter__(self) -> Callable[[int, int | None], None]:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        task = self.progress.add_task("", total=None)

        def show(done: int, total: int | None) -> None:
            self.progress.start()
            self.progress.update(task, completed=done, total=total)

        return show

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
