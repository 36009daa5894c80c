"""From a name, a folder or files of many images to images in train, val and test."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, explain
from .archive import is_archive, unpacked
from .check import OnAnimated, OnBadFile, check
from .decode import ENOUGH, MAX_PIXELS, shown
from .folder import read_folder
from .images import Progress
from .named import NAMES, read_named
from .parquet import parquet_files, read_parquet
from .shards import read_shards, shard_files
from .splits import Source, Splits, restore, split

MANY = 200_000  # images, of which reading all before training takes long


def open_data(
    spec: str | Path,
    *,
    seed: int = 0,
    record: Mapping[str, Any] | None = None,
    enough: int = ENOUGH,
    on_bad_file: OnBadFile = "fail",
    on_animated: OnAnimated = "first",
    download: bool = False,
    allow_empty_class: bool = False,
    follow_outside: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Splits:
    """Open the data set `spec`: one of `NAMES`, a folder, an archive of one, Parquet files or WebDataset shards.

    Every file is read once (see `check`), unless `on_bad_file` is `lazy`.  Parts that are not given are cut by `seed`;
    with a `record` (of `Splits.record`) all parts are exactly as there.  Large JPEGs keep `enough` px of their shorter
    side (`Preprocess.enough`).  A named set is fetched only by `download`.
    Raises ConfigError L7 for a spec that is nothing, ResourceError for data that is not there or cannot be fetched, and
    DataError for data that cannot be used.
    """
    source = read_source(
        spec,
        download=download,
        allow_empty_class=allow_empty_class,
        follow_outside=follow_outside,
        max_pixels=max_pixels,
        progress=progress,
    )
    large = ()
    if len(source.images) > MANY and on_bad_file != "lazy" and source.images.content is not None:
        large = (f"each of {len(source.images):,} images is read before training; --on-bad-file=lazy starts at once",)
    images = source.images.keeping(enough)
    images, bad, warnings = check(images, on_bad_file, on_animated=on_animated, progress=progress)
    source = replace(source, warnings=source.warnings + large + warnings)
    return split(source, images, seed, bad) if record is None else restore(source, images, record)


def read_source(
    spec: str | Path,
    *,
    download: bool = False,
    allow_empty_class: bool = False,
    follow_outside: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Source:
    """Find the images of the data set `spec`, as `open_data` does, but read none.  An archive is unpacked once."""
    if spec in NAMES:
        return read_named(str(spec), download=download, max_pixels=max_pixels)
    try:
        path = Path(spec).expanduser()
        if shard_files(path):
            return read_shards(path, max_pixels=max_pixels, progress=progress)
        path.stat()
        if is_archive(path):
            path = unpacked(path)
        is_parquet = bool(parquet_files(path))
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a null byte, RuntimeError: ~ of an unknown user
        raise _unknown(spec, explain(error) if isinstance(error, OSError) else str(error)) from error
    if is_parquet:
        return read_parquet(path, max_pixels=max_pixels)
    if path.is_dir():
        return read_folder(
            path,
            allow_empty_class=allow_empty_class,
            follow_outside=follow_outside,
            max_pixels=max_pixels,
            progress=progress,
        )
    raise _unknown(spec, "neither a folder, an archive, Parquet nor WebDataset shards")


def _unknown(spec: str | Path, reason: str) -> ConfigError:
    near = difflib.get_close_matches(str(spec).lower(), NAMES)
    question = f"did you mean {' or '.join(near)}? " if near else ""
    remedy = f"{question}Give a folder, an archive of one, Parquet, WebDataset shards, or one of {', '.join(NAMES)}"
    return ConfigError("L7", f"{shown(spec)}: {reason}", remedy)
