"""Weights: our own file (`Bundle`), and those of others, read and written."""

from .bundle import Bundle
from .exchange import export_weights, import_weights
from .foreign import read_foreign
from .store import read_tensors, write_tensors

__all__ = ["Bundle", "export_weights", "import_weights", "read_foreign", "read_tensors", "write_tensors"]
