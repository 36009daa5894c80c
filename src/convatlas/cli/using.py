"""`predict`, `import` and `export`: networks with weights."""

import argparse
import json
from pathlib import Path

from .parts import Commands, command

LIBRARIES = "torchvision, timm, keras, pytorchcv or akamaster"
SOURCES = (
    "a file (.pth, .pt, .th, .bin, .safetensors, .h5, .keras), https://..., or a name: torchvision:NETWORK[.WEIGHTS], "
    "timm:NETWORK.TAG, hf://OWNER/NAME/FILE"
)


def add_commands(commands: Commands) -> None:
    """Declare them."""
    parser = command(commands, predict, "say what is on pictures, one answer for each", json=True)
    parser.add_argument("model", help="a model.safetensors, or the folder of a run")
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--top", type=int, default=3, help="classes to print (default: 3)")
    parser.add_argument("--allow-failures", action="store_true", help="exit with 0 though an image was unreadable")
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
    parser = command(commands, export, "write a bundle's weights for another library")
    parser.add_argument("model", help="a model.safetensors, or the folder of a run")
    parser.add_argument("--to", required=True, metavar="LIBRARY", help=f"{LIBRARIES}, or library:network")
    parser.add_argument("--out", required=True, metavar="FILE", help=".safetensors or .pth, for keras .h5")


def predict(args: argparse.Namespace) -> int:
    """Exit code 3 if an image could not be read."""
    from ..deploy import predict_files
    from ..weights import Bundle
    from ..weights.bundle import model_file

    bundle = Bundle.load(model_file(args.model))
    failed = False
    for prediction in predict_files(bundle, args.images, top=args.top):
        failed |= prediction.error is not None
        if args.json:
            print(json.dumps(prediction.to_dict()), flush=True)
        elif prediction.error is not None:
            print(f"{prediction.path}: {prediction.error}", flush=True)
        else:
            print(f"{prediction.path}: {', '.join(f'{name} {p:.1%}' for name, p in prediction.top)}", flush=True)
    return 3 if failed and not args.allow_failures else 0


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
    """Load, convert, write."""
    from ..weights import Bundle, export_weights
    from ..weights.bundle import model_file

    bundle = Bundle.load(model_file(args.model))
    path = export_weights(bundle, args.to, args.out)
    print(f"{path}: {bundle.spec.name} for {args.to}")
