"""Tensors in one safetensors file that notices any change of any bit: bundles and checkpoints are both kept in it.

The file is an ordinary safetensors file.  Its only metadata entry, `convatlas`, is a JSON record with the sha256 of
every tensor, preceded by the sha256 of the record itself.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from .. import files
from ..errors import ResourceError, WeightsError, explain

KEY = "convatlas"
FORMAT = 1
REFETCH = "get the file again from its source, or use an older copy"


def write_tensors(path: str | Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> Path:
    """Write tensors and a JSON-able record atomically.  Raises ResourceError if that is impossible."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(
        {"format": FORMAT, **record, "sha256": {name: _digest(t) for name, t in tensors.items()}}, sort_keys=True
    )
    return files.write_bytes(path, save(tensors, {KEY: _sha256(text.encode()) + text}))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of a file that `write_tensors` wrote, every bit verified.

    Raises WeightsError if the file is damaged, naming the tensor, or is not ours; ResourceError if it can't be read.
    """
    content = read_bytes(path)
    tensors, header = parse(content, path)
    sealed = header.pop("__metadata__", {}).get(KEY)
    if sealed is None:
        raise WeightsError(
            "C8",
            f"{path} was not written by convatlas: it says nothing of its network, classes or preprocessing",
            "`convatlas import` makes a bundle of weights by others",
        )
    digest, text = sealed[:64], sealed[64:]
    if _sha256(text.encode()) != digest:
        raise WeightsError("C4", f"{path}: its record fails its checksum", REFETCH)
    record = json.loads(text)
    if record["format"] > FORMAT:
        raise WeightsError("C10", f"{path} has format {record['format']}, newer than {FORMAT}", "update convatlas")
    expected = record.pop("sha256")
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or _digest(tensors[name]) != expected.get(name):
            raise WeightsError("C4", f"{path}: tensor {name!r} fails its checksum", REFETCH)
    return tensors, record


def read_bytes(path: str | Path) -> bytes:
    """The whole file, so that nothing changes under the reader.  Raises WeightsError or ResourceError."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise WeightsError("C8", f"there is no file {path}", "check the path") from None
    except OSError as error:
        what = f"cannot read {path}: {explain(error)}"
        raise ResourceError("C8", what, "check the path and its permissions") from None


def parse(content: bytes, path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON header of safetensors bytes.  Raises WeightsError if they are not well-formed."""
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        text = content[8 : 8 + length].decode().rstrip(" ")
        header = json.loads(text)
        canonical = json.dumps(header, ensure_ascii=False, separators=(",", ":")) == text
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, OverflowError, MemoryError) as error:
        raise WeightsError("C5", f"{path} is not a whole safetensors file ({error})", REFETCH) from None
    if not canonical and KEY in header.get("__metadata__", {}):
        raise WeightsError("C4", f"{path}: its header has been changed", REFETCH)
    return tensors, header


def _digest(tensor: Tensor) -> str:
    head = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return _sha256(head, tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")


def _sha256(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
