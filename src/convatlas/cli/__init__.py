"""The command line: parse, call, print.  Each command imports what it needs when it runs, so that help is quick."""

import argparse
import os
import sys
import warnings

from .. import __version__
from ..errors import ConvatlasError
from . import networks, recipes, training, using


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit code, as listed in `convatlas.errors`."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve their neighbours on a shared machine
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - it is needed to the end
    warnings.showwarning = show_warning
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help()
        return 0
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


def show_warning(message: Warning | str, *where: object, **rest: object) -> None:
    """A warning as one line, without the line of code that it comes from."""
    print(f"warning: {message}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="convatlas",
        description="An atlas of the classic convolutional networks: built from their papers, checked, trained, used.",
    )
    parser.add_argument("--version", action="version", version=f"convatlas {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for group in (networks, recipes, training, using):
        group.add_commands(commands)
    return parser
