"""Degradation [arXiv:1512.03385, Sec. 1 and 4.2]: deeper plain networks fit worse, though they could fit as well."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...train.evaluate import predict
from ...tree import Net, cost
from ...zoo import create
from ..experiment import Experiment, Fact, better
from ..pictures import CURVES, curves
from ..trials import Lab, values

SHORT, FULL = (8, 20), (20, 32, 56)  # layers
NARROW, WIDTH = 4, 16  # channels of the first stage; the paper's are 16
SHORTCUTS = {"plain": None, "residual": "A"}
NO_WORSE = -0.01  # a point


def network(build: Callable[..., Any], kind: str, layers: int, width: int = NARROW) -> Any:
    """What `build` makes of the CIFAR network of 6n + 2 layers, with shortcuts or without."""
    n = (layers - 2) // 6
    return build("resnet20", depths=(n, n, n), width=width, shortcut=SHORTCUTS[kind])


@torch.no_grad()
def contain(deep: Net, shallow: Net) -> Net:
    """Make a plain network compute what a shallower one does: the same units, and behind them the identity."""
    deep.load_state_dict(shallow.state_dict(), strict=False)
    for name in ("stage1", "stage2", "stage3"):
        known = len(list(shallow.get_submodule(name).children()))
        for unit in list(deep.get_submodule(name).children())[known:]:
            be_identity(unit)
    return deep


def be_identity(unit: nn.Module) -> None:
    """Convolutions that copy, BatchNorms that do nothing; its ReLUs change nothing that a ReLU has put out."""
    for m in unit.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.dirac_(m.weight)
        elif isinstance(m, nn.BatchNorm2d) and m.running_var is not None:
            m.reset_parameters()
            m.running_var.sub_(m.eps)


def distance(deep: int, shallow: int) -> float:
    """The greatest difference between the logits of a plain network and those of a deeper one that contains it."""
    torch.manual_seed(0)
    small, large = (network(create, "plain", layers).double() for layers in (shallow, deep))
    images = torch.randn(32, 3, 32, 32, dtype=torch.float64)
    small(images)  # running statistics of its own
    contain(large, small)
    return (small.eval()(images) - large.eval()(images)).abs().max().item()


def exact() -> list[Fact]:
    params = {kind: [cost(network(create, kind, layers, WIDTH), 32).params for layers in (20, 32, 56)]
              for kind in SHORTCUTS}  # fmt: skip
    return [
        Fact("plain networks of 20, 32, 56 layers that compute what one of 8 does, to 1e-9 of a logit",
             [layers for layers in (20, 32, 56) if distance(layers, 8) < 1e-9], [20, 32, 56]),
        Fact("parameters of plain networks of 20, 32, 56 layers", params["plain"], [269_722, 464_154, 853_018]),
        Fact("parameters with shortcuts: the same", params["residual"], params["plain"]),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    depths, width = (FULL, WIDTH) if lab.full else (SHORT, NARROW)
    pre, train = lab.pre, lab.splits.train
    some = train.subset(range(0, len(train), math.ceil(len(train) / 1000)))

    def look(net, predictions):
        """The errors of the trained network, in eval mode, on training and on test images."""
        return {"train_error": 1 - predict(net, pre, some).accuracy, "test_error": 1 - predictions.accuracy}

    arms = {f"{kind} {layers}": network(lab.spec, kind, layers, width) for layers in depths for kind in SHORTCUTS}
    trials = lab.trials(arms, look)
    return {"depths": depths, **{error: values(trials, error) for error in ("train_error", "test_error")}}


def judge(measured: dict) -> list:
    low, high = min(measured["depths"]), max(measured["depths"])
    findings = []
    for what in ("train_error", "test_error"):
        of, name = measured[what], what.replace("_", " ")
        findings += [
            better(f"{name}, plain {high} less plain {low}", of[f"plain {high}"], of[f"plain {low}"]),
            better(f"{name}, residual {low} less residual {high}, no worse than by a point",
                   of[f"residual {low}"], of[f"residual {high}"], NO_WORSE),
        ]  # fmt: skip
    return findings


def draw(figure, measured: dict) -> None:
    both, depths = figure.subplots(1, 2, sharey=True), measured["depths"]
    for axes, part in zip(both, ("train", "test"), strict=True):
        errors = measured[f"{part}_error"]
        lines = {kind: list(zip(*(errors[f"{kind} {d}"] for d in depths), strict=True)) for kind in SHORTCUTS}
        curves(axes, lines, depths)
        axes.set(xlabel="layers", xticks=depths, title={"train": "Training images", "test": "Test images"}[part])
    both[0].set(ylabel="error", ylim=(0, None))
    both[0].yaxis.set_major_formatter("{x:.0%}")
    both[0].legend()


EXPERIMENT = Experiment(
    number=5,
    name="degradation",
    claim="Plain networks get worse with depth, on the training images too, although a deeper one contains the"
    " shallower one; residual networks do not.",
    notes="很深的网络的前几层可以被一个浅网络(功能完全一致)代替，其它层就只需要实现恒等映射(identity map)",
    source="arXiv:1512.03385, Sec. 1, Fig. 1 and Fig. 6",
    refuted_if="a deeper plain network cannot compute what a shallower one does, or does not get worse, or residual"
    " networks get worse by more than a point",
    reading=CURVES,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    starred=True,
)
