"""Where BatchNorm and ReLU stand in a residual unit [arXiv:1603.05027, Sec. 4], and 1001 layers [Sec. 5]."""

import multiprocessing
import resource
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...train.job import end_with_launcher
from ...tree import Net, cost, recompute
from ...zoo import Arch, spec
from ..experiment import Experiment, Fact, above, better
from ..pictures import DOTS, PALETTE, dots
from ..trials import Lab, values

ORDERS = {
    "original": "(a) original",
    "bn_after_addition": "(b) BN after addition",
    "relu_before_addition": "(c) ReLU before addition",
    "relu_only_preactivation": "(d) ReLU-only pre-activation",
    "full_preactivation": "(e) full pre-activation",
}
FULL = ORDERS["full_preactivation"]
SHORT, LONG = (2, 2, 2), (3, 3, 3)  # units of the three stages: what five arms can cost
WIDTH = 4
DEEP, STEPS, BATCH = "preact_resnet1001", 3, 4


def bodies(net: Net) -> list[nn.Module]:
    """The branches of all units, in order."""
    return [m.get_submodule("body") for path, m in net.named_modules() if path.endswith(".res")]


def convs(module: nn.Module) -> list[nn.Conv2d]:
    """The convolutions in a module, in order."""
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def is_identity(order: str) -> bool:
    """Whether a stage is the identity when its branches put out nothing."""
    net = spec("preact_resnet110", order=order, depths=(3,), width=4).build().eval()
    for body in bodies(net):
        nn.init.zeros_(convs(body)[-1].weight)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.equal(net.get_submodule("stage1")(x.clone()), x)


