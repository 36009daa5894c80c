"""MobileNet's maps shrink in depthwise convolutions of stride 2; no layer pools [arXiv:1704.04861, Table 1]."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import nn

from ...tree import Cost, Net, cost
from ...zoo import Arch, spec
from ..experiment import Experiment, Fact, Finding, better
from ..pictures import BOXES, DOTS, dots, spread
from ..timing import race, times_as_long
from ..trials import Lab, values

POOLS: dict[str, Callable[[int], nn.Module] | None] = {"stride 2": None, "max pool": nn.MaxPool2d,
                                                       "average pool": nn.AvgPool2d}  # fmt: skip
MARGIN = 0.01  # of accuracy, that count as equal
TIMED = {"width": 0.25, "size": 224}


def pooled(arch: Arch, pool: Callable[[int], nn.Module] | None) -> Net:
    """A MobileNet v1 whose depthwise convolutions of stride 2 have stride 1, each with a pooling 2x2 behind it."""
    net = arch.build()
    if pool:
        for layer in strided(net):
            layer.get_submodule("conv").stride = (1, 1)  # type: ignore[assignment]
            layer.append(pool(2))
    return net


def strided(net: Net) -> list[nn.Sequential]:
    """Its depthwise layers (convolution, BatchNorm, ReLU) of stride 2."""
    layers = [m for path, m in net.named_modules() if path.endswith(".depthwise") and isinstance(m, nn.Sequential)]
    return [m for m in layers if m.get_submodule("conv").stride == (2, 2)]


def depthwise(network: Cost, stages: range) -> int:
    """The multiply-adds of the depthwise convolutions that shrink the maps: the first of some stages."""
    return sum(row.macs for row in network.rows if row.path in {f"stage{i}.0.depthwise.conv" for i in stages})


def exact() -> list[Fact]:
    arch = spec("mobilenet_v1")
    with torch.device("meta"):
        costs = {name: cost(pooled(arch, pool)) for name, pool in POOLS.items()}
    whole, pooling = costs["stride 2"], costs["max pool"]
    shapes = {name: [out.shape for out in each.parts.values()] for name, each in costs.items()}
    return [
        Fact("layers of MobileNet v1 that pool", [row.path for row in whole.rows if "Pool" in row.kind], ["head.pool"]),
        Fact("its depthwise convolutions of stride 2", len(strided(arch.skeleton())), 4),
        Fact("outputs of all stages with pooling in their place: the same",
             [shapes[name] == shapes["stride 2"] for name in ("max pool", "average pool")], [True, True]),
        Fact("multiply-adds of these four, of those before pooling",
             str(Fraction(depthwise(whole, range(2, 6)), depthwise(pooling, range(2, 6)))), "1/4"),
        Fact("parameters more with pooling", pooling.params - whole.params, 0),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    small = lab.spec("mobilenet_v1.cifar", width=0.25, depths=(1, 1, 1, 1, 1))
    arms = {name: lab.built(name, lambda _, pool=pool: pooled(small, pool)) for name, pool in POOLS.items()}
    images = torch.randn(1, 3, TIMED["size"], TIMED["size"], generator=torch.Generator().manual_seed(0))
    nets = {name: pooled(spec("mobilenet_v1", **TIMED), pool) for name, pool in POOLS.items()}
    times = race(nets, images, seconds=4)
    return {
        "accuracy": values(lab.trials(arms), "accuracy"),
        "ms": {name: [round(1000 * t, 3) for t in taken] for name, taken in times.items()},
    }


def judge(measured: dict) -> list[Finding]:
    accuracy, ms = measured["accuracy"], measured["ms"]
    pools = [name for name, pool in POOLS.items() if pool]
    return [
        *(better(f"test accuracy, stride 2 less {name}, a point allowed", accuracy["stride 2"], accuracy[name], -MARGIN)
          for name in pools),
        *(times_as_long(f"time with {name} for that with stride 2", ms[name], ms["stride 2"]) for name in pools),
    ]  # fmt: skip


def draw(figure, measured: dict) -> None:
    left, right = figure.subplots(1, 2)
    dots(left, measured["accuracy"], "test accuracy", percent=True)
    left.set_title("A small MobileNet, trained")
    spread(right, measured["ms"], "ms of processor time an image")
    right.set_title("MobileNet v1 0.25, 224x224")


EXPERIMENT = Experiment(
    number=13,
    name="strided-depthwise",
    claim="A stride of 2 in the depthwise convolution replaces pooling: it is no less accurate, to a point, and"
    " faster.",
    notes="另外 MobileNet 中没有采用 Pooling 层，而是将 Depth-wise Conv 的 stride 设为 2。",
    source="arXiv:1704.04861, Sec. 3.2 and Table 1",
    refuted_if="a layer pools, the maps differ, or pooling is more accurate by over a point, or faster",
    reading=f"{DOTS} {BOXES}",
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
)
