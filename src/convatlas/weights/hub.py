"""Where weights come from: a file, an address, or a name: `torchvision:resnet50.IMAGENET1K_V2`,
`timm:resnet18.a1_in1k`, `hf://owner/name/file`.
"""

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data import Preprocess
from ..errors import ConfigError, WeightsError
from .download import Checksum, Progress, fetch
from .peers import PEERS, Peer

HUGGING_FACE = "https://huggingface.co"


@dataclass(frozen=True)
class Found:
    """A file at hand, and what its source says of it: None or empty where it says nothing."""

    path: Path
    origin: str
    peer: Peer | None = None
    network: str | None = None
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] = ()
    licence: str | None = None


def find(source: str, sha256: str | None = None, progress: Progress | None = None) -> Found:
    """The file that a source means, fetched or from the cache; `sha256` is what its digest begins with.

    Raises ConfigError for a name that means nothing, ResourceError if the file can't be had, WeightsError if it is
    damaged.
    """
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise ConfigError("L2", f"{sha256!r} is no sha256", "give 64 hexadecimal digits, or the first 8 at least")
    checksum = Checksum("sha256", sha256.lower()) if sha256 else None
    if source.startswith("torchvision:"):
        return _torchvision(source, checksum, progress)
    if source.startswith("timm:"):
        return _timm(source, checksum, progress)
    if source.startswith("hf://"):
        parts = re.fullmatch(r"hf://([^/@]+/[^/@]+)/([^@]+)(?:@([^@]+))?", source)
        if parts is None:
            raise ConfigError("L2", f"{source!r} is no file of Hugging Face", "write hf://owner/name/file")
        source = f"{HUGGING_FACE}/{parts[1]}/resolve/{parts[3] or 'main'}/{parts[2]}"
    if source.startswith(("https://", "http://")):
        return Found(fetch(source, checksum or _in_name(source), progress), source)
    path = Path(source)
    if checksum and path.is_file() and not checksum.fits(path):
        raise WeightsError("C4", f"{path}: its sha256 does not begin with {checksum.digits}", "get the file again")
    return Found(path, path.name)


def _torchvision(name: str, checksum: Checksum | None, progress: Progress | None) -> Found:
    """`torchvision:NETWORK` or `torchvision:NETWORK.WEIGHTS`, as `torchvision.models.get_model_weights` has them."""
    from torchvision.models import get_model_weights

    theirs, _, which = name.partition(":")[2].partition(".")
    network, peer = _ours("torchvision", theirs)
    choices: Any = get_model_weights(theirs)
    if which and which not in choices.__members__:
        raise ConfigError(
            "L2", f"torchvision has no weights {which!r} of {theirs}", f"it has {', '.join(choices.__members__)}"
        )
    weights = choices[which] if which else choices.DEFAULT
    how = weights.transforms()
    return Found(
        fetch(weights.url, checksum or _in_name(weights.url), progress),
        weights.url,
        peer,
        network,
        _scaled_as(peer, Preprocess(size=how.crop_size[0], resize=how.resize_size[0], mean=tuple(how.mean),
                                    std=tuple(how.std), interpolation=how.interpolation.value)),
        tuple(weights.meta["categories"]),
    )  # fmt: skip


def _timm(name: str, checksum: Checksum | None, progress: Progress | None) -> Found:
    """`timm:NETWORK.TAG`, which is a repository of Hugging Face with that name."""
    repository = f"{HUGGING_FACE}/timm/{name.partition(':')[2]}/resolve/main"
    theirs = name.partition(":")[2].partition(".")[0]
    network, peer = _ours("timm", theirs)
    described = fetch(f"{repository}/config.json")
    try:
        config = json.loads(described.read_text("utf-8"))
        how = config["pretrained_cfg"]
        size = int(how["input_size"][1])
        preprocess = Preprocess(
            size=size,
            resize=math.floor(size / how["crop_pct"]),
            mean=tuple(how["mean"]),
            std=tuple(how["std"]),
            interpolation=how["interpolation"],
        )
        classes = tuple(config.get("label_names") or _imagenet(config["num_classes"]))
    except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError, AttributeError) as error:
        what = f"{described} does not say how {theirs} wants its images ({type(error).__name__})"
        raise WeightsError("X4", what, "give the weights' own file, and the preprocessing by flags") from None
    url = f"{repository}/model.safetensors"
    return Found(fetch(url, checksum, progress), url, peer, network, preprocess, classes, how.get("license"))


def _ours(library: str, theirs: str) -> tuple[str, Peer]:
    """Our network that is called so there, and the table for it."""
    known = {name: (ours, p) for p in PEERS if p.library == library for ours, name in p.networks.items()}
    if theirs not in known:
        what = f"no network of ours is the {theirs!r} of {library}"
        raise ConfigError("L2", what, f"there are {', '.join(sorted(known))}")
    return known[theirs]


def _scaled_as(peer: Peer, preprocess: Preprocess) -> Preprocess:
    """With the table's mean and standard deviation, where the library's network changes its input itself."""
    usual = Preprocess()
    if (peer.preprocess.mean, peer.preprocess.std) == (usual.mean, usual.std):
        return preprocess
    return replace(preprocess, mean=peer.preprocess.mean, std=peer.preprocess.std)


def _imagenet(count: int) -> tuple[str, ...]:
    """The names of ImageNet's thousand classes, if it is these."""
    from torchvision.models import ResNet18_Weights

    names = tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return names if count == len(names) else ()


def _in_name(url: str) -> Checksum | None:
    """The beginning of the sha256 that torchvision writes into names: `resnet18-f37072fd.pth`."""
    found = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", url)
    return Checksum("sha256", found[1]) if found else None
