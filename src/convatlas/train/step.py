"""One training step: forward, backward, update; all of it or nothing."""

import math

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from .checkpoint import State
from .distributed import whole
from .loss import mixed, total_loss
from .recipe import Recipe
from .task import Machine, Task

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def learn(state: State, task: Task, machine: Machine, pixels: Tensor, labels: Tensor, lr: float, count: int) -> bool:
    """One step on uint8 images (N, 3, H, W), this process's share of the `count` images of the step.

    False if loss or gradient is not finite: then nothing has changed.
    """
    net, optimizer, scaler, world, recipe = state.net.train(), state.optimizer, state.scaler, machine.world, task.recipe
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    statistics = [b.clone() for b in net.buffers()]
    images = task.pre.normalize(pixels).contiguous(memory_format=torch.channels_last)
    images, targets = mixed(images, labels, recipe, len(task.splits.classes))
    pieces = min(recipe.accumulate, max(1, len(labels) // 2))  # BatchNorm cannot learn from one image
    parts = list(zip(images.tensor_split(pieces), targets.tensor_split(pieces), strict=True))
    weights = None if task.class_weights is None else task.class_weights.to(pixels.device)
    dtype = precision(recipe, pixels.device.type)
    loss, scores = torch.zeros((), device=pixels.device), []

    optimizer.zero_grad()
    for number, (x, target) in enumerate(parts, 1):
        with world.gathering(state.model, last=number == len(parts)):
            with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
                logits, side = state.model(x, aux=True)
                part = total_loss(logits, side, target, recipe, weights)
            share = len(x) / count  # of the step's images; the processes' gradients are averaged, not added
            scaler.scale(part * (share * world.size)).backward()
        loss += part.detach() * share
        scores.append(logits.detach())
    scaler.unscale_(optimizer)
    trained = [p for p in net.parameters() if p.grad is not None]
    [norm] = whole({"norm": get_total_norm([p.grad for p in trained if p.grad is not None])}).values()

    right = int((torch.cat(scores).argmax(1) == labels).sum())
    total, right, seen = world.sum(loss.item(), right, len(labels))
    if not (math.isfinite(total) and norm.isfinite()):
        for buffer, before in zip(net.buffers(), statistics, strict=True):
            buffer.copy_(before)
        scaler.update() if scaler.is_enabled() else None
        return scaler.is_enabled() and scaler.get_scale() >= 1  # the scale of fp16 is still being found
    if recipe.clip:
        clip_grads_with_norm_(trained, recipe.clip, norm)
    scaler.step(optimizer)
    scaler.update()
    if state.average is not None:
        state.average.update_parameters(net)
    state.sums["loss"] += total * seen
    state.sums["right"] += right
    state.sums["seen"] += seen
    return True


def precision(recipe: Recipe, device: str) -> torch.dtype:
    """In which type convolutions compute; `auto` is float32 on a CPU."""
    if recipe.precision != "auto":
        return DTYPES[recipe.precision]
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
