"""VGG's argument for small filters [arXiv:1409.1556, Sec. 2.3]."""

from functools import partial

import torch
from torch import nn

from ...tree import Net, classifier, conv_bn_act, cost, features
from ..experiment import Experiment, Fact, better
from ..pictures import DOTS, dots, heat
from ..trials import Lab, values

C, FIELD = 64, 7


def stack(kernels, c: int) -> nn.Sequential:
    """Convolutions c -> c, each with its ReLU."""
    return nn.Sequential(*(conv_bn_act(c, c, k) for k in kernels))


def network(kernels, arch) -> Net:
    """Two stages of 32 channels, of which each has one stack."""
    c = 32
    stage = partial(stack, kernels, c)
    return Net({"stem": conv_bn_act(arch.in_channels, c, 3), "stage1": stage(), "pool": nn.MaxPool2d(2),
                "stage2": stage(), "head": classifier(c, arch.classes)})  # fmt: skip


def support(net: nn.Module, c: int) -> tuple[int, int]:
    """Height and width of the input pixels on which the middle output pixel depends, by autograd."""
    x = torch.randn(1, c, 15, 15, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for p in net.parameters():
        nn.init.constant_(p, 0.1) if p.dim() == 4 else None  # positive: no ReLU is dead
    net.eval()(x.abs())[0, :, 7, 7].sum().backward()
    assert x.grad is not None
    rows, columns = x.grad.abs().sum((0, 1)).nonzero(as_tuple=True)
    return int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)


def exact() -> list[Fact]:
    three, one = stack((3, 3, 3), C), stack((7,), C)
    facts = []
    for name, net in (("three 3x3", three), ("one 7x7", one)):
        facts += [
            Fact(f"receptive field of {name}, by the fold", cost(net, 15, C).rows[-1].rf, (FIELD, FIELD)),
            Fact(f"receptive field of {name}, by gradients", support(net, C), (FIELD, FIELD)),
        ]
    return [
        *facts,
        Fact("weights of three 3x3 at C = 64: 27 C^2", cost(three, 15, C).total("weights"), 27 * C * C),
        Fact("weights of one 7x7: 49 C^2", cost(one, 15, C).total("weights"), 49 * C * C),
        Fact("ReLUs of three 3x3, of one 7x7", [sum(isinstance(m, nn.ReLU) for m in n.modules()) for n in (three, one)],
             [3, 1]),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    images, _ = lab.batch(64)

    def look(net, predictions):
        """The effective receptive field of the second stage's middle pixel: mean |gradient| at every input pixel."""
        x = images.clone().requires_grad_()
        maps = features(net, ["stage2"])(x)["stage2"]
        maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2].sum().backward()
        assert x.grad is not None
        field = x.grad.abs().mean((0, 1))
        return {"field": [[round(v, 4) for v in row] for row in (field / field.max()).tolist()]}

    arms = {name: lab.built(name, partial(network, kernels)) for name, kernels in
            {"three 3x3": (3, 3, 3), "one 7x7": (7,)}.items()}  # fmt: skip
    trials = lab.trials(arms, look)
    return {
        "accuracy": values(trials, "accuracy"),
        "field": {arm: of_arm[0]["field"] for arm, of_arm in trials.items()},
    }


def judge(measured: dict) -> list:
    accuracy = measured["accuracy"]
    return [better("test accuracy, three 3x3 less one 7x7", accuracy["three 3x3"], accuracy["one 7x7"])]


def draw(figure, measured: dict) -> None:
    left, *maps = figure.subplots(1, 3, width_ratios=(2, 1.2, 1.2))
    dots(left, measured["accuracy"], "test accuracy", percent=True)
    left.set_title("At an equal receptive field")
    for axes, (arm, field) in zip(maps, measured["field"].items(), strict=True):
        heat(figure, axes, field, "mean |gradient|, relative")
        axes.set_title(arm, size=9)


EXPERIMENT = Experiment(
    number=1,
    name="three-3x3",
    claim="Three 3x3 convolutions see what one 7x7 sees, with 27 C^2 weights for 49 C^2 and two more non-linearities,"
    " and classify better.",
    notes="利用三个非线性的激活层来代替一个，可以增加网络的鉴别能力；第二，单个7x7卷积核的参数量为 49C²，"
    "而三个级联的 3x3 卷积核参数量为 27C²，参数量更少。",
    source="arXiv:1409.1556, Sec. 2.3",
    refuted_if="the receptive fields or counts differ, or the net of 7x7 is more accurate",
    reading=DOTS + " The maps: how much each pixel of the image weighs in the middle of the second stage's output.",
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
)
