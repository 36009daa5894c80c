"""Weights by others: read without executing anything, renamed by a table, checked against the spec, made a bundle."""

import io
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Preprocess
from ..errors import ConfigError, WeightsError
from ..zoo import Arch, list_networks, spec
from .bundle import Bundle, mismatches, summary
from .rename import SOURCES, Source, rename
from .store import parse, read_bytes

WRAPPERS = ("state_dict", "model", "model_state", "net")  # keys under which training scripts put the state dict


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
    Raises WeightsError if the file holds code, or tensors of another network (naming networks that would fit).
    """
    theirs = read_foreign(path)
    arch = spec(network)
    candidates = [s for s in SOURCES if isinstance(arch, s.family) and source in (None, s.name)]
    if not candidates:
        known = ", ".join(sorted({s.name for s in SOURCES if isinstance(arch, s.family)}))
        raise ConfigError("L2", f"no rename table for {network} from {source!r}", f"known for it: {known}")
    attempts = [(s, *convert(s, arch, theirs)) for s in candidates]
    found, fitted, weights, problems = min(attempts, key=lambda attempt: len(attempt[3]))
    if problems:
        what = f"{path} is not a {network} of {found.name}: {summary(problems)}"
        raise WeightsError("C8", what, _others(arch, theirs))
    if classes is None:
        known = len(found.classes) == fitted.classes
        classes = found.classes if known else tuple(str(i) for i in range(fitted.classes))
    return Bundle(
        spec=fitted,
        weights=weights,
        classes=classes,
        preprocess=preprocess or found.preprocess,
        source=f"{found.name}: {Path(path).name}",
        licence=licence,
    )


def convert(source: Source, arch: Arch, theirs: dict[str, Tensor]) -> tuple[Arch, dict[str, Tensor], list[str]]:
    """The spec (with the file's number of classes), the weights under our names, and what does not fit."""
    ours, problems = rename(source.rules(arch), theirs)
    if problems:
        return arch, ours, problems
    last = [path for path, m in arch.skeleton().named_modules() if isinstance(m, nn.Linear)][-1]
    if f"{last}.bias" in ours:
        arch = replace(arch, classes=len(ours[f"{last}.bias"]))
    for name, expected in arch.skeleton().state_dict().items():
        if name not in ours and name.endswith("num_batches_tracked"):  # files from before torch 0.4.1 have none
            ours[name] = torch.zeros((), dtype=torch.long)
        elif name in ours and ours[name].shape[:1] == expected.shape[:1] and ours[name].numel() == expected.numel():
            ours[name] = ours[name].reshape(expected.shape)  # a k x k convolution where ours is a linear layer
    return arch, ours, mismatches(arch, ours)


def read_foreign(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, as it is named there.  Raises WeightsError if it holds anything but tensors."""
    content = read_bytes(path)
    if str(path).endswith(".safetensors"):
        return parse(content, path)[0]
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from None
    except Exception as error:  # torch.load raises whatever its parsers do on foreign bytes
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise WeightsError("C5", f"{path} is not a whole torch file ({reason})", "get the file again") from None
    return _state_dict(loaded, path)


def _state_dict(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise WeightsError("C8", f"{path} does not hold a state dict, names with tensors", "save net.state_dict()")
    return dict(loaded)


def _refusal(path: str | Path, message: str) -> WeightsError:
    culprit = re.search(r"GLOBAL ([\w.]+)|Unsupported (?:global|class) ([\w.]+)|trying to load ([\w.]+)", message)
    name = next((group for group in culprit.groups() if group), None) if culprit else None
    what = f"{path} holds code ({name})" if name else f"{path} holds more"
    return WeightsError("C6", f"{what}, not only tensors", "get a .safetensors file from a source you trust")


def _others(arch: Arch, theirs: dict[str, Tensor]) -> str:
    """Which networks of the same family the file would fit."""
    family = [name for name in list_networks() if type(spec(name)) is type(arch)]
    sources = [source for source in SOURCES if isinstance(arch, source.family)]
    fits = [name for name in family if any(not convert(source, spec(name), theirs)[2] for source in sources)]
    return f"it fits {', '.join(fits)}" if fits else "see `convatlas list` for the networks there are"
