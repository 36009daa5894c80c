"""Files of weights by others, read without executing anything in them."""

import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from .keras_file import HDF5, INSIDE, read_keras
from .store import parse, read_bytes, reason

WRAPPERS = ("state_dict", "model", "model_state", "net")  # keys under which training scripts put the state dict
ZIP = b"PK\x03\x04"  # torch.save since 1.6
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before: its pickled magic number
ASK = "get a .safetensors file from a source you trust"


def read_foreign(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, as it is named there.  Raises WeightsError if it holds anything but tensors."""
    content = read_bytes(path)
    if str(path).endswith(".safetensors") or content[8:9] == b"{":
        return parse(content, path)[0]
    if content.startswith(HDF5) or (content.startswith(ZIP) and INSIDE in _members(content, path)):
        return read_keras(content, path)
    if content.startswith(ZIP):
        _check_zip(content, path)
    elif not content.startswith(LEGACY):
        what = f"{path} is no file of safetensors, torch or Keras ({len(content):,} bytes)"
        raise WeightsError("C6", what, ASK)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on rare formats
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds code ({culprit[1]})" if culprit else "holds more"
        raise WeightsError("C6", f"{path} {what}, not only tensors", ASK) from None
    except Exception as error:  # torch.load raises whatever its parsers do on foreign bytes
        raise _not_whole(path, error) from None
    return _state_dict(loaded, len(content), path)


def _members(content: bytes, path: str | Path) -> dict[str, int]:
    """What an archive holds, with the sizes that it would unpack to."""
    try:
        return {member.filename: member.file_size for member in zipfile.ZipFile(io.BytesIO(content)).infolist()}
    except Exception as error:  # of hostile bytes zipfile may raise anything
        raise _not_whole(path, error) from None


def _check_zip(content: bytes, path: str | Path) -> None:
    """Refuse programs (TorchScript), and archives that unpack to more than they are."""
    members = _members(content, path)
    if any(name.endswith("/constants.pkl") for name in members):
        raise WeightsError("C6", f"{path} holds code (TorchScript), not only tensors", ASK)
    if sum(members.values()) > len(content):
        raise WeightsError("C6", f"{path} unpacks to more than its {len(content):,} bytes", ASK)


def _state_dict(loaded: Any, size: int, path: str | Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(_is_entry(*entry, size) for entry in loaded.items()):
        raise WeightsError("C8", f"{path} does not hold a state dict, names with tensors", "save net.state_dict()")
    return {name: tensor.detach() for name, tensor in loaded.items()}


def _is_entry(name: Any, tensor: Any, size: int) -> bool:
    """A name with an ordinary tensor that is no larger than the file (a view with stride 0 can be of any size)."""
    dense = isinstance(tensor, Tensor) and tensor.is_cpu and tensor.layout is torch.strided
    return isinstance(name, str) and dense and tensor.nbytes <= size


def _not_whole(path: str | Path, error: Exception) -> WeightsError:
    return WeightsError("C5", f"{path} is not a whole torch file ({reason(error)})", "get the file again")
