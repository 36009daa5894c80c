"""Why MobileNet v2's bottlenecks are linear [arXiv:1801.04381, Sec. 3.2 and 3.3, Fig. 1 and 6a]."""

import statistics
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ...tree import Net, classifier
from ...zoo import init, spec
from ...zoo.mobilenet_v2 import PAPER, Unit, relu6
from ..experiment import Experiment, Fact, Finding, better
from ..pictures import DOTS, PALETTE, dots
from ..trials import Lab, values

DIMENSIONS = (2, 3, 5, 15, 30)  # of Fig. 1
MATRICES = 100
NARROW, WIDE, INNER = 4, 32, 64  # channels of the small networks' bottlenecks, and inside their units
ARMS = {f"{name}, {kind}": (width, kind == "linear") for name, width in (("narrow", NARROW), ("wide", WIDE))
        for kind in ("linear", "ReLU6")}  # fmt: skip


def spiral(points: int = 200) -> Tensor:
    """Two turns and a half: (2, points)."""
    t = torch.linspace(0.1, 1, points, dtype=torch.float64)
    return t * torch.stack([torch.cos(5 * torch.pi * t), torch.sin(5 * torch.pi * t)])


def circle(points: int = 3600) -> Tensor:
    """Directions, each with its opposite: (2, points)."""
    angles = torch.arange(points // 2, dtype=torch.float64) * (2 * torch.pi / points)
    half = torch.stack([torch.cos(angles), torch.sin(angles)])
    return torch.cat([half, -half], 1)


def matrix(n: int, seed: int) -> Tensor:
    """A random embedding of the plane in n dimensions: (n, 2)."""
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def back(x: Tensor, t: Tensor, relu: bool = True) -> Tensor:
    """T^+ ReLU(T x): points (2, N) embedded, and projected back."""
    y = t @ x
    return torch.linalg.pinv(t) @ (y.relu() if relu else y)


def error(x: Tensor, y: Tensor) -> float:
    """What y lacks of x, relative, at y's best scale (ReLU halves what it lets through)."""
    scale = (x * y).sum() / y.square().sum().clamp(min=1e-30)
    return float((x - scale * y).norm() / x.norm())


def active(x: Tensor, t: Tensor) -> Tensor:
    """How many dimensions of T x the ReLU lets through, for each point: with two the plane's point can be told."""
    return (t @ x > 0).sum(0)


def lost(x: Tensor, t: Tensor) -> float:
    """The share of points that cannot be told from others: fewer than two dimensions are left of them."""
    return float((active(x, t) < 2).double().mean())


def exact() -> list[Fact]:
    x, directions = spiral(), circle()
    two, three = ([matrix(n, seed) for seed in range(20)] for n in (2, 3))
    linear = max(error(x, back(x, matrix(n, seed), relu=False)) for n in DIMENSIONS for seed in range(20))
    v2 = spec("mobilenet_v2").skeleton()
    units = [unit for stage in range(1, 8) for unit in v2.get_submodule(f"stage{stage}").children()]
    ends = [list(unit.get_submodule("body").modules())[-1] for unit in units]
    return [
        Fact("without ReLU the spiral comes back, from any dimension", linear < 1e-6, True),
        Fact("n = 2: as many directions collapse into 0 as survive, for 20 matrices",
             sum(int((active(directions, t) == 0).sum() == (active(directions, t) == 2).sum()) for t in two), 20),
        Fact("n = 2: at least half of all directions are lost", min(lost(directions, t) for t in two) >= 0.5, True),
        Fact("n = 3: just half of all directions are lost, with any matrix",
             sorted({lost(directions, t) for t in three}), [0.5]),
        Fact("MobileNet v2's units that end without activation, of 17",
             sum(isinstance(layer, nn.BatchNorm2d) for layer in ends), 17),
    ]  # fmt: skip


def network(width: int, linear: bool, arch) -> Net:
    """Units of MobileNet v2, three stages, all with the same bottleneck and the same width inside."""
    family, stem = replace(PAPER, linear=linear), 16
    units = [
        Unit(1, stem, stem, width, 1),
        *(Unit(i, width, INNER, width, s) for i, s in ((2, 2), (2, 1), (3, 2), (3, 1))),
    ]
    parts = {"stem": relu6(arch.in_channels, stem, 3, stride=2), **{f"stage{i}": nn.Sequential() for i in (1, 2, 3)}}
    for unit in units:
        parts[f"stage{unit.stage}"].append(family.module(unit, None))
    return init.truncated(Net(parts | {"conv": relu6(width, 128), "head": classifier(128, arch.classes)}), 0.09)


def measure(lab: Lab) -> dict:
    x = spiral()
    ts = {n: [matrix(n, seed) for seed in range(MATRICES)] for n in DIMENSIONS}
    arms = {name: lab.built(name, partial(network, *how)) for name, how in ARMS.items()}
    return {
        "back": {n: [[round(v, 3) for v in row] for row in back(x, of_n[0]).tolist()] for n, of_n in ts.items()},
        "error": {n: [round(error(x, back(x, t)), 4) for t in of_n] for n, of_n in ts.items()},
        "lost": {n: [round(lost(x, t), 4) for t in of_n] for n, of_n in ts.items()},
        "accuracy": values(lab.trials(arms), "accuracy"),
    }


def judge(measured: dict) -> list[Finding]:
    error, accuracy = measured["error"], measured["accuracy"]
    narrow, wide = ([a - b for a, b in zip(accuracy[f"{w}, linear"], accuracy[f"{w}, ReLU6"], strict=True)]
                    for w in ("narrow", "wide"))  # fmt: skip
    return [
        better("relative error of the spiral, 2 dimensions less 30", error["2"], error["30"]),
        better("test accuracy, linear less ReLU6, narrow bottlenecks", accuracy["narrow, linear"],
               accuracy["narrow, ReLU6"]),
        better("what linear gains in narrow bottlenecks, less in wide ones", narrow, wide),
    ]  # fmt: skip


def draw(figure, measured: dict) -> None:
    panels = ["input", *(f"n = {n}" for n in DIMENSIONS)]
    axes = figure.subplot_mosaic([panels, ["error"] * 3 + ["accuracy"] * 3], height_ratios=(1, 1.5))
    x = spiral()
    for panel, points in zip(panels, [x.tolist(), *measured["back"].values()], strict=True):
        axes[panel].scatter(*points, c=range(x.shape[1]), cmap="cividis", s=3)
        axes[panel].set(xticks=[], yticks=[])
        axes[panel].margins(0.12)
        axes[panel].set_title(panel, size=9)
    for label, name, colour in (("error, relative", "error", PALETTE[0]), ("points lost", "lost", PALETTE[1])):
        low, middle, high = zip(*map(statistics.quantiles, measured[name].values()), strict=True)
        axes["error"].plot(DIMENSIONS, middle, "o-", color=colour, label=label)
        axes["error"].fill_between(DIMENSIONS, low, high, color=colour, alpha=0.2, linewidth=0)
    axes["error"].set_xscale("log")
    axes["error"].set_xticks(DIMENSIONS, [str(n) for n in DIMENSIONS])
    axes["error"].minorticks_off()
    axes["error"].set(xlabel="dimensions n", ylim=(0, 1), title=f"ReLU there, {MATRICES} random embeddings")
    axes["error"].legend()
    dots(axes["accuracy"], measured["accuracy"], "test accuracy", percent=True)
    axes["accuracy"].set_title("Bottlenecks of small networks")
    axes["accuracy"].tick_params(axis="x", labelsize=7)


EXPERIMENT = Experiment(
    number=14,
    name="linear-bottleneck",
    claim="ReLU destroys information in a narrow space and keeps it in a wide one, so a narrow bottleneck is better"
    " linear.",
    notes="作者认为激活函数在高维空间能够有效的增加非线性，而在低维空间时则会破坏特征，不如线性的效果好。",
    source="arXiv:1801.04381, Sec. 3.2, Fig. 1 and 6a",
    refuted_if="the spiral comes back from 2 dimensions as well as from 30, or narrow bottlenecks with ReLU6 are more"
    " accurate, or lose no more by it than wide ones",
    reading="Above: one of the embeddings each; below them, medians and quartiles over all. " + DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    size=(8.4, 4.8),
    starred=True,
)
