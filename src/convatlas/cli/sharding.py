"""`shard`."""

import argparse
from pathlib import Path

from .parts import Commands, add_reading, at_least, command, reading


def add_commands(commands: Commands) -> None:
    """Declare it."""
    parser = command(commands, shard, "copy images into shards, large files that are read quickly from any storage")
    parser.add_argument("data", help="as of `convatlas train --data`")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="where the shards go")
    parser.add_argument("--to", choices=("webdataset", "parquet"), default="webdataset", help="(default: webdataset)")
    parser.add_argument("--per-shard", type=at_least(1), default=10_000, metavar="IMAGES", help="(default: 10,000)")
    add_reading(parser)


def shard(args: argparse.Namespace) -> None:
    """Write what is not there yet."""
    from rich.console import Console

    from ..data.open import read_source
    from ..data.sharding import write_shards
    from ..train.progress import Reading

    progress = Reading(Console(stderr=True))
    source = read_source(args.data, **reading(args), progress=progress)
    folder = Path(args.out).expanduser()
    shards = write_shards(source, folder, args.to, per_shard=args.per_shard, progress=progress)
    print(f"{len(source.images):,} images in {len(shards):,} shards; to train on them: --data {folder}")
