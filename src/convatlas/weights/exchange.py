"""Weights by others become bundles, and bundles files for others."""

import io
from collections.abc import Iterable, Set
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .. import files
from ..data import Preprocess
from ..errors import ConfigError, WeightsError
from ..zoo import Arch, spec
from .bundle import Bundle, check, skeleton, summary
from .convert import differences, expected, fitted, names, to_ours, to_theirs, today
from .download import Progress
from .foreign import read_foreign
from .hub import find
from .keras_file import by_depth, write_keras
from .peers import LIBRARIES, PEERS, Peer


def import_weights(
    source: str | Path,
    network: str | None = None,
    *,
    library: str | None = None,
    preprocess: Preprocess | None = None,
    classes: tuple[str, ...] | None = None,
    licence: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Make a bundle of weights by others for a network of ours.

    `source` is a file (`.pth`, `.pt`, `.th`, `.bin`, `.safetensors`, `.h5`, `.keras`), an address, or a name:
    `torchvision:resnet50.IMAGENET1K_V2`, `timm:resnet18.a1_in1k`, `hf://owner/name/file`.  What is not given is found
    out: the network and the library by the tensors, the preprocessing, classes and licence from the source.  The
    numbers of classes and input channels are the file's.  What has no weights (another activation, anti-aliased
    pooling) cannot be told from a file: such a relative of a network passes for it.

    Raises WeightsError if the file is damaged, holds code, or tensors of another network; ConfigError if the library
    does not have the network, both naming networks that would fit; ResourceError if it can't be fetched.
    """
    if library not in (None, *LIBRARIES):
        raise ConfigError("L2", f"no library is called {library!r}", f"there are {', '.join(LIBRARIES)}")
    found = find(str(source), sha256, progress)
    theirs = read_foreign(found.path)
    peers = [found.peer] if found.peer else [p for p in PEERS if library in (None, p.library)]
    network = network or found.network or _only_fit(peers, theirs, source)
    candidates = [p for p in peers if p.name_of(spec(network))]
    if not candidates:
        raise ConfigError("L2", f"no table for {network} from {library or 'any library'}", _remedy(theirs))
    attempts = [_attempt(p, spec(network), theirs) for p in candidates]
    peer, arch, renamed, problems = min(attempts, key=lambda attempt: len(attempt[3]))
    if problems:
        what = f"{source} is not a {network} of {peer.library}: {summary(problems)}"
        raise WeightsError("C8", what, _remedy(theirs))
    fits = dict.fromkeys(p.library for p, _, _, wrong in attempts if not wrong)
    usual = found.preprocess or peer.preprocess
    bundle = Bundle(
        spec=arch,
        weights=to_ours(peer, arch, renamed),
        classes=classes or _classes(arch.classes, found.classes, peer.classes),
        preprocess=preprocess or usual.for_channels(arch.in_channels),
        source=f"{' or '.join(fits)}: {found.origin}",
        licence=licence or found.licence or "not stated",
    )
    check(bundle, source)
    return bundle


def export_weights(bundle: Bundle, to: str, path: str | Path) -> Path:
    """Write a bundle's weights as a library stores them, to load into its own network: the same logits in eval mode.

    `to` is the library, or `library:network` where it has several networks of ours under different names.  The file is
    `.safetensors` or `.pth`, for Keras `.h5`.

    Raises ConfigError if the library does not have the network, or the file is of another kind.
    """
    library, _, wanted = to.partition(":")
    having = [p for p in PEERS if p.name_of(bundle.spec)]
    peers = [p for p in having if p.library == library and wanted in ("", p.name_of(bundle.spec))]
    if not peers:
        others = ", ".join(f"{p.library}:{p.name_of(bundle.spec)}" for p in having)
        remedy = f"it can go to {others}" if others else "no library has this network, see docs/weights.md"
        raise ConfigError("L2", f"{to} has no network that is our {bundle.spec.name}", remedy)
    kinds = (".h5",) if library == "keras" else (".safetensors", ".pth")
    if Path(path).suffix not in kinds:
        raise ConfigError("L2", f"{path} is no name for weights of {library}", f"end it in {' or '.join(kinds)}")
    arch = peers[0].fitted(bundle.spec)
    theirs = to_theirs(peers[0], arch, bundle.weights)
    if library == "keras":
        return write_keras(path, theirs, _layers(peers[0], arch))
    theirs = {name: tensor.contiguous() for name, tensor in theirs.items()}
    if Path(path).suffix == ".safetensors":
        return files.write_bytes(path, save(theirs, {"format": "pt"}))
    content = io.BytesIO()
    torch.save(theirs, content)
    return files.write_bytes(path, content.getvalue())


def fits(theirs: dict[str, Tensor], peers: Iterable[Peer] = PEERS) -> list[tuple[str, Peer]]:
    """Networks of ours that a state dict fits, each with the table by which it does."""
    related = [p for p in peers if today(p, theirs).keys() & _wanted(p, next(iter(p.networks)))]
    return [
        (name, peer)
        for peer in related
        for name in peer.networks
        if all(odd.endswith("num_batches_tracked") for odd in today(peer, theirs).keys() ^ _wanted(peer, name))
        if not _attempt(peer, spec(name), theirs)[3]
    ]


def _wanted(peer: Peer, name: str) -> Set[str]:
    """Their names of the tensors of a network of ours."""
    return expected(peer, peer.fitted(spec(name))).keys()


def _attempt(peer: Peer, arch: Arch, theirs: dict[str, Tensor]) -> tuple[Peer, Arch, dict[str, Tensor], list[str]]:
    """A table with the spec fitted to the file, the tensors under today's names, and what is wrong with them."""
    renamed = today(peer, theirs)
    arch = fitted(peer, peer.fitted(arch), renamed)
    return peer, arch, renamed, differences(peer, arch, renamed)


def _only_fit(peers: list[Peer], theirs: dict[str, Tensor], source: str | Path) -> str:
    networks = list(dict.fromkeys(name for name, _ in fits(theirs, peers)))
    if len(networks) != 1:
        what = f"{source} fits {', '.join(networks) or 'no network'}"
        raise ConfigError("L2", what, "name one" if networks else "see `convatlas list` for the networks there are")
    return networks[0]


def _remedy(theirs: dict[str, Tensor]) -> str:
    """Which networks the tensors would fit."""
    found = ", ".join(f"{name} of {peer.library}" for name, peer in fits(theirs))
    return f"it fits {found}" if found else "see `convatlas list` for the networks there are"


def _classes(count: int, *choices: tuple[str, ...]) -> tuple[str, ...]:
    """The first names that are as many as there are classes, else numbers."""
    return next((names for names in choices if len(names) == count), tuple(map(str, range(count))))


def _layers(peer: Peer, arch: Arch) -> list[str]:
    """The layers with weights in Keras' order."""
    known = {ours.rpartition(".")[0]: theirs.rpartition("/")[0] for ours, (theirs, _) in names(peer, arch).items()}
    return [known[path] for path in by_depth(skeleton(arch)) if path in known]
