"""The command line: parse, call, print.  Each command imports what it needs when it runs, so that help is quick."""

import argparse
import os
import sys

from .. import __version__
from . import benching, checking, evolving, experiments, networks, predicting, recipes, sharding, training, using
from .parts import run


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit code, as listed in `convatlas.errors`.

    Without `argv` it is this process's own command, which may set what holds for the whole process.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve their neighbours on a shared machine
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what torch warns of there is ours to know
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - it is needed to the end
    parser = build_parser()
    args = parser.parse_args(argv)
    args.owns_process = argv is None
    if args.run is None:
        parser.print_help()
        return 0
    return run(args)


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
    for group in (networks, recipes, checking, training, sharding, predicting, using, benching, experiments, evolving):
        group.add_commands(commands)
    return parser
