"""Ours against others on the same weights and images, in one run."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ...data import Preprocess
from ...errors import ConfigError, ResourceError, WeightsError
from ...weights import Bundle
from ...zoo import Arch
from ..choice import builders, in_parts, measure
from ..engine import Engine
from ..export import example
from ..timing import turns
from . import limit, peers

AGAINST = (*peers.LIBRARIES, *peers.RUNTIMES)
PLAIN = "plain"  # our tree, as it is built
CLOSE = 1e-3  # of the largest logit
LEAST = 7  # turns

Note = Callable[[str], object]


@dataclass(frozen=True)
class Contestants:
    """Who is compared, each a function of images that makes logits: our engines on uint8 (N, size, size, 3), the others
    on float32 (N, 3, size, size) that are normalised already.
    """

    ours: dict[str, Engine]
    others: dict[str, peers.Run]


def fresh(arch: Arch) -> Bundle:
    """A network that nobody has trained: random weights, seed 0, BatchNorm's statistics those of noise."""
    torch.manual_seed(0)
    net = arch.build()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    bundle = Bundle(arch, {}, tuple(map(str, range(arch.classes))), Preprocess(arch.size, arch.size))
    with torch.no_grad():
        net.train()(normalised(bundle, example(bundle, 4)))
    return Bundle(arch, net.eval().state_dict(), bundle.classes, bundle.preprocess)


def contestants(bundle: Bundle, against: Sequence[str], threads: int, note: Note = print) -> Contestants:
    """All that are asked for and there; `note` is told of the others.

    The runtimes run the network of the first of the libraries that has it, or where none has, our tree as it is built.
    Raises WeightsError X2 if one of them computes other logits, ConfigError L2 if nobody is left to compare with.
    """
    ours: dict[str, Engine] = {}
    for name, build in builders(bundle, threads).items():
        try:
            ours[name] = build()
        except ResourceError as error:
            note(f"{name} is left out: {error.what}")
    nets = {}
    for name in peers.LIBRARIES:
        try:
            found = peers.network(bundle, name)
        except ResourceError as error:
            note(f"{name} is left out: {error.what}")
            continue
        if found is not None:
            nets[name] = found
        elif name in against:
            note(f"{name} is left out: it has no {bundle.spec.name}")
    if not nets:  # no library has it: then as it was built, before anything was made of it
        nets = {PLAIN: bundle.build()}
    images = normalised(bundle, example(bundle, 2)).numpy()
    others = {name: peers.eager(net) for name, net in nets.items() if name in (*against, PLAIN)}
    first = next(iter(nets))
    for runtime in peers.RUNTIMES:
        if runtime in against:
            try:
                others[f"{first} {runtime}"] = peers.plain(nets[first], runtime, images, threads)
            except ResourceError as error:
                note(f"{runtime} is left out: {error.what}")
    if not others:
        raise ConfigError("L2", f"nobody to compare with of {', '.join(against)}", "install one of them")
    found = Contestants(ours, others)
    agree(found, bundle)
    return found


def normalised(bundle: Bundle, pixels: torch.Tensor) -> torch.Tensor:
    """Uint8 (N, size, size, 3) -> what the others take."""
    return bundle.preprocess.normalize(pixels.permute(0, 3, 1, 2)).contiguous()


def agree(found: Contestants, bundle: Bundle) -> None:
    """Raise WeightsError X2 if one computes other logits than the bundle."""
    pixels = example(bundle, 4)
    images = normalised(bundle, pixels)
    with torch.inference_mode():
        wanted = bundle.build()(images).numpy()
    answers = {name: engine.predict(pixels.numpy()) for name, engine in found.ours.items()}
    answers |= {name: run(images.numpy()) for name, run in found.others.items()}
    for name, logits in answers.items():
        difference = float(np.abs(logits - wanted).max())
        if not difference <= CLOSE * max(1.0, float(np.abs(wanted).max())):
            what = f"{name} computes other logits: by up to {difference:.2g}"
            raise WeightsError("X2", what, "there is nothing to compare; please report it with the network's name")


def compare(bundle: Bundle, found: Contestants, batch: int, seconds: float, bound: limit.Limit) -> dict[str, Any]:
    """One row: the median milliseconds of a batch with each, the ratios of the others' time to that of our fastest
    engine, turn by turn, with their quartiles, and our time over the machine's limit.

    As `auto` does, it tries the fastest engine on parts of the batch too.
    """
    pixels = example(bundle, batch)
    images = normalised(bundle, pixels).numpy()
    whole = measure(found.ours, batch)
    first = min(whole, key=whole.__getitem__)
    engines = found.ours | in_parts(first, found.ours[first], batch)
    runs: dict[str, Callable[[], object]] = {
        f"ours {name}": partial(engine.predict, pixels.numpy()) for name, engine in engines.items()
    }
    runs |= {name: partial(run, images) for name, run in found.others.items()}
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    taken = turns(runs, seconds * len(runs), least=LEAST, clock=clock)
    best = min((f"ours {name}" for name in engines), key=lambda name: statistics.median(taken[name]))
    ratios = {name: [a / b for a, b in zip(taken[name], taken[best], strict=True)] for name in found.others}
    least = bound.seconds(bundle.spec, batch)
    return {
        "network": bundle.spec.name,
        "batch": batch,
        "threads": threads,
        "precision": "fp32",
        "engine": best.removeprefix("ours "),
        "ms": {name: round(1000 * statistics.median(times), 3) for name, times in taken.items()},
        "ms_spread": {name: _spread([1000 * t for t in times]) for name, times in taken.items()},
        "ratio": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "spread": {name: _spread(values) for name, values in ratios.items()},
        "limit_ms": round(1000 * least, 3),
        "over_limit": round(statistics.median(taken[best]) / least, 2),
    }


def _spread(values: Sequence[float]) -> list[float]:
    """The first and third quartile."""
    low, _, high = statistics.quantiles(values, n=4)
    return [round(low, 3), round(high, 3)]
