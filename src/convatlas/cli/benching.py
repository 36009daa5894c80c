"""`bench`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .parts import Commands, at_least, command, print_json, print_table, seconds

AGAINST = ("torchvision", "timm", "pytorchcv", "compile", "onnxruntime", "openvino")


def add_commands(commands: Commands) -> None:
    """Declare it."""
    parser = command(commands, bench, "time a network beside others' form of it on the same weights", json=True)
    parser.add_argument("model", help="a network of `convatlas list` (random weights), a model.safetensors, or a run")
    who = f"with commas: {', '.join(AGAINST)}; the last three run a library's network (default: all but compile)"
    parser.add_argument("--against", metavar="WHOM", type=names, default=AGAINST[:3] + AGAINST[4:], help=who)
    parser.add_argument("--batch", type=at_least(1), nargs="+", default=[1, 8], help="images a call (default: 1 8)")
    parser.add_argument("--threads", type=at_least(1), default=1, help="(default: 1, the steadiest)")
    parser.add_argument("--seconds", type=seconds, default=1.0, help="for each contestant (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them, .svg or .png")


def names(text: str) -> tuple[str, ...]:
    """The value of --against."""
    chosen = tuple(text.split(","))
    if unknown := set(chosen) - set(AGAINST):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose of {', '.join(AGAINST)}")
    return chosen


def bench(args: argparse.Namespace) -> None:
    """Build all, see that they agree, time them turn by turn, and print, write and draw what came out."""
    import torch

    from ..deploy.bench import compare, contestants, fresh, limit
    from ..errors import ConfigError
    from ..files import write_text
    from ..train.run import environment
    from ..weights import Bundle
    from ..weights.bundle import model_file
    from ..zoo import spec

    if args.plot and args.plot.suffix not in (".svg", ".png"):
        raise ConfigError("L2", f"--plot {args.plot}", "give a name that ends in .svg or .png")
    torch.set_num_threads(args.threads)
    known = Path(args.model).exists()
    bundle = Bundle.load(model_file(args.model)) if known else fresh(spec(args.model))
    found = contestants(bundle, args.against, args.threads, note=lambda line: print(line, file=sys.stderr))
    bound = limit.measure()
    rows = [compare(bundle, found, batch, args.seconds, bound) for batch in args.batch]
    machine = {"gmacs_product": bound.product / 1e9, "gmacs_convolution": bound.convolution / 1e9,
               "gbytes_copy": bound.bandwidth / 1e9}  # fmt: skip
    record = {"machine": {k: round(v, 1) for k, v in machine.items()}, "environment": environment(), "rows": rows}
    if args.out:
        write_text(args.out, json.dumps(record, indent=1) + "\n")
    if args.plot:
        draw(rows, args.plot)
    if args.json:
        print_json(record)
    else:
        show(rows, record["machine"])


def show(rows: list[dict[str, Any]], machine: dict[str, float]) -> None:
    """A table for each batch."""
    for row in rows:
        title = (
            f"{row['network']}, {row['batch']} images a call, {row['threads']} threads: "
            f"at least {row['limit_ms']:.2f} ms here, ours {row['over_limit']:.2f} times that"
        )
        best = f"ours {row['engine']}"
        cells = []
        for name, ms in sorted(row["ms"].items(), key=lambda item: item[1]):
            low, high = row["spread"].get(name, ("", ""))
            ratio = f"{row['ratio'][name]:.2f} ({low:.2f} to {high:.2f})" if name in row["ratio"] else ""
            cells.append((f"{name}{' *' if name == best else ''}", f"{ms:.2f}", ratio))
        print_table(("who", "ms #", "times our fastest * (quartiles) #"), cells, title)
    rates = ", ".join(f"{name.replace('_', ' ')} {value:g}/s" for name, value in machine.items())
    print(f"this machine: {rates}")


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Milliseconds an image, a panel for each batch, as .svg or .png."""
    from ..files import write_bytes
    from ..report import figures

    def paint(figure: Any) -> None:
        for axes, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
            figures.bench_chart(axes, row)

    size = (4.5 * len(rows), 0.9 + 0.28 * max(len(row["ms"]) for row in rows))
    content = figures.png(paint, *size) if out.suffix == ".png" else figures.render("bench", paint, *size).encode()
    write_bytes(out, content)