def adds_no_negative(order: str) -> bool:
    """Whether no branch of a freshly initialised network puts out a negative number."""
    net, outputs = spec("preact_resnet110", order=order, depths=(3,), width=4).build(), []
    for body in bodies(net):
        body.register_forward_hook(lambda module, args, output: outputs.append(output.min().item()))
    net(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    return min(outputs) >= 0


def exact() -> list[Fact]:
    nets = [spec("preact_resnet110", order=order).skeleton() for order in ORDERS]
    parts = [Counter(type(m) for m in net.modules() if not list(m.children())) for net in nets]
    deep = spec(DEEP).skeleton()
    return [
        Fact("parameters of ResNet-110 in the five orders", [cost(net, 32).params for net in nets], [1_727_962] * 5),
        Fact("layers in another order than (a), by kind, are those of (a)", [p == parts[0] for p in parts], [True] * 5),
        Fact("orders in which a unit whose branch gives nothing hands on any input unchanged",
             [name for order, name in ORDERS.items() if is_identity(order)], list(ORDERS.values())[2:]),
        Fact("orders in which a branch can only add to the signal, as it ends in a ReLU",
             [name for order, name in ORDERS.items() if adds_no_negative(order)], [ORDERS["relu_before_addition"]]),
        Fact(f"weighted layers of {DEEP} one behind another",
             1 + sum(len(convs(body)) for body in bodies(deep)) + 1, 1001),
        Fact(f"parameters of {DEEP}", cost(deep, 32).params, 10_327_706),
    ]  # fmt: skip


def gradients(arch: Arch, images: Tensor, labels: Tensor, seed: int) -> list[float]:
    """The norm of the gradient of every unit's first convolution before training, over that of the last unit's."""
    torch.manual_seed(seed)
    net = arch.build()
    F.cross_entropy(net(images), labels).backward()
    norms = [weight.grad.norm().item() for body in bodies(net) if (weight := convs(body)[0].weight).grad is not None]
    return [float(f"{norm / norms[-1]:.3g}") for norm in norms]


def first_steps(arch: Arch, images: Tensor, labels: Tensor, seeds: list[int]) -> dict:
    """Losses of the first steps on one batch, for each seed; the median seconds of a step; the memory in MiB of the
    first seed's network with all that its steps need, by which a process that has done nothing else has grown.
    """
    torch.set_num_threads(1)
    before = peak()
    losses, seconds = steps(arch, images, labels, seeds[0])
    grown, all_losses = peak() - before, [losses]
    for seed in seeds[1:]:
        losses, more = steps(arch, images, labels, seed)
        all_losses.append(losses)
        seconds += more
    return {"losses": all_losses, "seconds": round(sorted(seconds)[len(seconds) // 2], 2), "mib": grown // 1024}


def steps(arch: Arch, images: Tensor, labels: Tensor, seed: int) -> tuple[list[float], list[float]]:
    """The losses of a network's first steps, and the seconds that the processor worked on each."""
    torch.manual_seed(seed)
    net = recompute(arch.build(), "stage*.*")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses, seconds = [], []
    for _ in range(STEPS):
        start = time.process_time()
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
        losses.append(round(loss.item(), 4))
    return losses, seconds


def peak() -> int:
    """The most memory that this process has had so far, in KiB; on Linux without what its parent has had."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(lab: Lab) -> dict:
    depths = LONG if lab.full else SHORT
    arms = {name: lab.spec("preact_resnet110", order=order, depths=depths, width=WIDTH)
            for order, name in ORDERS.items()}  # fmt: skip
    images, labels = lab.batch(16, "train")
    deep = lab.spec(DEEP)
    context = multiprocessing.get_context("spawn")  # for the peak of memory is a process's
    with ProcessPoolExecutor(1, context, initializer=end_with_launcher) as apart:
        begun = apart.submit(first_steps, deep, images[:BATCH], labels[:BATCH], list(lab.seeds)).result()
    return {
        "layers": 2 * sum(depths) + 2,
        "accuracy": values(lab.trials(arms), "accuracy"),
        "gradients": {
            name: [
                gradients(lab.spec("preact_resnet110", order=order, width=WIDTH), images, labels, seed)
                for seed in lab.seeds
            ]
            for order, name in ORDERS.items()
        },
        "deep": begun,
    }


def judge(measured: dict) -> list:
    accuracy = measured["accuracy"]
    others = [
        better(f"test accuracy, {FULL} less {name}", accuracy[FULL], of_arm)
        for name, of_arm in accuracy.items()
        if name != FULL
    ]
    fall = [losses[0] - losses[-1] for losses in measured["deep"]["losses"]]
    return [*others, above(f"nats by which the loss of 1001 layers falls in {STEPS - 1} steps", fall)]


def draw(figure, measured: dict) -> None:
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.5, 1.5, 1))
    dots(left, measured["accuracy"], "test accuracy", percent=True)
    left.set_title(f"Five orders, {measured['layers']} layers")
    for colour, (name, of_seeds) in zip(PALETTE, measured["gradients"].items(), strict=False):
        for unit_norms in of_seeds:
            middle.plot(range(1, len(unit_norms) + 1), unit_norms, color=colour, linewidth=1, alpha=0.8)
        middle.plot([], [], color=colour, label=name[:3])
    middle.set(yscale="log", xlabel="unit, 110 layers, before training", ylabel="gradient norm / last unit's",
               title="Gradients of the convolutions")  # fmt: skip
    middle.legend(ncols=5, fontsize=7, handlelength=1, columnspacing=0.8)
    deep = measured["deep"]
    for losses in deep["losses"]:
        right.plot(range(len(losses)), losses, "o-", color=PALETTE[4])
    right.set(xlabel=f"steps on {BATCH} images\n({deep['seconds']:.1f} s each, {deep['mib']} MiB)",
              ylabel="cross-entropy, nats", title="1001 layers")  # fmt: skip
    right.xaxis.get_major_locator().set_params(integer=True)


EXPERIMENT = Experiment(
    number=7,
    name="pre-activation",
    claim="With BN and ReLU before each convolution (full pre-activation) the same layers are more accurate than in the"
    " four other orders, and 1001 of them can be trained.",
    notes="He 讨论了激活函数的位置的影响，并表示预激活(卷积前加 ReLU，也就是说在 Identity 加法前没有 ReLU)的效果最好，"
    "因为梯度能更直接的传到卷积层。在这版里 ResNet 1001 层的结构取得了最好的效果。",
    source="arXiv:1603.05027, Fig. 4, Tables 2 and 4",
    refuted_if="the orders differ in more than order, another one is more accurate, or the loss of 1001 layers rises",
    reading="In the middle and on the right a line is a seed. " + DOTS,
    exact=exact,
    measure=measure,
    judge=judge,
    draw=draw,
    size=(10.0, 3.4),
    starred=True,
)
