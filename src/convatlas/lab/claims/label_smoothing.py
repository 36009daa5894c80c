"""Label smoothing [arXiv:1512.00567, Sec. 7]: a target that logits of finite size can meet."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...train.loss import total_loss
from ...train.recipe import Recipe
from ..experiment import Experiment, Fact, better
from ..few import few
from ..pictures import DOTS, PALETTE, dots
from ..trials import Lab, values

K, EPS = 10, 0.1
HARD, SMOOTH = "eps = 0", f"eps = {EPS}"
FEWER = 8  # one training image of so many is used: a network that fits all it is shown can become too sure


def gradient(logits: Sequence[float], eps: float) -> Tensor:
    """Of the library's loss by the logits (K,) of an image of class 0."""
    scores = torch.tensor([logits], requires_grad=True)
    total_loss(scores, {}, torch.tensor([0]), Recipe(label_smoothing=eps), None).backward()
    assert scores.grad is not None
    return scores.grad[0]


def target(eps: float) -> list[float]:
    """The distribution that the library's loss asks for: softmax(z) - dL/dz."""
    logits = torch.linspace(-1, 1, K)
    return [round(q, 6) + 0.0 for q in (logits.softmax(0) - gradient(logits.tolist(), eps)).tolist()]


def pull(gap: float, eps: float) -> float:
    """How strongly the loss pulls the right logit up where it is `gap` above the others, which are equal."""
    return -float(gradient([gap, *[0.0] * (K - 1)], eps)[0])


def best_gap(eps: float) -> float:
    """The gap at which it no longer pulls, by bisection."""
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if pull(middle, eps) > 0 else (low, middle)
    return low


def optimum(eps: float, classes: int) -> float:
    """The gap between logits whose softmax is the smoothed target."""
    return math.log((1 - eps + eps / classes) / (eps / classes))


def exact() -> list[Fact]:
    right, wrong = 1 - EPS + EPS / K, EPS / K
    return [
        Fact("target of the loss, K = 10, eps = 0: one-hot", target(0.0), [1.0] + [0.0] * (K - 1)),
        Fact("target at eps = 0.1: (1 - eps) + eps / K and eps / K", target(EPS), [right] + [wrong] * (K - 1)),
        Fact("gap of the logits at which the loss is least, eps = 0.1: log 91", round(best_gap(EPS), 3),
             round(optimum(EPS, K), 3)),
        Fact("gaps at which the loss still asks for a greater one, eps = 0",
             [gap for gap in (1, 2, 4, 8, 16) if pull(gap, 0.0) > 0], [1, 2, 4, 8, 16]),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    fewer, recipe = few(lab, FEWER)
    arch = lab.spec("resnet20", width=8)

    def look(net, predictions):
        """Confidence, the share of right answers by confidence, and the gap between the first logit and the others."""
        top = predictions.logits.max(1).values
        rest = (predictions.logits.sum(1) - top) / (predictions.logits.shape[1] - 1)
        counts = torch.histc((top - rest).clamp(max=20), bins=40, min=0, max=20)  # what is beyond is in the last bin
        return {
            "confidence": predictions.probabilities.max(1).values.mean().item(),
            "gap": (top - rest).mean().item(),
            "gaps": [round(v, 4) for v in (counts / counts.sum()).tolist()],
            "bins": [[n, round(sure, 4), round(right, 4)] for n, sure, right in predictions.calibration()],
        }

    trials = {
        arm: fewer.trials({arm: arch}, look, label_smoothing=eps, augment="none", **recipe)[arm]
        for arm, eps in ((HARD, 0.0), (SMOOTH, EPS))
    }
    quantities = ("accuracy", "confidence", "calibration_error", "gap", "gaps", "bins")
    return {
        "images": len(fewer.splits.train),
        "optimum": optimum(EPS, len(lab.splits.classes)),
        **{quantity: values(trials, quantity) for quantity in quantities},
    }


def judge(measured: dict) -> list:
    sure, right, error, gap = (measured[q] for q in ("confidence", "accuracy", "calibration_error", "gap"))
    return [
        better("confidence less accuracy, eps = 0 (there is over-confidence to prevent)", sure[HARD], right[HARD]),
        better("confidence, eps = 0 less eps = 0.1", sure[HARD], sure[SMOOTH]),
        better("gap of the logits, eps = 0 less eps = 0.1", gap[HARD], gap[SMOOTH]),
        better("expected calibration error, eps = 0 less eps = 0.1", error[HARD], error[SMOOTH]),
        better("test accuracy, eps = 0.1 less eps = 0, no worse than a point", right[SMOOTH], right[HARD], -0.01),
    ]  # fmt: skip


def draw(figure, measured: dict) -> None:
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 1.2))
    edges = [i / 2 for i in range(41)]
    for colour, arm in zip(PALETTE, (HARD, SMOOTH), strict=False):
        shares = [sum(column) / len(column) for column in zip(*measured["gaps"][arm], strict=True)]
        left.stairs(shares, edges, color=colour, fill=True, alpha=0.45, label=arm)
        points = [bin for bins in measured["bins"][arm] for bin in bins if bin[0]]
        images, sure, correct = zip(*points, strict=True)
        sizes = [4 + 200 * n / sum(images) * len(measured["bins"][arm]) for n in images]
        middle.scatter(sure, correct, sizes, color=colour, alpha=0.55, linewidth=0, label=arm)
    left.axvline(measured["optimum"], color=PALETTE[1], linestyle=":", linewidth=1.5, label="optimum at 0.1")
    left.set(xlabel="first logit less the mean of the others", ylabel="share of test images",
             title="Smoothing bounds the logits")  # fmt: skip
    left.legend(fontsize=8)
    middle.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    middle.annotate("too sure", (0.97, 0.03), ha="right", size=8, color="#666666")
    middle.annotate("not sure enough", (0.03, 0.94), size=8, color="#666666")
    middle.set(xlabel="confidence", ylabel="share of right answers", title="Are they as right as sure?",
               xlim=(0, 1.02), ylim=(0, 1.05))  # fmt: skip
    rows = {
        f"{name}, {arm}": measured[quantity][arm]
        for name, quantity in (("accuracy", "accuracy"), ("confidence", "confidence"), ("ECE", "calibration_error"))
        for arm in (HARD, SMOOTH)
    }
    dots(right, rows, "of the test images (ECE: calibration error)", percent=True, colours=2)
    right.set_title(f"Fitted to {measured['images']:,} images")


EXPERIMENT = Experiment(
    number=4,
    name="label-smoothing",
    claim="Label smoothing keeps a network from being over-confident: its logits stay apart by a finite amount, and its"
    " confidence is nearer to its accuracy, which does not fall.",
    notes="标签平滑指每个类都分配一些权重，而不是将全权重分配给 ground truth 标签，防止网络过于自信，减少过拟合。",
    source="arXiv:1512.00567, Sec. 7 and Table 3",
    refuted_if="the loss has no finite optimum, or without smoothing the network is not too sure, is better"
    " calibrated, or is more accurate by a point",
    reading="A disc is a bin of the confidence of a seed, larger the more images are in it. " + DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    size=(10.0, 3.4),
    starred=True,
)
