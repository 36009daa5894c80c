"""Squeeze-and-Excitation: what it costs, what it brings, and what its gates say [arXiv:1709.01507]."""

import statistics
from dataclasses import replace

import torch
from torch import Tensor

from ...tree import SE, cost, features
from ...zoo import Arch, spec
from ..experiment import Experiment, Fact, better
from ..pictures import DOTS, dots, heat
from ..trials import Lab, values

R4 = SE(4, bias=False)  # of the 8 channels of the first stage, 16 would leave none
BODIES = {  # a registered network, fields that make it small, and where it has SE
    "ResNet-8": ("resnet20", {"depths": (1, 1, 1), "width": 8}, R4),
    "plain-8": ("plain20", {"depths": (1, 1, 1), "width": 8}, replace(R4, at="stage*.*.body")),
    "MobileNet": ("mobilenet_v1.cifar", {"depths": (1, 1, 1, 1, 1), "width": 0.125}, R4),
}
PLACES = {  # in the units of ResNet-8, beside the usual one: before the addition
    "SE-PRE": replace(R4, first=True),
    "SE-POST": replace(R4, at="stage*.*"),
    "SE-Identity": replace(R4, at="stage*.*.res.skip"),
}
USUAL = "SE-ResNet-8"
FIRST, LAST = "stage1.0.res.body.se.gate", "stage3.0.res.body.se.gate"
RATIOS = (4, 8, 16, 32)
STAGES = ((3, 256), (4, 512), (6, 1024), (3, 2048))  # of ResNet-50: units, and the channels that they put out


def exact() -> list[Fact]:
    plain, one = (cost(spec(name).skeleton()) for name in ("resnet50", "se_resnet50.single_fc"))
    added = [cost(spec("se_resnet50", se=SE(r, bias=False)).skeleton()) for r in RATIOS]
    by_formula = [sum(n * 2 * c * c // r for n, c in STAGES) for r in RATIOS]
    r16 = added[RATIOS.index(16)]
    return [
        Fact(f"parameters that SE adds to ResNet-50 at r = {RATIOS}: sum of 2 C^2 / r",
             [c.params - plain.params for c in added], by_formula),
        Fact("MACs that it adds: as many, for it works on one number a channel",
             [c.macs - plain.macs for c in added], by_formula),
        Fact("parameters of SE-ResNet-50 at r = 16", r16.params, 28_071_976),
        Fact("MACs that it adds at r = 16, in %", round(100 * (r16.macs / plain.macs - 1), 2), 0.07),
        Fact("parameters that one layer of C x C would add instead: sum of C^2",
             one.params - plain.params, sum(n * c * c for n, c in STAGES)),
    ]  # fmt: skip


def networks(lab: Lab) -> dict[str, Arch]:
    """Every body without and with SE and, at the short budget, a ResNet with SE in other places."""
    arms = {}
    for name, (base, fields, se) in BODIES.items():
        arms |= {name: lab.spec(base, **fields), f"SE-{name}": lab.spec(base, **fields, se=se)}
    if lab.full:  # six networks are what it can cost
        return arms
    return arms | {name: replace(arms["ResNet-8"], se=se) for name, se in PLACES.items()}


def by_class(gates: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """The mean gates (classes, C) of each class, and the share of the gates' variance that the class explains."""
    means = torch.stack([gates[labels == label].mean(0) for label in labels.unique()])
    explained = (means[labels.unique(return_inverse=True)[1]] - gates.mean(0)).square().sum()
    return means, (explained / (gates - gates.mean(0)).square().sum()).item()


def measure(lab: Lab) -> dict:
    images, labels = lab.batch(512)

    def look(net, predictions):
        """What the gates of the first and the last unit say about the images of each class."""
        if LAST not in dict(net.named_modules()):
            return {}
        with torch.inference_mode():
            gates = features(net, [FIRST, LAST])(images)
        seen = {}
        for place, name in (("first", FIRST), ("last", LAST)):
            means, share = by_class(gates[name].flatten(1), labels)
            seen[place] = {"means": [[round(v, 3) for v in row] for row in means.tolist()], "share": round(share, 4)}
        return seen

    trials = lab.trials(networks(lab), look)
    return {
        "accuracy": values(trials, "accuracy"),
        "share": {place: [trial[place]["share"] for trial in trials[USUAL]] for place in ("first", "last")},
        "means": {place: trials[USUAL][0][place]["means"] for place in ("first", "last")},
        "classes": [lab.splits.classes[label] for label in labels.unique().tolist()],
    }


def judge(measured: dict) -> list:
    accuracy, share = measured["accuracy"], measured["share"]
    findings = [
        better(f"test accuracy, SE-{name} less {name}", accuracy[f"SE-{name}"], accuracy[name]) for name in BODIES
    ]
    if "SE-POST" in accuracy:
        what = "test accuracy, SE before the addition less after it"
        findings.append(better(what, accuracy[USUAL], accuracy["SE-POST"]))
    what = "share of the gates' variance that the class explains, last unit less first"
    return [*findings, better(what, share["last"], share["first"])]


def draw(figure, measured: dict) -> None:
    left, *maps = figure.subplots(1, 3, width_ratios=(1.5, 1, 1.5))
    dots(left, measured["accuracy"], "test accuracy", percent=True)
    left.set_title("With and without SE")
    for axes, (place, means) in zip(maps, measured["means"].items(), strict=True):
        heat(figure, axes, means, "mean gate")
        explained = statistics.mean(measured["share"][place])
        axes.set(aspect="auto", xlabel=f"{len(means[0])} channels; the class explains {explained:.0%}",
                 title=f"Gates of the {place} unit")  # fmt: skip
        axes.set_yticks(range(len(means)), measured["classes"])
    maps[0].set_ylabel("class")


EXPERIMENT = Experiment(
    number=10,
    name="squeeze-excitation",
    claim="Squeeze-and-Excitation makes networks more accurate for 2 C^2 / r parameters a unit and hardly any MACs; its"
    " gates are much alike for all classes in early units and tell classes apart in late ones.",
    notes="对Channel之间的信息进行显式建模。通过网络根据 loss 函数去学习特征权重，使得有效的 feature map 权重大，"
    "而无效的小一些，从而使得模型精度更高。",
    source="arXiv:1709.01507, eq. 5, Tables 2, 3, 10 and 14, Sec. 7.2",
    refuted_if="the counts differ, a network is less accurate with SE, or the class explains early gates better",
    reading="The maps are of the first seed. " + DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    size=(10.0, 4.2),
    starred=True,
)
