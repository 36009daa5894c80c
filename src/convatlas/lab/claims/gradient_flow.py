"""What reaches the shallow layers: the gradient in networks of 20 to 1001 layers before training [arXiv:1603.05027,
Sec. 2; arXiv:1512.03385, Sec. 4.1].
"""

import math
import statistics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...tree import Net
from ...tree.draw.paint import MUTED
from ...zoo import Arch, spec
from ..experiment import Experiment, Fact, better
from ..pictures import PALETTE
from ..trials import Lab

DEPTHS = (20, 56, 110, 1001)  # 9n + 2: three stages of n bottlenecks
DENSE = {20: 22, 56: 58, 110: 112}  # 3n + 4; the memory of a dense block grows with the square of its layers
PROFILED = 110
KINDS = ("plain", "residual", "pre-activation", "dense")
NORMS = ("with BatchNorm", "without BatchNorm")
BATCH = 8


def network(kind: str, layers: int, **fields) -> Arch:
    """A narrow CIFAR network of so many layers, of nearly so many if it is dense."""
    n = (layers - 2) // 9
    if kind == "dense":
        n = (DENSE[layers] - 4) // 3
        return spec("densenet40_k12", depths=(n, n, n), width=8, growth_rate=4, **fields)
    if kind == "pre-activation":
        return spec("preact_resnet1001", depths=(n, n, n), width=4, **fields)
    shortcut = "B" if kind == "residual" else None
    return spec("resnet20", depths=(n, n, n), width=4, bottleneck=True, shortcut=shortcut, **fields)


def without_norm(net: Net) -> Net:
    """Take every BatchNorm out."""
    for path, m in list(net.named_modules()):
        if isinstance(m, nn.BatchNorm2d):
            net.set_submodule(path, nn.Identity())
        elif isinstance(m, nn.ReLU):
            m.inplace = False  # there is no longer a BatchNorm between it and what a shortcut reads
    return net


def threes(net: Net) -> list[nn.Conv2d]:
    """The 3x3 convolutions of all units, in order."""
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return convs[1:]  # the first is the stem's


def orders(net: Net, images: Tensor, labels: Tensor) -> list[float]:
    """How many orders of magnitude the gradient by every unit's 3x3 weights is above that by the last one's.

    In double precision, for the range of 1001 layers.
    """
    net.double()
    F.cross_entropy(net(images.double()), labels).backward()
    norms = [conv.weight.grad.norm().item() for conv in threes(net) if conv.weight.grad is not None]
    return [round(math.log10(norm / norms[-1]), 3) for norm in norms]


