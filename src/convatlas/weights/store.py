"""Tensors in one safetensors file that notices any change of any bit: bundles and checkpoints are both kept in it.

The file is an ordinary safetensors file.  Its only metadata entry, `convatlas`, is a JSON record with the sha256 of
every tensor, preceded by the sha256 of the record itself.
"""

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from .. import files
from ..errors import ResourceError, WeightsError, explain

KEY = "convatlas"
FORMAT = 1
REFETCH = "get the file again from its source, or use an older copy"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: str | Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> Path:
    """Write tensors and a JSON-able record atomically, without a copy of them in memory.

    Raises ResourceError if that is impossible; the old file is then untouched.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that every tensor is aligned
    text = json.dumps(
        {**record, "format": FORMAT, "sha256": {name: digest(t) for name, t in tensors.items()}}, sort_keys=True
    )
    header: dict[str, Any] = {"__metadata__": {KEY: _sha256(text.encode()) + text}}
    end = 0
    for name in order:
        t, start = tensors[name], end
        end += t.nbytes
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [start, end]}
    encoded = _canonical(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    head = len(encoded).to_bytes(8, "little") + encoded
    return files.write_pieces(path, [head, *(_bytes(tensors[name]) for name in order)])


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of a file that `write_tensors` wrote, every bit verified.

    Raises WeightsError if the file is damaged, naming the tensor, or is not ours; ResourceError if it can't be read.
    """
    tensors, header = parse(read_bytes(path), path)
    sealed = _metadata(header).get(KEY)
    if sealed is None:
        raise WeightsError(
            "C8",
            f"{path} was not written by convatlas: it says nothing of its network, classes or preprocessing",
            "`convatlas import` makes a bundle of weights by others; if it is ours, it is damaged: get it again",
        )
    seal, text = sealed[:64], sealed[64:]
    if _sha256(text.encode()) != seal:
        raise WeightsError("C4", f"{path}: its record fails its checksum", REFETCH)
    try:
        record = json.loads(text)
        newer, expected = record["format"] > FORMAT, dict(record.pop("sha256"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsError("C4", f"{path}: its record is none that convatlas writes", REFETCH) from None
    if newer:
        raise WeightsError("C10", f"{path} has format {record['format']}, newer than {FORMAT}", "update convatlas")
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or digest(tensors[name]) != expected.get(name):
            raise WeightsError("C4", f"{path}: tensor {name!r} fails its checksum", REFETCH)
    return tensors, record


def read_bytes(path: str | Path) -> bytes:
    """The whole file, so that nothing changes under the reader.  Raises WeightsError or ResourceError."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe or device might never end
            raise WeightsError("C8", f"{path} is not a regular file", "check the path")
        return files.patiently(Path(path).read_bytes)
    except FileNotFoundError:
        raise WeightsError("C8", f"there is no file {path}", "check the path") from None
    except OSError as error:
        what = f"cannot read {path}: {explain(error)}"
        raise ResourceError("C8", what, "check the path and its permissions") from None
    except MemoryError:
        raise ResourceError("C8", f"{path} does not fit into memory", "free memory, or check the file") from None


def parse(content: bytes, path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, in the order of the file, and the JSON header of safetensors bytes.

    Raises WeightsError if they are not well-formed.
    """
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        text = content[8 : 8 + length].decode().rstrip(" ")
        header = json.loads(text)
    except Exception as error:  # the parsers raise many things on hostile bytes
        raise WeightsError("C5", f"{path} is not a whole safetensors file ({reason(error)})", REFETCH) from None
    if KEY in _metadata(header) and _canonical(header) != text:
        raise WeightsError("C4", f"{path}: its header has been changed", REFETCH)
    return {name: tensors[name] for name in header if name != "__metadata__"}, header


def reason(error: Exception) -> str:
    """What an error by others says, on one line without control characters."""
    return (str(error) or type(error).__name__).encode("unicode_escape").decode()[:120]


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    return header.get("__metadata__") or {}


def _canonical(header: dict[str, Any]) -> str:
    return json.dumps(header, ensure_ascii=False, separators=(",", ":"))


def digest(tensor: Tensor) -> str:
    """The sha256 of a contiguous tensor's type, shape and bytes."""
    return _sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode(), _bytes(tensor))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _sha256(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
