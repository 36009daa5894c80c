"""Update rules and learning rates as the papers state them."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..tree.fold import NORMS
from .recipe import Recipe


def build_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the trainable parameters; biases and norms are not decayed unless it says so."""
    norms = {id(p) for m in net.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    decayed, free = [], []
    for name, p in net.named_parameters():
        if p.requires_grad:
            exempt = not recipe.decay_norm and (id(p) in norms or name.endswith(".bias"))
            (free if exempt else decayed).append(p)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=nesterov)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, recipe.lr, (recipe.momentum, 0.999))
    return RMSpropTF(groups, recipe.lr, momentum=recipe.momentum)


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
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["square"], state["momentum"] = torch.ones_like(p), torch.zeros_like(p)
                grad = p.grad.add(p, alpha=group["weight_decay"])
                state["square"].lerp_(grad.square(), 1 - group["decay"])
                scaled = grad / (state["square"] + group["eps"]).sqrt()
                state["momentum"].mul_(group["momentum"]).add_(scaled, alpha=group["lr"])
                p.sub_(state["momentum"])


def lr_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then the schedule down to its end."""
    total, warm = recipe.epochs * steps_per_epoch, recipe.warmup * steps_per_epoch
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** sum(step >= fraction * total for fraction in recipe.milestones)
    progress = min(1.0, (step - warm) / max(1.0, total - warm))
    return recipe.lr * ((1 + math.cos(math.pi * progress)) / 2 if recipe.schedule == "cosine" else 1 - progress)


def averaged(net: nn.Module, decay: float) -> AveragedModel:
    """A copy of `net` that follows it as an exponential moving average, buffers included.

    In the beginning it follows more closely, by (1 + n) / (10 + n) after n updates, as TensorFlow's does.
    """

    @torch.no_grad()
    def follow(copies: Any, originals: Any, count: Any) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        for copy, original in zip(copies, originals, strict=True):
            copy.lerp_(original, 1 - keep) if copy.is_floating_point() else copy.copy_(original)

    return AveragedModel(net, multi_avg_fn=follow, use_buffers=True)
