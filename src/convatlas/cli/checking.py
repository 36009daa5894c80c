"""`check-data`."""

import argparse
from pathlib import Path
from typing import Any

from .parts import Commands, add_reading, command, print_json, print_table, reading

MOST_CLASSES = 20  # in the table


def add_commands(commands: Commands) -> None:
    """Declare it."""
    parser = command(commands, check_data, "say what is in a data set and what is wrong with it", json=True)
    parser.add_argument("data", help="as of `convatlas train --data`")
    parser.add_argument("--out", metavar="FOLDER", help="write a page, a sheet of pictures and lists for programs")
    parser.add_argument("--strict", action="store_true", help="exit with 3 for warnings too")
    parser.add_argument("--write-manifest", metavar="FILE", help="write the SHA-256 of each file, as sha256sum does")
    parser.add_argument("--hash-manifest", metavar="FILE", help="compare with a file written so")
    add_reading(parser)


def check_data(args: argparse.Namespace) -> None:
    """Read every image once; raise DataError if training would refuse the data."""
    from rich.console import Console

    from ..data.findings import findings, of_manifest
    from ..data.inspect import inspect
    from ..data.manifest import compare, read_manifest, write_manifest
    from ..data.open import read_source
    from ..errors import ConfigError, DataError
    from ..report.datasheet import to_dict, write_datasheet
    from ..train.choose import choose
    from ..train.fit import pick_device
    from ..train.progress import Reading

    progress = Reading(Console(stderr=True))
    expected = read_manifest(args.hash_manifest) if args.hash_manifest else None
    source = read_source(args.data, **reading(args) | {"allow_empty_class": True}, progress=progress)
    if source.images.content is None and (args.write_manifest or args.hash_manifest):
        raise ConfigError("L4", f"{source.name} has no files of which to take checksums", "leave the manifest away")
    inspection = inspect(source, progress=progress)
    size = choose(inspection.splits, pick_device(None)).size if inspection.splits else None
    found = findings(inspection, size)
    if expected is not None:
        found = of_manifest(compare(expected, inspection.checksums())) + found
    if args.write_manifest:
        write_manifest(args.write_manifest, inspection.checksums())
    page = write_datasheet(inspection, found, Path(args.out).expanduser()) if args.out else None
    content = to_dict(inspection, found)
    if args.json:
        print_json(content)
    else:
        show(content)
        if page is not None:
            print(f"page   {page}")
    serious = [finding for finding in found if finding.level == "error" or (args.strict and finding.level == "warning")]
    if serious:
        first, others = serious[0], len(serious) - 1
        more = f" ... and {others} more" if others else ""
        raise DataError(first.id, f"{source.name}: {first.what}{more}", first.remedy)


def show(content: dict[str, Any]) -> None:
    """What is there, and what was found."""
    from ..data.decode import shown

    classes, figures = content["classes"], content["figures"]
    print(f"{shown(content['name'])}: {content['images']:,} images in {len(classes):,} classes; {content['how']}")
    if figures:
        side, ratio = figures["shorter_side"], figures["aspect_ratio"]
        print(
            f"shorter side {side['min']:g} to {side['max']:g} px, median {side['median']:g}; "
            f"width / height {ratio['min']:g} to {ratio['max']:g}; {figures['grey']:,} grey\n"
            f"mean {figures['mean']}, standard deviation {figures['std']}, of 0..1"
        )
    rows = sorted(classes.items(), key=lambda row: sum(row[1].values()))[:MOST_CLASSES]
    title = f"the {MOST_CLASSES} smallest classes" if len(classes) > MOST_CLASSES else None
    print_table(("class", "train #", "val #", "test #"), ((shown(name), *row.values()) for name, row in rows), title)
    print_table(("level", "case", "what"), ((f["level"], f["id"], f["what"]) for f in content["findings"]))
