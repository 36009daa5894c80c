"""What listing a large data set found, kept in the cache so that opening it again takes a moment.

A file of the index is the sha256 of all that follows, the length of a JSON header, the header, and arrays, which are
mapped into memory.  One that is damaged, or of other data, is as good as none; nothing is written beside the data.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..errors import ResourceError

FORMAT = 1
LARGE = 20_000  # images, from which on an index pays
_SEALED = 64  # hexadecimal digits of the sha256


@dataclass(frozen=True, eq=False)
class Index:
    """A JSON-able record, and arrays of one dimension."""

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]


def save(key: dict[str, Any], index: Index) -> None:
    """Keep an index under `key`: the JSON-able description of what was listed and how.

    Where the cache can't be written, nothing happens.
    """
    shapes = [(name, found.dtype.str, len(found)) for name, found in index.arrays.items()]
    header = json.dumps({"format": FORMAT, "key": key, "record": index.record, "arrays": shapes}).encode()
    header += b" " * (-(_SEALED + 8 + len(header)) % 8)
    pieces: list[bytes | memoryview] = [len(header).to_bytes(8, "little"), header]
    for found in index.arrays.values():
        content = found.view(np.uint8).data
        pieces += [content, bytes(-len(content) % 8)]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    with contextlib.suppress(ResourceError, RuntimeError):  # RuntimeError: no home folder
        files.write_pieces(_path(key), [digest.hexdigest().encode(), *pieces])


def load(key: dict[str, Any]) -> Index | None:
    """The index kept under `key`, if there is a whole one."""
    try:
        with _path(key).open("rb") as file:
            sealed = file.read(_SEALED)
            if hashlib.file_digest(file, "sha256").hexdigest().encode() != sealed:
                return None
            file.seek(_SEALED)
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            if (header["format"], header["key"]) != (FORMAT, json.loads(json.dumps(key))):
                return None
            arrays, start = {}, file.tell()
            for name, dtype, count in header["arrays"]:
                if count:
                    arrays[name] = np.memmap(file, dtype, "r", start, count)
                else:
                    arrays[name] = np.empty(0, dtype)
                start += -(-arrays[name].nbytes // 8) * 8
    except (OSError, RuntimeError):
        return None
    return Index(header["record"], arrays)


def folders_unchanged(root: Path, folders: dict[str, list[int]]) -> bool:
    """Whether `Scan.folders` would be the same again."""
    try:
        return all(_state(root / path) == state for path, state in folders.items())
    except OSError:
        return False


def _state(folder: Path) -> list[int]:
    modified = folder.stat().st_mtime_ns
    with os.scandir(folder) as entries:
        return [modified, sum(1 for _ in entries)]


def _path(key: dict[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return files.cache_folder() / "index" / name
