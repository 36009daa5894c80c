"""AlexNet's convolutions in groups [NIPS 2012, Sec. 3.2, 3.5]: cheaper in multiply-adds, and in time?"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...tree import conv, cost
from ...zoo import create, spec
from ..depends import depends
from ..experiment import Experiment, Fact, Finding
from ..pictures import PALETTE, TURNS, ratios
from ..timing import race, times_as_long
from ..trials import Lab

C, SIDE = 64, 28  # channels, in and out, and px, of the maps
GROUPS = (1, 2, 4, 8, 16, 32, 64)


def apart(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What a convolution in g groups computes, by g convolutions, each on its slice of the channels."""
    filters = layer.weight.chunk(layer.groups)
    maps = [F.conv2d(part, w, None, layer.stride, layer.padding)
            for part, w in zip(x.chunk(layer.groups, 1), filters, strict=True)]  # fmt: skip
    bias = 0 if layer.bias is None else layer.bias[:, None, None]
    return torch.cat(maps, 1) + bias


@torch.inference_mode()
def logits_agree(name: str) -> bool:
    """Whether a network has the same logits when all its convolutions in groups are taken apart."""
    net = create(name).eval().double()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    whole = net(images)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.register_forward_hook(lambda layer, inputs, _: apart(layer, inputs[0]))  # type: ignore[arg-type]
    return torch.allclose(net(images), whole, rtol=1e-10)


def exact() -> list[Fact]:
    layers = [cost(conv(C, C, 3, groups=g), SIDE, C) for g in GROUPS]
    one, two = (spec(name).skeleton() for name in ("alexnet.ungrouped", "alexnet"))
    seen = [m.weight.shape[1] for m in two.modules() if isinstance(m, nn.Conv2d)]
    whole, halved = ([row.macs for row in cost(net, 227).rows if row.kind == "Conv2d"] for net in (one, two))
    alone = [[int(i == j) for j in range(C)] for i in range(C)]
    return [
        Fact(f"weights of a 3x3 of {C} channels in {', '.join(map(str, GROUPS))} groups: 9 C^2 / g",
             [layer.total("weights") for layer in layers], [9 * C * C // g for g in GROUPS]),
        Fact(f"its multiply-adds on {SIDE}x{SIDE}: H W 9 C^2 / g",
             [layer.macs for layer in layers], [SIDE * SIDE * 9 * C * C // g for g in GROUPS]),
        Fact("in g = C_in groups a channel depends on its own only, by gradients: depthwise",
             depends(conv(C, C, 3, groups=C), C, C) == alone, True),
        Fact("AlexNet's logits if its groups are convolutions of their own on slices: the same",
             logits_agree("alexnet.cifar"), True),
        Fact("channels that a filter of AlexNet's five convolutions sees", seen, [3, 48, 256, 192, 192]),
        Fact("AlexNet's multiply-adds by its two groups, of those without, in the five convolutions",
             [a / b for a, b in zip(halved, whole, strict=True)], [1, 0.5, 1, 0.5, 0.5]),
    ]  # fmt: skip


def measure(lab: Lab) -> dict:
    images = torch.randn(16, C, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    seconds = race({str(g): conv(C, C, 3, groups=g) for g in GROUPS}, images, seconds=6)
    return {"seconds": {g: [round(t, 6) for t in taken[:200]] for g, taken in seconds.items()}}


def judge(measured: dict) -> list[Finding]:
    seconds = measured["seconds"]
    return [
        times_as_long(
            f"time of {g} groups, for 1/{g} of the time of one", [g * t for t in seconds[str(g)]], seconds["1"]
        )
        for g in (int(g) for g in seconds)
        if g > 1
    ]


def draw(figure, measured: dict) -> None:
    seconds, axes = measured["seconds"], figure.subplots()
    axes.plot(GROUPS, GROUPS, "--", color=PALETTE[-1], label="multiply-adds, weights: g times fewer")
    ratios(axes, {g: (seconds["1"], seconds[str(g)]) for g in GROUPS[1:]}, PALETTE[0],
           "time on this machine: median, quartiles")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=f"groups g of a 3x3 convolution, {C} channels on {SIDE}x{SIDE}",
             ylabel="one group / g groups", title="g times fewer multiply-adds are not g times less time")  # fmt: skip
    axes.set_xticks(GROUPS, [*map(str, GROUPS[:-1]), f"{C}\n(depthwise)"])
    axes.set_yticks(GROUPS, [f"{g}x" for g in GROUPS])
    axes.minorticks_off()
    axes.legend(loc="upper left")


EXPERIMENT = Experiment(
    number=16,
    name="group-convolution",
    claim="In g groups a convolution has 1/g of the weights and multiply-adds, and with g = C_in it is depthwise; but"
    " it takes more than 1/g of the time.",
    notes="将卷积操作分成 g 个组，独立计算。……当组数 g 和 C_in 相等时称作 Depth-wise Convolution.",
    source="AlexNet, NIPS 2012, Sec. 3.2 and 3.5; arXiv:1707.01083, Sec. 3.1",
    refuted_if="the counts or the logits differ, or with some g it takes 1/g of the time or less",
    reading=TURNS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
)