def hands_on(kind: str) -> bool:
    """Whether a stage whose layers put out nothing hands a gradient on unchanged, to an input that is not negative."""
    name = {"plain": "plain20", "residual": "resnet20", "pre-activation": "preact_resnet110", "dense": "densenet40_k12"}
    net = spec(name[kind], depths=(3,), width=4).build().eval()
    stage = net.get_submodule("block1" if kind == "dense" else "stage1")
    for unit in stage.children():
        last = [m for m in unit.modules() if isinstance(m, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)
    random = torch.Generator().manual_seed(0)
    x = torch.rand(2, 4, 8, 8, generator=random).requires_grad_()
    out = stage(x.clone())
    gradient = torch.randn(out.shape, generator=random)
    [arrived] = torch.autograd.grad(out, x, gradient)
    return torch.equal(arrived, gradient[:, :4])  # dense: the channels of x come first


def exact() -> list[Fact]:
    shown = [[3 * len(threes(network(kind, layers).skeleton())) + 2 for layers in DEPTHS] for kind in KINDS[:3]]
    return [
        Fact("kinds in which units that put out nothing hand a gradient on unchanged",
             [kind for kind in KINDS if hands_on(kind)], list(KINDS[1:])),
        Fact("layers of the plain, residual and pre-activation networks", shown, [list(DEPTHS)] * 3),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    images, labels = lab.batch(BATCH, "train")
    ends = {norm: {kind: {} for kind in KINDS} for norm in NORMS}
    profiles = {norm: {kind: [] for kind in KINDS} for norm in NORMS}
    for norm in NORMS:
        for kind in KINDS:
            for layers in DENSE if kind == "dense" else DEPTHS:
                of_seeds = []
                for seed in lab.seeds:
                    torch.manual_seed(seed)
                    net = network(kind, layers, classes=len(lab.splits.classes), size=lab.size).build()
                    of_seeds.append(orders(net if norm == NORMS[0] else without_norm(net), images, labels))
                ends[norm][kind][layers] = [of_seed[0] for of_seed in of_seeds]
                if layers == PROFILED:
                    profiles[norm][kind] = of_seeds
    return {"ends": ends, "profiles": profiles}


def judge(measured: dict) -> list:
    findings = []
    for norm, ends in measured["ends"].items():
        off = {kind: [abs(order) for order in ends[kind][str(PROFILED)]] for kind in KINDS}
        findings += [
            better(f"orders of magnitude between first and last unit, {PROFILED} layers {norm}: plain less {kind}",
                   off["plain"], off[kind])
            for kind in KINDS[1:]
        ]  # fmt: skip
    return findings


def draw(figure, measured: dict) -> None:
    grid = figure.subplots(2, 2, sharex="col", sharey="col")
    for (left, right), norm in zip(grid, NORMS, strict=True):
        for colour, kind in zip(PALETTE, KINDS, strict=False):
            for of_seed in measured["profiles"][norm][kind]:
                places = [i / (len(of_seed) - 1) for i in range(len(of_seed))]
                left.plot(places, of_seed, color=colour, linewidth=1.2, alpha=0.7)
            ends = measured["ends"][norm][kind]
            right.plot([int(d) for d in ends], [statistics.mean(of) for of in ends.values()], color=colour, label=kind)
            for depth, of_seeds in ends.items():
                right.plot([int(depth)] * len(of_seeds), of_seeds, "o", color=colour, markersize=4, alpha=0.7)
        for axes in (left, right):
            axes.axhline(0, color=MUTED, linewidth=1)
            axes.set_ylabel("orders of magnitude")
        left.annotate(norm, (0.97, 0.9), xycoords="axes fraction", ha="right")
        right.annotate(norm, (0.97, 0.05), xycoords="axes fraction", ha="right")
        right.set(xscale="log", yscale="symlog", xticks=DEPTHS, xticklabels=DEPTHS, yticks=(-1, 0, 1, 10, 100),
                  yticklabels=(-1, 0, 1, 10, 100))  # fmt: skip
        right.minorticks_off()
    (left, right), (below_left, below_right) = grid
    left.set_title(f"{PROFILED} layers: gradient norm over the last unit's")
    right.set_title("First unit's over the last one's")
    below_left.set(xlabel="place of the unit", xticks=(0, 0.5, 1), xticklabels=("first", "middle", "last"))
    below_right.set_xlabel("layers")
    right.legend(fontsize=8)


EXPERIMENT = Experiment(
    number=6,
    name="gradient-flow",
    claim="Shortcuts carry the gradient to the shallow layers: before training, the first unit's is nearer to the last"
    " one's than in a plain network of the same layers.",
    notes="实际上，使用 ReLU 的网络中，梯度消失(由于 Sigmoid 等激活函数在饱和区梯度几乎为0) 现象已经很少，"
    "但 Skip Connection 能更直接的将梯度传递到浅层。",
    source="arXiv:1603.05027, Sec. 2, eq. 5; arXiv:1512.03385, Sec. 4.1; arXiv:1608.06993, Sec. 3",
    refuted_if="a unit that adds nothing changes the gradient, or at 110 layers the gradients of the first and the last"
    " unit of a network with shortcuts are farther apart than those of a plain one",
    reading="On the left a line is a seed, on the right a dot, and a line joins the means.",
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    size=(9.0, 5.0),
)
