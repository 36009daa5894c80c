"""Every failure a user can cause: one line that names what, which file or value, and the remedy.

Exit codes: 0 ok, 1 our bug, 2 configuration, 3 data, 4 weights or checkpoint, 5 diverged, 6 resources,
7 distributed, 130/143 stopped by a signal after saving.
"""

import importlib
from typing import Any


class ConvatlasError(Exception):
    """`error[ID]: what happened. Remedy: what to do.`  The ID is a case of the fault catalogue, for example `D1`."""

    exit_code = 1

    def __init__(self, id: str, what: str, remedy: str):
        line = f"error[{id}]: {what}. Remedy: {remedy}"
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))  # a path may hold anything
        self.id, self.what, self.remedy = id, what, remedy

    def __reduce__(self) -> tuple:  # so that it crosses a process border whole
        return type(self), (self.id, self.what, self.remedy)


class ConfigError(ConvatlasError):
    """A flag, a recipe or a name that cannot be right."""

    exit_code = 2


class DataError(ConvatlasError):
    """An image, a folder or a label that cannot be used."""

    exit_code = 3


class WeightsError(ConvatlasError):
    """A weights file or checkpoint that is damaged, unsafe or of another network."""

    exit_code = 4


class DivergedError(ConvatlasError):
    """Training left the finite numbers."""

    exit_code = 5


class ResourceError(ConvatlasError):
    """Disk, memory, permission, network or a missing package."""

    exit_code = 6


class DistributedError(ConvatlasError):
    """A process of the job was lost, hangs, or differs from the others."""

    exit_code = 7


class StoppedError(ConvatlasError):
    """Stopped by a signal after saving: exit code 128 + signal number."""

    def __init__(self, signal: int, what: str, remedy: str):
        super().__init__("T2", what, remedy)
        self.signal, self.exit_code = signal, 128 + signal

    def __reduce__(self) -> tuple:
        return type(self), (self.signal, self.what, self.remedy)


def explain(error: OSError) -> str:
    """`No space left on device` of an OSError, without its path (the caller names that)."""
    return error.strerror or type(error).__name__


def library(module: str, extra: str) -> Any:
    """A module of a library that the extra `extra` brings.  Raises ResourceError L5 if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        what = f"{module.partition('.')[0]} is not installed"
        raise ResourceError("L5", what, f"pip install 'convatlas[{extra}]'") from error
