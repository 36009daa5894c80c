"""`import` and `export`: networks with weights."""

import argparse
from pathlib import Path

from .parts import Commands, at_least, command

LIBRARIES = "torchvision, timm, keras, pytorchcv or akamaster"
PROGRAMS = ("onnx", "openvino", "pt2")
SOURCES = (
    "a file (.pth, .pt, .th, .bin, .safetensors, .h5, .keras), https://..., or a name: torchvision:NETWORK[.WEIGHTS], "
    "timm:NETWORK.TAG, hf://OWNER/NAME/FILE"
)


def add_commands(commands: Commands) -> None:
    """Declare them."""
    parser = command(commands, import_, "make a bundle of weights by others")
    parser.add_argument("source", help=SOURCES)
    parser.add_argument("--network", help="the network they are for, see `convatlas list` (default: the one that fits)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the bundle to write, *.safetensors")
    parser.add_argument("--from", dest="library", help=f"{LIBRARIES} (default: what fits)")
    parser.add_argument("--sha256", help="of the file, or how it begins")
    parser.add_argument("--classes", metavar="FILE", help="their names, one a line (default: the source's, or numbers)")
    parser.add_argument("--size", type=int, help="side of the input in pixels")
    parser.add_argument("--resize", type=int, help="shorter side before the centre crop")
    parser.add_argument("--mean", type=float, nargs="+", help="of each channel, 0..1; one value for a grey network")
    parser.add_argument("--std", type=float, nargs="+", help="of each channel, 0..1")
    parser.add_argument("--licence", help="of the weights (default: the source's, or not stated)")
    parser = command(commands, export, "write a network for another runtime, or its weights for another library")
    parser.add_argument("model", help="a model.safetensors, or the folder of a run")
    to = f"a runtime: {', '.join(PROGRAMS)}; or a library: {LIBRARIES}, or library:network"
    parser.add_argument("--to", required=True, metavar="WHAT", help=to)
    parser.add_argument("--int8", action="store_true", help="onnx: compute with 8-bit integers, if accuracy stays")
    parser.add_argument("--max-drop", type=float, metavar="POINTS",
                        help="accuracy that int8 may lose on the validation images (default: 0.5)")  # fmt: skip
    parser.add_argument("--data", help="images for int8, where the model is not in the folder of its run")
    size = "runtimes: side of the input in pixels, or `dynamic`: any height and width (default: the bundle's)"
    parser.add_argument("--size", type=pixels, metavar="PIXELS", help=size)
    out = "runtimes: .onnx, .xml, .pt2; libraries: .safetensors or .pth, for keras .h5"
    parser.add_argument("--out", required=True, metavar="FILE", help=out)


def pixels(text: str) -> int | str:
    """The value of --size."""
    return text if text == "dynamic" else at_least(1)(text)


def import_(args: argparse.Namespace) -> None:
    """Fetch, read, convert, check, write."""
    from dataclasses import replace

    from ..data.decode import read_file
    from ..weights import import_weights
    from .parts import Download

    classes = tuple(read_file(Path(args.classes)).decode().splitlines()) if args.classes else None
    with Download() as progress:
        bundle = import_weights(
            args.source,
            args.network,
            library=args.library,
            classes=classes,
            licence=args.licence,
            sha256=args.sha256,
            progress=progress,
        )
    given = {name: getattr(args, name) for name in ("size", "resize", "mean", "std") if getattr(args, name)}
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    bundle = replace(bundle, preprocess=replace(bundle.preprocess, **changes))
    path = bundle.save(args.out)
    print(f"{path}: {bundle.spec.name} with {bundle.spec.classes} classes, from {bundle.source}")


def export(args: argparse.Namespace) -> None:
    """Load, convert, check, write."""
    from ..deploy import export_program
    from ..deploy.export import at_size
    from ..errors import ConfigError
    from ..weights import Bundle, export_weights
    from ..weights.bundle import model_file

    if args.int8:
        if args.size:
            raise ConfigError("L2", "--size with --int8", "the validation images have one size; leave one of them out")
        export_in_int8(args)
        return
    for flag in ("max_drop", "data"):
        if getattr(args, flag) is not None:
            raise ConfigError("L2", f"--{flag.replace('_', '-')} is for int8 only", "add --int8 or leave it out")
    bundle = Bundle.load(model_file(args.model))
    if args.to in PROGRAMS:
        bundle = at_size(bundle, args.size) if isinstance(args.size, int) else bundle
        path = export_program(bundle, args.to, args.out, dynamic=args.size == "dynamic")
    elif args.size:
        raise ConfigError("L2", "--size is for runtimes", "leave it out")
    else:
        path = export_weights(bundle, args.to, args.out)
    print(f"{path}: {bundle.spec.name} for {args.to}")


def export_in_int8(args: argparse.Namespace) -> None:
    """The same behind the gate of accuracy."""
    from ..deploy.quantise import export_int8
    from ..errors import ConfigError
    from ..train.evaluate import align
    from ..train.measure import data_of

    if args.to != "onnx":
        raise ConfigError("L2", f"--int8 with --to {args.to}", "use --to onnx, which OpenVINO runs too")
    bundle, splits = data_of(args.model, args.data)
    train, val = (align(part, bundle.classes) for part in (splits.train, splits.val))
    gate = {} if args.max_drop is None else {"max_drop": args.max_drop}
    made = export_int8(bundle, train, val, args.out, progress=print, **gate)
    print(f"{args.out}: {bundle.spec.name} in int8, {made.drop:.2f} points lost on {len(val)} validation images")
