"""`evolution`."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from .parts import Commands, command, print_json, print_table, seconds


def add_commands(commands: Commands) -> None:
    """Declare it."""
    what = "the line from AlexNet to MobileNet v2: what each network brought, costs and reached"
    parser = command(commands, evolution, what, json=True)
    parser.add_argument("--out", type=Path, metavar="FILE", help="draw it, .svg or .png")
    here = "time each network on one image and one thread of this machine, turn by turn: about two minutes"
    parser.add_argument("--measure", action="store_true", help=here)
    parser.add_argument("--seconds", type=seconds, default=60.0, help="of --measure, nine turns at least (default: 60)")
    results = "accuracies on CIFAR-10: the repository's results/cifar10.json, or another of its kind"
    parser.add_argument("--results", type=Path, metavar="FILE", help=results)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the rows as JSON")


def evolution(args: argparse.Namespace) -> None:
    """Put the rows together, measured if that is asked for; print, write and draw them."""
    from ..errors import ConfigError, library
    from ..files import write_text
    from ..lab.evolution import latencies, rows, steps, table

    if args.out:
        if args.out.suffix not in (".svg", ".png"):
            raise ConfigError("L2", f"--out {args.out}", "give a name that ends in .svg or .png")
        library("matplotlib", "train")
    results = read(args.results) if args.results else []
    measured = latencies([step.network for step in steps()], args.seconds, note) if args.measure else {}
    note("")
    found = rows(results, measured)
    if args.record:
        write_text(args.record, json.dumps(record(args, found), indent=1, ensure_ascii=False) + "\n")
    if args.out:
        draw(args.out)
    if args.json:
        return print_json(found)
    columns = table(found)
    print_table(columns, zip(*columns.values(), strict=True))
    print("error: published, of one model, top-1 / top-5 on ImageNet's validation images where nothing else is said")
    print("parameters and MACs: exact, of the networks as convatlas builds them, for one image of the input size")
    for epochs, seeds in sorted({(c["epochs"], len(c["seeds"])) for row in found if (c := row["cifar10"])}):
        print(f"CIFAR-10: accuracy of the form named, {epochs} epochs, seeds: {seeds}")
    missing = [] if args.measure else ["--measure: times on this machine"]
    missing += [] if args.results else ["--results FILE: accuracies on CIFAR-10"]
    return print("\n".join(missing)) if missing else None


def record(args: argparse.Namespace, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows, how they came about, and where."""
    from ..train.run import environment

    flags = [*(["--measure", "--seconds", f"{args.seconds:g}"] if args.measure else []),
             *(["--results", str(args.results)] if args.results else [])]  # fmt: skip
    how = (
        {"batch": 1, "threads": 1, "clock": "processor time", "network": "as built, in eval mode"}
        if args.measure
        else {}
    )
    return {"command": shlex.join(["convatlas", "evolution", *flags, "--record", str(args.record)]), "latency": how,
            "environment": environment(), "rows": found}  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a results/cifar10.json.  Raises ConfigError L7 if that is no such file."""
    from ..data.decode import shown
    from ..errors import ConfigError
    from ..lab.evolution import CIFAR

    try:
        found = json.loads(path.read_text("utf-8"))
        if all(key in row for row in found for key in CIFAR):
            return found
    except (OSError, ValueError, TypeError):
        pass
    raise ConfigError(
        "L7", f"{shown(path)} is no record of results on CIFAR-10", "give the one in results/cifar10.json"
    )


def draw(out: Path) -> None:
    """The picture, as .svg or .png."""
    from ..files import write_bytes
    from ..lab.evolution.picture import SIZE, paint
    from ..report import figures

    png = out.suffix == ".png"
    write_bytes(out, figures.png(paint, *SIZE) if png else figures.render("evolution", paint, *SIZE).encode())


def note(name: str) -> None:
    """Show on standard error who is on, if that is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{name}", end="", file=sys.stderr, flush=True)
