"""DenseNet's concatenation against ResNet's addition [arXiv:1608.06993, Sec. 1, 3 and 5]."""

import copy
import math
from functools import reduce

import torch
from torch import Tensor, nn

from ...tree import Concat, Net, Residual, conv, cost, features
from ...zoo import Arch, spec
from ..experiment import Experiment, Fact, above, better
from ..pictures import DOTS, dots, heat
from ..trials import Lab, values

DENSE, RES = "DenseNet: concatenation", "ResNet: addition"
LAYERS, C0, K = 4, 8, 5  # of each block of the small DenseNet
SOURCES, CHANNELS = 4, 12  # that are joined to see what is left of them


def networks(**fields) -> dict[str, Arch]:
    """A DenseNet and a ResNet of nearly equal MACs."""
    return {
        DENSE: spec("densenet40_k12", depths=(LAYERS,) * 3, width=C0, growth_rate=K, **fields),
        RES: spec("resnet20", depths=(2, 2, 2), width=8, **fields),
    }


def rank(join: nn.Module, c: int) -> int:
    """How many of the `c` numbers at a pixel can be told from the output: the rank of the Jacobian."""
    jacobian = torch.func.jacrev(join)(torch.zeros(1, c, 1, 1))
    return int(torch.linalg.matrix_rank(jacobian.view(-1, c)))


def keeps_all(net: Net) -> bool:
    """Whether a dense block's output holds its input and what every layer has added, bit by bit."""
    added = [f"block1.{name}.new" for name, _ in net.get_submodule("block1").named_children()]
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    *sources, block = features(net.eval(), ["stem", *added, "block1"])(x).values()
    return torch.equal(block, torch.cat(sources, dim=1))


def exact() -> list[Fact]:
    torch.manual_seed(0)
    c = SOURCES * CHANNELS
    branches = [conv(c, CHANNELS) for _ in range(SOURCES)]
    joined, added = Concat(**{f"source{i}": b for i, b in enumerate(branches)}), reduce(Residual, branches)
    bc, k = cost(spec("densenet_bc100_k12").skeleton(), 32), 12
    widths = [[bc.inputs[f"block{b}.{i}"].c for i in range(16)] for b in (1, 2, 3)]
    macs = [cost(arch.skeleton(), 16).macs for arch in networks(classes=10, size=16).values()]
    return [
        Fact("of 48 numbers, as 4 maps of 12 channels: told from their concatenation", rank(joined, c), c),
        Fact("of 48 numbers, as 4 maps of 12 channels: told from their sum", rank(added, c), CHANNELS),
        Fact("a dense block's output holds every layer's output as it was", keeps_all(networks()[DENSE].build()), True),
        Fact("channels that enter layer l of DenseNet-BC's blocks: C0 + k l",
             widths, [[c0 + k * i for i in range(16)] for c0 in (2 * k, 108, 150)]),
        Fact("channels behind a bottleneck: 4k",
             [bc.inputs[f"block{b}.{i}.new.conv2"].c for b in (1, 2, 3) for i in range(16)], [4 * k] * 48),
        Fact("channels behind a transition: theta m = m / 2",
             [bc.outputs[f"transition{b}"].c for b in (1, 2)],
             [bc.outputs[f"block{b}"].c // 2 for b in (1, 2)]),
        Fact("MACs of the two networks that are trained, to a percent", round(macs[0] / macs[1], 2), 1.01),
    ]  # fmt: skip


def readers(net: Net, block: int) -> list[Tensor]:
    """The weights (out, in, ...) of the layers of a dense block, and of what reads its output."""
    layers = [f"block{block}.{i}.new.conv.conv" for i in range(LAYERS)]
    behind = f"transition{block}.conv.conv" if block < 3 else "head.fc"
    return [net.get_parameter(f"{path}.weight") for path in (*layers, behind)]


def reuse(net: Net) -> list[list[list[float | None]]]:
    """By block, source and reader: mean |weight| over its mean for that reader.  Source 0 is the block's input."""
    maps = []
    for block in (1, 2, 3):
        columns = []
        for i, weight in enumerate(readers(net, block)):
            c0 = weight.shape[1] - i * K
            sizes = [part.abs().mean().item() for part in weight.split([c0] + [K] * i, dim=1)]
            mean = weight.abs().mean().item()
            columns.append([round(size / mean, 3) for size in sizes] + [None] * (LAYERS - i))
        maps.append([list(row) for row in zip(*columns, strict=True)])
    return maps


def shortsighted(net: Net) -> Net:
    """A copy whose layers see only what the layer before them has added."""
    net = copy.deepcopy(net)
    for block in (1, 2, 3):
        for weight in readers(net, block)[1:LAYERS]:
            nn.init.zeros_(weight[:, :-K])
    return net


def measure(lab: Lab) -> dict:
    images, labels = lab.batch(512)

    def look(net, predictions):
        """What the layers of a DenseNet read, and the accuracy lost if they do not see the older maps."""
        if "block1" not in net.parts:
            return {}
        with torch.inference_mode():
            right = [(n(images).argmax(1) == labels).double().mean().item() for n in (net, shortsighted(net))]
        return {"reuse": reuse(net), "lost": right[0] - right[1]}

    trials = lab.trials(networks(classes=len(lab.splits.classes), size=lab.size), look)
    maps = torch.tensor([[[[v or 0 for v in row] for row in m] for m in t["reuse"]] for t in trials[DENSE]]).mean(0)
    return {
        "accuracy": values(trials, "accuracy"),
        "lost": [trial["lost"] for trial in trials[DENSE]],
        "reuse": [[[round(v, 3) or None for v in row] for row in block] for block in maps.tolist()],
    }


def judge(measured: dict) -> list:
    accuracy = measured["accuracy"]
    return [
        better("test accuracy, DenseNet less ResNet of equal MACs", accuracy[DENSE], accuracy[RES]),
        above("test accuracy lost when every layer sees only the layer before it", measured["lost"]),
    ]


def draw(figure, measured: dict) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    blind = [a - lost for a, lost in zip(measured["accuracy"][DENSE], measured["lost"], strict=True)]
    dots(left, {**measured["accuracy"], "DenseNet without\nthe older maps": blind}, "test accuracy", percent=True)
    left.set_title("At equal MACs")
    rows = [[*a, None, *b, None, *c] for a, b, c in zip(*measured["reuse"], strict=True)]
    heat(figure, right, [[math.nan if v is None else v for v in row] for row in rows], "mean |weight| / reader's mean")
    names = [*map(str, range(1, LAYERS + 1)), "out"]
    places = [block * (LAYERS + 2) + i for block in range(3) for i in range(LAYERS + 1)]
    right.set_xticks(places, names * 3)
    right.set_yticks(range(LAYERS + 1), ["block's input", *(f"layer {i}" for i in range(1, LAYERS + 1))])
    right.set(aspect="auto", xlabel="read by layer, in blocks 1, 2 and 3", title="What DenseNet's layers read")


EXPERIMENT = Experiment(
    number=9,
    name="concatenation",
    claim="A concatenation keeps every map as it was, of which a sum leaves only the sum; layers do use the older maps,"
    " and a DenseNet is more accurate than a ResNet of equal MACs.",
    notes="文中称相加阻碍了网络中的信息流。而 concat 使每一层都与其他层有关系，都有”沟通“，这种方式使得信息流最大化。",
    source="arXiv:1608.06993, Sec. 1, Fig. 3 and Fig. 5",
    refuted_if="the channels or ranks differ, the ResNet is more accurate, or layers do as well without the older maps",
    reading="The map is the mean over the seeds. " + DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    size=(9.0, 3.2),
    starred=True,
)
