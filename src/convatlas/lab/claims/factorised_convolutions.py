"""Inception's argument for taking large filters apart [arXiv:1512.00567, Sec. 3]."""

from fractions import Fraction
from functools import partial

import torch
from torch import nn

from ...tree import Concat, Net, classifier, conv_bn_act, cost
from ...zoo.inception_v2 import row_column
from ..experiment import Experiment, Fact, Finding, better
from ..pictures import BOXES, DOTS, dots, spread
from ..timing import race, times_as_long
from ..trials import Lab, values

SQUARE, TWO, SERIAL, PARALLEL = FORMS = ("5x5", "3x3, 3x3", "1x5, 5x1", "1x5 | 5x1")
MARGIN = 0.01  # of accuracy, that count as equal
C, SIDE = 64, 28  # of the maps that are timed


def block(form: str, c: int, n: int = 5) -> nn.Module:
    """Convolutions c -> c that take the place of one n x n, each with BatchNorm and ReLU."""
    if form == SQUARE:
        return conv_bn_act(c, c, n)
    if form == TWO:
        return nn.Sequential(*(conv_bn_act(c, c, 3) for _ in range(n // 2)))
    if form == SERIAL:
        return row_column(c, c, n)
    return Concat(row=conv_bn_act(c, c // 2, (1, n)), column=conv_bn_act(c, c // 2, (n, 1)))


def network(form: str, arch) -> Net:
    """Two stages of 16 channels, of which each has two blocks."""
    c = 16
    stages = [nn.Sequential(*(block(form, c) for _ in range(2))) for _ in range(2)]
    return Net({"stem": conv_bn_act(arch.in_channels, c, 3), "stage1": stages[0], "pool": nn.MaxPool2d(2),
                "stage2": stages[1], "head": classifier(c, arch.classes)})  # fmt: skip


def seen(net: nn.Module, c: int) -> int:
    """How many input pixels the middle output pixel depends on, by autograd."""
    x = torch.randn(1, c, 15, 15, generator=torch.Generator().manual_seed(0)).abs().requires_grad_()
    for p in net.parameters():
        nn.init.constant_(p, 0.1) if p.dim() == 4 else None  # positive: no ReLU is dead
    net.eval()(x)[0, :, 7, 7].sum().backward()
    assert x.grad is not None
    return int((x.grad.abs().sum((0, 1)) > 0).sum())


def weights(form: str, n: int = 5) -> int:
    """Those of the convolutions, with 64 channels."""
    return cost(block(form, C, n), 15, C).total("weights")


def exact() -> list[Fact]:
    square = cost(block(SQUARE, C), 15, C)
    folded = {form: cost(block(form, C), 15, C) for form in FORMS}
    return [
        Fact("receptive field of each form, by the fold", [each.rows[-1].rf for each in folded.values()], [(5, 5)] * 4),
        Fact("input pixels seen, by gradients: a 1x5 beside a 5x1 sees but a cross",
             [seen(block(form, C), C) for form in FORMS], [25, 25, 25, 9]),
        Fact("weights of two 3x3 for one 5x5", str(Fraction(weights(TWO), weights(SQUARE))), "18/25"),
        *(Fact(f"weights of 1x{n} and {n}x1 for one {n}x{n}: serial, parallel with half the outputs each",
               [str(Fraction(weights(form, n), weights(SQUARE, n))) for form in (SERIAL, PARALLEL)],
               [f"2/{n}", f"1/{n}"]) for n in (3, 5, 7)),
        Fact("multiply-adds of each form for those of the 5x5",
             [str(Fraction(each.macs, square.macs)) for each in folded.values()], ["1", "18/25", "2/5", "1/5"]),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    images = torch.randn(1, C, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    times = race({form: block(form, C) for form in FORMS}, images, seconds=2)
    arms = {form: lab.built(form, partial(network, form)) for form in FORMS}
    return {
        "accuracy": values(lab.trials(arms), "accuracy"),
        "ms": {form: [round(1000 * t, 3) for t in taken[:200]] for form, taken in times.items()},
    }


def judge(measured: dict) -> list[Finding]:
    accuracy, ms = measured["accuracy"], measured["ms"]
    return [
        *(better(f"test accuracy, {form} less {SQUARE}, a point allowed", accuracy[form], accuracy[SQUARE], -MARGIN)
          for form in FORMS[1:]),
        *(times_as_long(f"time of {SQUARE} for that of {form}", ms[SQUARE], ms[form]) for form in FORMS[1:]),
    ]  # fmt: skip


def draw(figure, measured: dict) -> None:
    left, right = figure.subplots(1, 2)
    dots(left, measured["accuracy"], "test accuracy", percent=True)
    left.set_title("Small networks of each form")
    spread(right, measured["ms"], f"ms of processor time, {C} channels, {SIDE}x{SIDE}")
    right.set_title("One block")


EXPERIMENT = Experiment(
    number=3,
    name="factorised-convolutions",
    claim="A 5x5 convolution can be two 3x3, with 18/25 of the weights, and an n x n a 1xn and an nx1, with 2/n of them"
    " one behind the other and 1/n beside each other: no less accurate, to a point, and faster.",
    notes="比如卷积核分解，把 5x5 分成两个 3x3，并且把 3x3 分解成 1x3 和 3x1(有并联和级联两种分法)，"
    "在 v2 中三种结构都有用到。",
    source="arXiv:1512.00567, Sec. 3.1 and 3.2, Fig. 3 and 7",
    refuted_if="the counts differ, or the one large filter is more accurate by over a point, or faster",
    reading=f"{DOTS} {BOXES}",
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
)
