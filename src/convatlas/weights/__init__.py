"""Weights: our own file (`Bundle`), and those of others."""

from .bundle import Bundle
from .foreign import import_weights, read_foreign
from .store import read_tensors, write_tensors

__all__ = ["Bundle", "import_weights", "read_foreign", "read_tensors", "write_tensors"]
