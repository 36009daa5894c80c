"""What differs between two records."""

from collections.abc import Mapping
from typing import Any


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """The paths at which two JSON values differ, with both values: `recipe.lr 0.1 -> 0.2`."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = [*a, *(key for key in b if key not in a)]
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)]
    return [] if a == b else [f"{path} {a!r} -> {b!r}"]
