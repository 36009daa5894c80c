"""What the commands share: declaring one, running it, printing a table, printing JSON."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ConvatlasError

Commands = Any  # argparse does not name what add_subparsers returns


def command(
    commands: Commands, run: Callable[[argparse.Namespace], int | None], help: str, *, json: bool = False
) -> argparse.ArgumentParser:
    """Declare the command that is called like the function `run`, with `--json` if it can print that."""
    name = run.__name__.removesuffix("_").replace("_", "-")
    parser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.set_defaults(run=run)
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what was parsed; the exit code, as listed in `convatlas.errors`."""
    warnings.showwarning = show_warning
    sys.unraisablehook = end_if_interrupted
    try:
        return args.run(args) or 0
    except ConvatlasError as error:
        if args.debug:
            raise
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `convatlas list | head -1` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def end_if_interrupted(raised: Any) -> None:
    """Ctrl-C that came while an object was cleared up, where Python lets no exception out: the command ends even so."""
    if raised.exc_type is KeyboardInterrupt:
        os._exit(130)  # the artefact writer leaves no torn file, whenever this comes
    sys.__unraisablehook__(raised)


def show_warning(message: Warning | str, *where: object, **rest: object) -> None:
    """A warning as one line, without the line of code that it comes from."""
    print(f"warning: {message}", file=sys.stderr)


READING = ("max_pixels", "follow_outside", "allow_empty_class", "download")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """What is allowed of data that is read."""
    parser.add_argument("--max-pixels", type=int, default=50_000_000, help="of an image (default: 50,000,000)")
    parser.add_argument("--follow-outside", action="store_true", help="follow links that lead out of the folder")
    parser.add_argument("--allow-empty-class", action="store_true", help="keep class folders without images")
    parser.add_argument("--download", action="store_true", help="fetch a named data set if it is not there")


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `add_reading`, for `open_data` and `read_source`."""
    return {name: getattr(args, name) for name in READING}


def seconds(text: str) -> float:
    """A flag's value above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time in seconds")
    return value


def at_least(least: int) -> Callable[[str], int]:
    """The type of a flag whose value is a whole number from `least`."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number


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
