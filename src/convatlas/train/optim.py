"""Update rules and learning rates as the papers state them."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel

from ..tree.fold import NORMS
from .recipe import Recipe


def build_optimizer(net: nn.Module, recipe: Recipe, head: Collection[str] = ()) -> torch.optim.Optimizer:
    """The recipe's optimizer over the trainable parameters; what is not decayed and what learns slower as it says.

    Each group has a `scale`, which its rate is to be multiplied by: 1 for the parameters named in `head`, `backbone_lr`
    for the others.  A fused update goes through memory once: that of VGG's takes a third of the time, bit by bit alike;
    weights in parts have none.
    """
    exempt = set() if recipe.decay_norm else {name for name, _ in net.named_parameters() if name.endswith(".bias")}
    for path, module in net.named_modules():
        norm = isinstance(module, NORMS) and not recipe.decay_norm
        if norm or (is_depthwise(module) and not recipe.decay_depthwise):
            exempt.add(f"{path}.weight")
    parameters: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in net.named_parameters():
        if p.requires_grad:
            decay = 0.0 if name in exempt else recipe.weight_decay
            scale = 1.0 if name in head else recipe.backbone_lr
            parameters.setdefault((decay, scale), []).append(p)
    groups = [
        {"params": params, "weight_decay": decay, "scale": scale, "lr": recipe.lr * scale}
        for (decay, scale), params in parameters.items()
    ]
    fused = not any(isinstance(p, DTensor) for p in net.parameters())
    match recipe.optimizer:
        case "sgd":
            nesterov = recipe.nesterov and recipe.momentum > 0
            return torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=nesterov, fused=fused)
        case "sgd_caffe":
            return CaffeSGD(groups, recipe.lr, momentum=recipe.momentum)
        case "adamw":
            return torch.optim.AdamW(groups, recipe.lr, (recipe.momentum, 0.999), fused=fused)
        case _:
            return RMSpropTF(groups, recipe.lr, decay=recipe.rho, momentum=recipe.momentum, eps=recipe.eps)


def is_depthwise(module: nn.Module) -> bool:
    """Whether it is a convolution with filters that each see a single channel."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels


class CaffeSGD(torch.optim.Optimizer):
    """SGD whose momentum holds the learning rate: v := mv + lr (g + decay w); w := w - v [NIPS 2012, Sec. 5; Caffe].

    It differs from `torch.optim.SGD` when the rate changes: after a fall, the steps that are still in the momentum
    go on at the old rate, where torch's fall with it.
    """

    def __init__(self, params: Iterable[Any], lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        for p, grad, group in _decayed(self):
            _advance(p, grad, group, self.state[p])


class RMSpropTF(torch.optim.Optimizer):
    """RMSProp in TensorFlow's form, with which the Inception and MobileNet papers trained.

    It differs from `torch.optim.RMSprop` in three ways: epsilon is inside the root, the running mean square begins
    at one, and the learning rate is inside the momentum [arXiv:1512.00567, Sec. 8: decay 0.9, epsilon 1.0].
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        decay: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1.0,
        weight_decay: float = 0.0,
    ):
        defaults = {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        for p, grad, group in _decayed(self):
            state = self.state[p]
            if not state:
                state["square"] = torch.ones_like(p)
            state["square"].lerp_(grad.square(), 1 - group["decay"])
            _advance(p, grad / (state["square"] + group["eps"]).sqrt(), group, state)


def _decayed(optimizer: torch.optim.Optimizer) -> Iterator[tuple[nn.Parameter, Tensor, dict[str, Any]]]:
    """Each parameter that has a gradient, the gradient with the weights' decay in it, and the parameter's group."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                yield p, p.grad.add(p, alpha=group["weight_decay"]), group


def _advance(p: nn.Parameter, direction: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    """Move a parameter by its momentum, which holds the learning rate."""
    if "momentum" not in state:
        state["momentum"] = torch.zeros_like(p)
    state["momentum"].mul_(group["momentum"]).add_(direction, alpha=group["lr"])
    p.sub_(state["momentum"])


def lr_at(recipe: Recipe, step: int, steps_per_epoch: int, history: Sequence[Mapping[str, Any]] = ()) -> float:
    """The learning rate of a step, counted from 0: warm-up, then the schedule down to its end.

    `history` has the row of each finished epoch, of which `plateau` reads `val_accuracy`.
    """
    total, warm = recipe.epochs * steps_per_epoch, recipe.warmup * steps_per_epoch
    if step < warm:
        return recipe.warmup_lr or recipe.lr * (step + 1) / (warm + 1)
    progress = min(1.0, (step - warm) / max(1.0, total - warm))
    match recipe.schedule:
        case "cosine":
            return recipe.lr * ((1 + math.cos(math.pi * progress)) / 2)
        case "linear":
            return recipe.lr * (1 - progress)
        case "step":
            falls = sum(step >= fraction * total for fraction in recipe.milestones)
        case "exponential":
            falls = step // (recipe.every * steps_per_epoch)
        case _:
            falls = plateaus([row["val_accuracy"] for row in history], recipe.patience)
    return recipe.lr * recipe.gamma**falls


def plateaus(accuracies: Iterable[float], patience: int) -> int:
    """How often `patience` epochs in a row have brought nothing better than all epochs before."""
    best, since, count = -math.inf, 0, 0
    for accuracy in accuracies:
        best, since = (accuracy, 0) if accuracy > best else (best, since + 1)
        if since == patience:
            count, since = count + 1, 0
    return count


def average_of(net: nn.Module, recipe: Recipe, steps: int) -> AveragedModel | None:
    """The average of weights that the recipe asks for in a training of so many steps, if it does."""
    if recipe.ema:
        return averaged(net, recipe.ema)
    return polyak(net, steps - round(recipe.polyak * steps)) if recipe.polyak else None


def averaged(net: nn.Module, decay: float) -> AveragedModel:
    """A copy of `net` that follows it as an exponential moving average, buffers included.

    In the beginning it follows more closely, by (1 + n) / (10 + n) after n updates, as TensorFlow's does.
    """
    return _follower(net, lambda n: min(decay, (1 + n) / (10 + n)))


def polyak(net: nn.Module, start: int) -> AveragedModel:
    """A copy of `net` that is the mean of its weights, buffers included, after all updates but the first `start`.

    Until then it is as `net` is [Polyak and Juditsky 1992].
    """
    return _follower(net, lambda n: max(0, n - start) / (max(0, n - start) + 1))


def _follower(net: nn.Module, keep: Callable[[int], float]) -> AveragedModel:
    """A copy of `net` that keeps the share `keep(n)` of itself at the update after n."""

    @torch.no_grad()
    def follow(copies: Any, originals: Any, count: Any) -> None:
        share = 1 - keep(int(count))
        for copy, original in zip(copies, originals, strict=True):
            copy.lerp_(original, share) if copy.is_floating_point() else copy.copy_(original)

    return AveragedModel(net, multi_avg_fn=follow, use_buffers=True)
