"""The loss, in every combination of what a recipe may ask for, against the same step computed by hand in float64."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from convatlas.train.loop import begin
from convatlas.train.loss import balanced, mixed, total_loss
from convatlas.train.recipe import Recipe
from convatlas.train.step import learn
from convatlas.train.task import Machine

from tiny import PRE, Tiny, images, splits, task

CLASSES = 3
N = 12


# --- mixing ---


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_one_mean_of_neighbours_for_images_and_targets(alpha):
    shares = []
    for seed in range(400):
        torch.manual_seed(seed)
        pixels, labels = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 2, 1])
        found, targets = mixed(pixels, labels, Recipe(mixup=alpha), CLASSES)
        one_hot, share = torch.eye(CLASSES)[labels], targets[0, 0].item()  # the neighbour of a 0 is a 1
        torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.roll(1, 0))
        torch.testing.assert_close(found, share * pixels + (1 - share) * pixels.roll(1, 0))
        shares.append(share)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)  # of Beta(alpha, alpha)


def test_cutmix_replaces_a_rectangle_and_targets_by_its_area():
    areas = []
    for seed in range(200):
        torch.manual_seed(seed)
        pixels, labels = torch.rand(4, 3, 8, 6), torch.tensor([0, 1, 2, 1])
        found, targets = mixed(pixels, labels, Recipe(cutmix=1.0), CLASSES)
        cut = (found != pixels).any(1)
        assert torch.equal(cut[0], cut[3])
        assert torch.equal(found, torch.where(cut[:, None], pixels.roll(1, 0), pixels))
        rows, columns = cut[0].any(1), cut[0].any(0)
        assert torch.equal(cut[0], rows[:, None] & columns)
        area = cut[0].double().mean().item()
        one_hot = torch.eye(CLASSES)[labels]
        torch.testing.assert_close(targets, (1 - area) * one_hot + area * one_hot.roll(1, 0))
        areas.append(area)
    assert len(set(areas)) > 5


def test_with_both_each_batch_takes_one():
    recipe, cut = Recipe(mixup=1.0, cutmix=1.0), 0
    for seed in range(200):
        torch.manual_seed(seed)
        pixels = torch.rand(2, 3, 8, 8)
        found, _ = mixed(pixels, torch.tensor([0, 1]), recipe, CLASSES)
        cut += bool((found == pixels).any())  # mixup leaves no pixel as it is
    assert 70 < cut < 130


def test_without_mixing_nothing_is_drawn_or_changed():
    torch.manual_seed(0)
    pixels, labels, before = torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), torch.get_rng_state()
    assert mixed(pixels, labels, Recipe(), CLASSES) == (pixels, labels)
    assert torch.equal(torch.get_rng_state(), before)


# --- class weights ---


def test_with_balanced_weights_classes_count_alike_and_images_one_in_the_mean():
    labels = torch.tensor([0] * 6 + [1] * 3 + [3] * 1)
    weights = balanced(labels, 5)
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 0, 10 / 3, 0])
    assert weights[labels].mean().item() == pytest.approx(1)
    assert balanced(torch.arange(4), 4).tolist() == [1] * 4


def test_labels_and_the_same_as_probabilities_have_one_loss():
    torch.manual_seed(0)
    scores, labels = torch.randn(5, CLASSES), torch.tensor([0, 0, 1, 2, 0])
    for smoothing, weights in itertools.product((0.0, 0.1), (None, torch.tensor([0.5, 2.0, 1.0]))):
        recipe = Recipe(label_smoothing=smoothing)
        soft = total_loss(scores, {}, torch.eye(CLASSES)[labels], recipe, weights)
        torch.testing.assert_close(total_loss(scores, {}, labels, recipe, weights), soft)


def test_the_loss_of_half_precision_logits_is_computed_in_float32():
    scores, labels = (20 * torch.randn(64, CLASSES)).bfloat16(), torch.zeros(64, dtype=torch.int64)
    loss = total_loss(scores, {"stem": scores}, labels, Recipe(), None)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1.3 * by_hand(scores.double(), torch.eye(3)[labels], 0, None).item(), rel=1e-6)


# --- a whole step ---


def by_hand(scores, targets, smoothing, weights):
    """-sum_c w_c t_c log p_c, the mean over images; float64."""
    t = (1 - smoothing) * targets.double() + smoothing / scores.shape[1]
    w = torch.ones(scores.shape[1]) if weights is None else weights
    log_p = scores - scores.exp().sum(1, keepdim=True).log()
    return -(w.double() * t * log_p).sum() / len(scores)


def step_by_hand(net, pixels, labels, recipe, weights, lr):
    """The parameters after one step of SGD without momentum; float64."""
    torch.manual_seed(7)
    x, targets = mixed(PRE.normalize(pixels), labels, recipe, CLASSES)
    targets = torch.eye(CLASSES)[targets] if targets.dim() == 1 else targets
    net = copy.deepcopy(net).double()
    logits, side = net(x.double(), aux=True)
    loss = by_hand(logits, targets, recipe.label_smoothing, weights)
    for scores in side.values():
        loss = loss + recipe.aux_weight * by_hand(scores, targets, recipe.label_smoothing, weights)
    names, parameters = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    norm = sum(g.square().sum() for g in gradients).sqrt()
    factor = min(1.0, recipe.clip / norm.item()) if recipe.clip else 1.0
    return loss.item(), dict(
        zip(names, (p - lr * factor * g for p, g in zip(parameters, gradients, strict=True)), strict=True)
    )


MIXES = ({}, {"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "+".join(mix) or "unmixed")
@pytest.mark.parametrize("weighted", ["none", "balanced"])
def test_a_step_is_the_one_computed_by_hand(weighted, mix, precision):
    pixels = torch.stack([images(N, 5).read(i) for i in range(N)])
    labels = torch.tensor([0] * 7 + [1] * 3 + [2] * 2)
    data = splits(N)
    data = replace(data, train=replace(data.train, labels=labels))
    worst = []
    for aux, smoothing, accumulate, clip in itertools.product((False, True), (0.0, 0.1), (1, 3), (0.0, 0.05)):
        recipe = Recipe(
            label_smoothing=smoothing, class_weights=weighted, accumulate=accumulate, clip=clip, precision=precision,
            momentum=0, weight_decay=0, aux_weight=0.4, **mix,
        )  # fmt: skip
        job = task(recipe, Tiny(aux=aux, norm=False, dropout=0.0), data)
        state = begin(job, Machine())
        loss, wanted = step_by_hand(state.net, pixels, labels, recipe, job.class_weights, lr=0.5)
        torch.manual_seed(7)
        assert learn(state, job, Machine(), pixels, labels, 0.5, N)
        before = dict(begin(job, Machine()).net.named_parameters())
        assert state.sums["loss"] / N == pytest.approx(loss, rel=1e-5 if precision == "fp32" else 1e-2)
        moved = torch.cat([(p - before[name]).flatten().double() for name, p in state.net.named_parameters()])
        right = torch.cat([(wanted[name] - before[name]).flatten() for name in before])
        worst.append(((moved - right).norm() / right.norm()).item())
        if clip:
            total = sum((wanted[name] - p).square().sum() for name, p in before.items()).sqrt().item()
            assert total == pytest.approx(0.5 * clip, rel=1e-4)  # so that clipping was tried
    assert max(worst) < (2e-5 if precision == "fp32" else 3e-2)  # bf16 has 8 bits
