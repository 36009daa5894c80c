"""Weights by others: read without executing anything, renamed by a table, checked against the spec, made a bundle."""

import io
import pickle
import re
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Preprocess
from ..errors import ConfigError, WeightsError
from ..zoo import Arch, list_networks, spec
from .bundle import Bundle, check, layout, mismatches, summary
from .rename import SOURCES, Source, rename
from .store import parse, read_bytes, reason

WRAPPERS = ("state_dict", "model", "model_state", "net")  # keys under which training scripts put the state dict
ZIP = b"PK\x03\x04"  # torch.save since 1.6
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before: its pickled magic number
ASK = "get a .safetensors file from a source you trust"


def import_weights(
    path: str | Path,
    network: str,
    *,
    source: str | None = None,
    preprocess: Preprocess | None = None,
    classes: tuple[str, ...] | None = None,
    licence: str = "not stated",
) -> Bundle:
    """Make a bundle of a foreign file (`.pth`, `.pt`, `.th`, `.bin`, `.safetensors`) for a network of ours.

    `source` (torchvision, timm, akamaster) is found out when None; `preprocess` and `classes` are the source's then.
    The numbers of classes and input channels are the file's.  What has no weights (another activation, anti-aliased
    pooling) cannot be told from a file: such a relative of a network passes for it.

    Raises WeightsError if the file holds code, or tensors of another network, ConfigError if the source does not have
    the network, both naming networks that would fit.
    """
    theirs = read_foreign(path)
    arch = spec(network)
    candidates = [s for s in SOURCES if s.has(arch) and source in (None, s.name)]
    if not candidates:
        raise ConfigError("L2", f"no rename table for {network} from {source or 'any source'}", _fits(theirs))
    attempts = [(s, *convert(s, arch, theirs)) for s in candidates]
    found, fitted, weights, problems = min(attempts, key=lambda attempt: len(attempt[3]))
    if problems:
        raise WeightsError("C8", f"{path} is not a {network} of {found.name}: {summary(problems)}", _fits(theirs))
    if classes is None:
        known = len(found.classes) == fitted.classes
        classes = found.classes if known else tuple(str(i) for i in range(fitted.classes))
    bundle = Bundle(
        spec=fitted,
        weights=weights,
        classes=classes,
        preprocess=preprocess or found.preprocess.for_channels(fitted.in_channels),
        source=f"{' or '.join(s.name for s, _, _, wrong in attempts if not wrong)}: {Path(path).name}",
        licence=licence,
    )
    check(bundle, path)
    return bundle


def convert(source: Source, arch: Arch, theirs: dict[str, Tensor]) -> tuple[Arch, dict[str, Tensor], list[str]]:
    """The spec with the file's numbers of classes and channels, the weights under our names, and what does not fit."""
    ours, problems = rename(source.rules(arch), theirs)
    if problems:
        return arch, ours, problems
    for name, wanted in layout(arch).items():
        if name not in ours and name.endswith("num_batches_tracked"):  # files from before torch 0.4.1 have none
            ours[name] = torch.zeros((), dtype=torch.long)
        elif name in ours and ours[name].dim() == 4 and wanted.dim() == 2:  # a k x k convolution for our linear layer
            ours[name] = ours[name].flatten(1)
    if ours.keys() == layout(arch).keys():
        first, *_ = layout(arch)
        *_, last = (name for name in layout(arch) if name.startswith("head."))
        channels, classes = ours[first].shape[1:2].numel(), ours[last].numel()
        arch = replace(arch, in_channels=channels or arch.in_channels, classes=classes or arch.classes)
    return arch, ours, mismatches(arch, ours)


def read_foreign(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, as it is named there.  Raises WeightsError if it holds anything but tensors."""
    content = read_bytes(path)
    if str(path).endswith(".safetensors") or content[8:9] == b"{":
        return parse(content, path)[0]
    if content.startswith(ZIP):
        _check_zip(content, path)
    elif not content.startswith(LEGACY):
        what = f"{path} is neither a safetensors nor a torch file ({len(content):,} bytes)"
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


def _check_zip(content: bytes, path: str | Path) -> None:
    """Refuse programs (TorchScript), and archives that unpack to more than they are."""
    try:
        members = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except Exception as error:  # of hostile bytes zipfile may raise anything
        raise _not_whole(path, error) from None
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise WeightsError("C6", f"{path} holds code (TorchScript), not only tensors", ASK)
    if sum(member.file_size for member in members) > len(content):
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


def _fits(theirs: dict[str, Tensor]) -> str:
    """Which networks the tensors would fit."""
    fits = [
        f"{name} of {source.name}"
        for name in list_networks()
        for source in SOURCES
        if source.has(spec(name)) and not convert(source, spec(name), theirs)[2]
    ]
    return f"it fits {', '.join(fits)}" if fits else "see `convatlas list` for the networks there are"
