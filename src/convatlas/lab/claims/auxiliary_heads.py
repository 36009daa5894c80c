"""GoogLeNet's auxiliary classifiers [arXiv:1409.4842, Sec. 5].

Authors of it later saw no faster convergence early in the training, and took the heads for regularisers
[arXiv:1512.00567, Sec. 4].
"""

import copy
import math
import statistics
from functools import partial

import torch
from torch import Tensor, nn

from ...deploy.optimise import drop_dead
from ...train.loss import total_loss
from ...train.recipe import Recipe
from ...tree import Net, classifier, conv_act, cost, seq
from ...zoo import Arch, create, spec
from ...zoo.googlenet import AUX_ON, MODULES, aux_head, max_pool, module
from ...zoo.init import he
from ..experiment import Experiment, Fact, better
from ..few import few
from ..pictures import DOTS, PALETTE, curves, dots
from ..trials import Lab, values

NARROW = 8
ARMS = {"with heads": True, "without heads": False}
WITH, WITHOUT = ARMS
RECIPE = {"optimizer": "adamw", "lr": 0.003, "clip": 2.0}  # chosen without heads: there SGD learns little in 80 steps


def network(arch: Arch, heads: bool) -> Net:
    """The paper's network an eighth as wide, with one pool before its modules and without normalisation.

    From one seed, the weights outside the heads are the same with heads and without.
    """
    c = 192 // NARROW
    first = seq(reduce=conv_act(64 // NARROW, 64 // NARROW), conv=conv_act(64 // NARROW, c, 3))
    conv1, aux = conv_act(arch.in_channels, 64 // NARROW, 3), {}
    parts: dict[str, nn.Module] = {"conv1": conv1, "pool1": max_pool(), "conv2": first}
    for name, widths in MODULES.items():
        if widths:
            parts[name], c = module(c, tuple(width // NARROW for width in widths), conv_act, five=5)
        else:
            parts[name] = max_pool()
        if name in AUX_ON:
            aux[name] = aux_head(c, arch.classes, conv_act, even=False)
    net = he(Net(parts | {"head": classifier(c, arch.classes, dropout=0.4)}, aux), "fan_in")
    if not heads:
        net.aux = nn.ModuleDict()
    return net


def loss(net: Net, images: Tensor, labels: Tensor) -> Tensor:
    """What training minimises, as GoogLeNet's recipe weighs it."""
    logits, side = net(images, aux=True)
    return total_loss(logits, side, labels, Recipe.load("googlenet"), None)


def gradients(net: Net, images: Tensor, labels: Tensor) -> dict[str, float]:
    """|gradient| / |weights| of every part that has weights, in eval mode: log10."""
    net.eval().zero_grad()
    loss(net, images, labels).backward()
    found = {}
    for part in net.parts:
        weights = [p for p in net.get_submodule(part).parameters() if p.grad is not None]
        if weights:
            gradient = torch.cat([p.grad.flatten() for p in weights if p.grad is not None]).norm()
            found[part] = round(math.log10(gradient / torch.cat([p.detach().flatten() for p in weights]).norm()), 3)
    return found


def exact() -> list[Fact]:
    torch.manual_seed(0)
    net, images, labels = create("googlenet.cifar", size=16).eval(), torch.randn(4, 3, 16, 16), torch.arange(4)
    with torch.no_grad():
        logits, side = net(images, aux=True)
        total = loss(net, images, labels).item()
        bare = drop_dead(copy.deepcopy(net))
        same = torch.equal(bare(images), logits)
    real, aux1, aux2 = (
        statistics.mean((row.exp().sum().log() - row[label]).item() for row, label in zip(scores, labels, strict=True))
        for scores in (logits, *side.values())
    )
    paper = spec("googlenet").skeleton()
    without, both = (cost(paper, 224, aux=aux).params for aux in (False, True))
    return [
        Fact("loss of a GoogLeNet: real + 0.3 aux1 + 0.3 aux2", round(total, 3), round(real + 0.3 * (aux1 + aux2), 3)),
        Fact("modules on which the heads hang", list(net.aux), ["inception4a", "inception4d"]),
        Fact("parameters of the heads, and of the network without them", [both - without, without],
             [6_379_728, 6_998_552]),
        Fact("weights of heads in what is exported; its logits are those of the whole network",
             [sum(name.startswith("aux") for name in bare.state_dict()), same], [0, True]),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    images, labels = lab.batch(32, "train")
    arms = {arm: lab.built(arm, partial(network, heads=heads)) for arm, heads in ARMS.items()}
    begun = {arm: [] for arm in arms}
    for arm, arch in arms.items():
        for seed in lab.seeds:
            torch.manual_seed(seed)
            begun[arm].append(gradients(arch.build(), images, labels))

    def look(net, predictions):
        """The gradients in the trained network."""
        return {"gradients": gradients(net, images, labels)}

    fewer, recipe = few(lab, 8 if lab.full else 2)
    trials = fewer.trials(arms, look, **RECIPE, **recipe)
    learnt = {
        arm: [[round(row["val_accuracy"], 4) for row in trial["log"]] for trial in of_arm]
        for arm, of_arm in trials.items()
    }
    return {
        "begun": begun,
        "trained": values(trials, "gradients"),
        "learnt": learnt,
        "accuracy": values(trials, "accuracy"),
    }


def judge(measured: dict) -> list:
    first = {arm: [of_seed["conv1"] for of_seed in measured["begun"][arm]] for arm in ARMS}
    last = [of_seed["inception5b"] for of_seed in measured["begun"][WITHOUT]]
    speed = {arm: [statistics.mean(curve) for curve in measured["learnt"][arm]] for arm in ARMS}
    return [
        better("log10 of the gradient before training, without heads: last module less first layer (it vanishes)",
               last, first[WITHOUT]),
        better("log10 of the first layer's gradient before training, with heads less without",
               first[WITH], first[WITHOUT]),
        better("mean validation accuracy over the training, with heads less without", speed[WITH], speed[WITHOUT]),
    ]  # fmt: skip


def draw(figure, measured: dict) -> None:
    before, after, middle, right = figure.subplots(1, 4, width_ratios=(1.2, 1.2, 1.2, 1))
    after.sharey(before)
    for axes, when in ((before, "begun"), (after, "trained")):
        parts = list(measured[when][WITH][0])
        for colour, arm in zip(PALETTE, ARMS, strict=False):
            for of_seed in measured[when][arm]:
                axes.plot(range(len(parts)), list(of_seed.values()), ".-", color=colour, linewidth=1, alpha=0.8)
        for part in AUX_ON:
            axes.axvline(parts.index(part), color=PALETTE[4], linewidth=1.5, zorder=0)
        axes.set_xticks(range(len(parts)), [part.removeprefix("inception") for part in parts], rotation=90, size=8)
        axes.grid(visible=False, axis="x")
    before.set(ylabel="log10 of |gradient| / |weights|", title="Gradient, before training")
    after.set_title("Gradient, after")
    before.annotate("heads", (parts.index(AUX_ON[0]) + 0.2, 0.96), xycoords=("data", "axes fraction"), size=8, va="top")
    epochs = len(measured["learnt"][WITH][0])
    curves(middle, measured["learnt"], range(1, epochs + 1))
    middle.set(xlabel="epoch", ylabel="validation accuracy", title="Learning", ylim=(0, None))
    middle.yaxis.set_major_formatter("{x:.0%}")
    middle.legend(fontsize=8)
    dots(right, {arm.split()[0]: accuracy for arm, accuracy in measured["accuracy"].items()}, "test accuracy", True)
    right.set_title("In the end")


EXPERIMENT = Experiment(
    number=2,
    name="auxiliary-heads",
    claim="Auxiliary heads on the middle of GoogLeNet help the gradient to reach its first layers, where it"
    " vanishes without them, and speed its training up.",
    notes="还使用了辅助分类器来提高稳定性和收敛速度，在不同层执行分类任务，不同层都可以计算梯度，然后使用这些梯度来优化训练。"
    "（因为层太深了，为了解决梯度消失）",
    source="arXiv:1409.4842, Sec. 5; arXiv:1512.00567, Sec. 4",
    refuted_if="the loss is another one, the heads stay in what is exported, the gradient does not vanish without them"
    " or is no greater with them, or validation accuracy rises no sooner",
    reading="In the gradients a line is a seed; in the curves it is the mean, its band from least to greatest. " + DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    size=(12.0, 3.4),
    starred=True,
)
