"""The engine that is fastest on this machine, chosen by measurement; the choice is kept for the next time."""

import contextlib
import hashlib
import json
import os
import platform
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from .. import __version__, files
from ..errors import ResourceError
from ..weights import Bundle
from ..weights.bundle import model_file
from ..weights.store import read_bytes
from .engine import OPENERS, Engine, in_onnxruntime, in_openvino, of_bundle
from .export import to_onnx
from .timing import turns

LIBRARIES = ("torch", "onnxruntime", "openvino")
SECONDS = 1.0  # to measure an engine
TURNS = 3  # at least, of each
BY = " by "  # `onnxruntime by 2`: called for two images at a time
NAME = rf"\w+({BY}[124])?"

Builders = dict[str, Callable[[], Engine]]


@dataclass(frozen=True)
class Choice:
    """The chosen engine, the median seconds a batch took with each, and one line that says why."""

    engine: Engine
    seconds: dict[str, float]
    why: str


def auto(path: str | Path, *, batch: int = 1, threads: int | None = None) -> Choice:
    """The fastest engine for a bundle, a run's folder or an exported file, at so many images a call.

    The engines that are installed take turns on noise, for about a second each; then the fastest of them is tried on
    parts of the batch.  `torch.compile` is not among them: it
    takes a minute before the first answer.  What was measured is kept in the cache folder under the digest of the
    weights, the batch, the threads, the versions and the processor.  Raises what `open_engine` raises.
    """
    threads = threads or torch.get_num_threads()
    path = model_file(path)
    openers, digest = _of_file(path, threads) if path.suffix in FILES else _of_bundle(Bundle.load(path), threads)
    place = files.cache_folder() / "engines" / f"{_key(digest, batch, threads)}.json"
    seconds, built = _kept(place, openers), {}
    how = "measured before"
    if seconds is None:
        how, built = "measured now", _installed(openers)
        seconds = measure(built, batch)
        first = min(seconds, key=seconds.__getitem__)
        seconds |= measure(in_parts(first, built[first], batch), batch)
        with contextlib.suppress(ResourceError):  # a cache folder that cannot be written costs a second, no answer
            files.write_text(place, json.dumps(seconds))
    name = min(seconds, key=seconds.__getitem__)
    engine, _, images = name.partition(BY)
    rates = ", ".join(f"{other} {batch / s:,.1f}" for other, s in sorted(seconds.items(), key=lambda item: item[1]))
    why = f"engine {name}: {rates} images/s in batches of {batch} with {threads} threads ({how})"
    opened = built.get(engine) or openers[engine]()
    return Choice(in_calls(opened, int(images)) if images else opened, seconds, why)


def in_parts(name: str, engine: Engine, batch: int) -> dict[str, Engine]:
    """The engine, called for 1, 2 or 4 images of a batch at a time: the maps of so few may stay in the cache."""
    return {f"{name}{BY}{images}": in_calls(engine, images) for images in (1, 2, 4) if images < batch}


def in_calls(engine: Engine, images: int) -> Engine:
    """The engine, called for so many images at a time."""

    def run(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate([engine.run(pixels[i : i + images]) for i in range(0, len(pixels), images)])

    return replace(engine, run=run)


def measure(engines: dict[str, Engine], batch: int) -> dict[str, float]:
    """The median seconds that each takes for a batch, the engines taking turns so that all see the same neighbours."""
    if not engines:
        return {}
    size = next(iter(engines.values())).preprocess.size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    runs = {name: partial(engine.predict, pixels) for name, engine in engines.items()}
    taken = turns(runs, SECONDS * len(engines), least=TURNS)
    return {name: statistics.median(times) for name, times in taken.items()}


FILES = OPENERS.keys() - {".safetensors"}


def _of_file(path: Path, threads: int) -> tuple[Builders, str]:
    openers: Builders = {
        kind: lambda opener=opener: opener(path, threads) for kind, opener in OPENERS[path.suffix].items()
    }
    return openers, hashlib.sha256(read_bytes(path)).hexdigest()


def _of_bundle(bundle: Bundle, threads: int) -> tuple[Builders, str]:
    return builders(bundle, threads), bundle.digest()


def builders(bundle: Bundle, threads: int) -> Builders:
    """What opens a bundle with each engine; each runtime gets the network in its own form."""
    return {
        "torch": lambda: of_bundle(bundle),
        "onnxruntime": lambda: in_onnxruntime(to_onnx(bundle), bundle.spec.name, threads),
        "openvino": lambda: in_openvino(to_onnx(bundle, "openvino"), b"", bundle.spec.name, threads),
    }


def _installed(builders: Builders) -> dict[str, Engine]:
    """The engines whose libraries are there; if none is, the error that names the first."""
    built, missing = {}, []
    for name, build in builders.items():
        try:
            built[name] = build()
        except ResourceError as error:
            missing.append(error)
    if not built:
        raise missing[0]
    return built


def _kept(place: Path, builders: Builders) -> dict[str, float] | None:
    """What was measured before; None if nothing was, or the file is not one that `auto` writes."""
    try:
        seconds = {str(name): float(value) for name, value in json.loads(place.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    known = seconds and all(re.fullmatch(NAME, name) and name.split(BY)[0] in builders for name in seconds)
    return seconds if known and min(seconds.values()) > 0 else None


def _key(digest: str, batch: int, threads: int) -> str:
    """Everything that may change which engine is the fastest."""
    facts = [digest, batch, threads, __version__, *map(_version, LIBRARIES), _processor(), os.cpu_count()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name: Linux keeps it in /proc/cpuinfo only."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
