"""Checksums of all files of a data set, in the form that `sha256sum -c` reads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, explain
from ..files import write_text

_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")
_ESCAPED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True)
class Difference:
    """The names whose checksum is another, those without a file, and the files without a line."""

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def write_manifest(path: str | Path, checksums: Mapping[str, str]) -> Path:
    """Write the SHA-256 of each name.  A name with a line feed is escaped as GNU does.  Raises ResourceError C2."""
    return write_text(path, "".join(f"{_line(checksums[name], name)}\n" for name in sorted(checksums)))


def read_manifest(path: str | Path) -> dict[str, str]:
    """By name, its SHA-256.  Raises ConfigError L7 for a file that can't be read, or is no such list."""
    remedy = "write one with --write-manifest, or with sha256sum in the data folder"
    try:
        text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError("L7", f"{path}: {explain(error)}", remedy) from error
    checksums = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ConfigError("L7", f"{path}: line {number} is no checksum and name", remedy)
        escaped, checksum, name = found.groups()
        name = re.sub(r"\\(.)", lambda pair: {"n": "\n", "r": "\r"}.get(pair[1], pair[1]), name) if escaped else name
        checksums[name.removeprefix("./")] = checksum
    return checksums


def compare(expected: Mapping[str, str], found: Mapping[str, str]) -> Difference:
    """How what is there differs from what a manifest says."""
    both = sorted(expected.keys() & found.keys())
    return Difference(
        tuple(name for name in both if expected[name] != found[name]),
        tuple(sorted(expected.keys() - found.keys())),
        tuple(sorted(found.keys() - expected.keys())),
    )


def _line(checksum: str, name: str) -> str:
    escaped = re.sub(r"[\\\n\r]", lambda found: _ESCAPED[found[0]], name)
    mark = "" if escaped == name else "\\"
    return f"{mark}{checksum}  {escaped}"
