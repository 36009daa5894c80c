"""What training minimises, and the two ways to mix the images of a batch that change its targets.

One rule holds for every combination: the loss is the mean over the images.  Class weights multiply the terms of the
cross-entropy, -sum_c w_c t_c log p_c, and their mean over the training images is 1, so that nothing divides by them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from .recipe import Recipe


def mixed(images: Tensor, labels: Tensor, recipe: Recipe, classes: int) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix, each image (N, C, H, W) with its neighbour; one of both at random if the recipe has both.

    Float images and int64 labels (N,) -> images, targets (N, classes), or both as they were.  All randomness is from
    torch's global generator.
    """
    ways: list[torch.nn.Module] = []
    if recipe.mixup:
        ways.append(v2.MixUp(alpha=recipe.mixup, num_classes=classes))
    if recipe.cutmix:
        ways.append(v2.CutMix(alpha=recipe.cutmix, num_classes=classes))
    return v2.RandomChoice(ways)(images, labels) if ways else (images, labels)


def total_loss(
    logits: Tensor, side: dict[str, Tensor], targets: Tensor, recipe: Recipe, class_weights: Tensor | None
) -> Tensor:
    """Real loss + `aux_weight` x the loss of each auxiliary head [arXiv:1409.4842, Sec. 5], in float32.

    `targets` are labels (N,) or probabilities (N, classes); `class_weights` has shape (classes,).
    """
    if class_weights is not None and targets.dim() == 1:  # with labels, torch would divide by the sum of their weights
        targets = F.one_hot(targets, logits.shape[1]).float()
    real, *aux = (
        F.cross_entropy(scores.float(), targets, weight=class_weights, label_smoothing=recipe.label_smoothing)
        for scores in (logits, *side.values())
    )
    return real + recipe.aux_weight * sum(aux)


def balanced(labels: Tensor, classes: int) -> Tensor:
    """Weights (classes,) with which every class that has images counts alike: N / (classes with images x its images).

    A class without images has weight 0.
    """
    counts = torch.bincount(labels, minlength=classes)
    weights = len(labels) / (int((counts > 0).sum()) * counts.clamp(min=1))
    return torch.where(counts > 0, weights, 0.0).float()
