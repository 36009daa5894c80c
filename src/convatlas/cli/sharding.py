"""`shard`."""

import argparse
from pathlib import Path

from .parts import Commands, command


def add_commands(commands: Commands) -> None:
    """Declare it."""
    parser = command(commands, shard, "copy images into shards, large files that are read quickly from any storage")
    parser.add_argument("data", help="a folder, Parquet or WebDataset shards")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="where the shards go")
    parser.add_argument("--to", choices=("webdataset", "parquet"), default="webdataset", help="(default: webdataset)")
    parser.add_argument("--per-shard", type=int, default=10_000, metavar="IMAGES", help="(default: 10,000)")
    parser.add_argument("--follow-outside", action="store_true", help="follow links that lead out of the folder")
    parser.add_argument("--allow-empty-class", action="store_true", help="keep class folders without images")


def shard(args: argparse.Namespace) -> None:
    """Write what is not there yet."""
    from rich.console import Console

    from ..data.open import read_source
    from ..data.sharding import write_shards
    from ..train.progress import Reading

    reading = Reading(Console(stderr=True))
    source = read_source(
        args.data,
        follow_outside=args.follow_outside,
        allow_empty_class=args.allow_empty_class,
        progress=reading,
    )
    folder = Path(args.out).expanduser()
    shards = write_shards(source, folder, args.to, per_shard=args.per_shard, progress=reading)
    print(f"{len(source.images):,} images in {len(shards):,} shards; to train on them: --data {folder}")
