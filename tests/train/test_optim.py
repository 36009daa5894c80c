"""Update rules, learning rates and averaging, each against the same computation written out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from convatlas.train.optim import RMSpropTF, averaged, build_optimizer, lr_at
from convatlas.train.recipe import Recipe
from convatlas.tree import SE, Net, classifier, seq
from convatlas.zoo import spec

from tiny import Tiny, same

GRADIENTS = np.random.default_rng(0).normal(size=(6, 5))
START = np.linspace(-1, 1, 5)


def run(make, gradients=GRADIENTS) -> np.ndarray:
    """The parameter after each step, (steps, 5)."""
    p = nn.Parameter(torch.tensor(START))
    optimizer = make([p])
    path = []
    for gradient in gradients:
        p.grad = torch.tensor(gradient)
        optimizer.step()
        path.append(p.detach().numpy().copy())
    return np.stack(path)


# --- RMSProp in TensorFlow's form ---


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("eps", [1.0, 1e-3])
def test_rmsprop_is_tensorflows(momentum, eps, weight_decay):
    lr, decay = 0.05, 0.8
    p, square, velocity, expected = START.copy(), np.ones(5), np.zeros(5), []
    for gradient in GRADIENTS:
        g = gradient + weight_decay * p
        square = decay * square + (1 - decay) * g**2
        velocity = momentum * velocity + lr * g / np.sqrt(square + eps)
        p = p - velocity
        expected.append(p)
    found = run(lambda ps: RMSpropTF(ps, lr, decay=decay, momentum=momentum, eps=eps, weight_decay=weight_decay))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_rmsprop_is_not_torchs():
    ours = run(lambda ps: RMSpropTF(ps, 0.05, decay=0.9, momentum=0.9, eps=1.0))
    torchs = run(lambda ps: torch.optim.RMSprop(ps, 0.05, alpha=0.9, momentum=0.9, eps=1.0))
    assert np.abs(ours - torchs).min() > 1e-4


def test_a_new_rate_acts_at_once_and_leaves_the_momentum_that_is_there():
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = RMSpropTF([p], 1.0, momentum=0.5, eps=0.0)
    p.grad = torch.ones_like(p)
    optimizer.step()  # the mean square stays 1, so the step is 1
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert p.item() == pytest.approx(-1 - (0.5 * 1 + 0.1))


def test_a_parameter_without_gradient_is_left_alone():
    p = nn.Parameter(torch.ones(2))
    optimizer = RMSpropTF([p], 1.0, weight_decay=1.0)
    optimizer.step()
    assert p.tolist() == [1, 1]
    assert not optimizer.state


# --- which rule, with which options ---


def test_sgd_gets_its_options():
    optimizer = build_optimizer(Tiny().build(), Recipe(optimizer="sgd", lr=0.3, momentum=0.8, nesterov=True))
    assert type(optimizer) is torch.optim.SGD
    assert {(g["lr"], g["momentum"], g["nesterov"], g["dampening"]) for g in optimizer.param_groups} == {
        (0.3, 0.8, True, 0)
    }


def test_sgd_without_momentum_has_no_nesterov():
    optimizer = build_optimizer(Tiny().build(), Recipe(optimizer="sgd", momentum=0, nesterov=True))
    assert not optimizer.param_groups[0]["nesterov"]
    plain = build_optimizer(Tiny().build(), Recipe(optimizer="sgd", nesterov=False))
    assert not plain.param_groups[0]["nesterov"]


def test_adamw_gets_its_options():
    optimizer = build_optimizer(Tiny().build(), Recipe(optimizer="adamw", lr=1e-3, momentum=0.85, weight_decay=0.05))
    assert type(optimizer) is torch.optim.AdamW
    assert [(g["lr"], g["betas"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (1e-3, (0.85, 0.999), 0.05),
        (1e-3, (0.85, 0.999), 0.0),
    ]


def test_rmsprop_gets_its_options():
    optimizer = build_optimizer(Tiny().build(), Recipe(optimizer="rmsprop_tf", lr=0.045, momentum=0.7))
    assert type(optimizer) is RMSpropTF
    assert {(g["lr"], g["momentum"], g["decay"], g["eps"]) for g in optimizer.param_groups} == {(0.045, 0.7, 0.9, 1.0)}


def decayed_names(net, recipe) -> set[str]:
    decayed = {
        id(p) for g in build_optimizer(net, recipe).param_groups if g["weight_decay"] == 0.01 for p in g["params"]
    }
    return {name for name, p in net.named_parameters() if id(p) in decayed}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop_tf"])
def test_weights_are_decayed_but_not_biases_and_norms(optimizer):
    recipe = Recipe(optimizer=optimizer, weight_decay=0.01)
    net = spec("vgg11_bn").skeleton()
    weights = {n for n, p in net.named_parameters() if p.dim() > 1}
    assert decayed_names(net, recipe) == weights
    assert 0 < len(weights) < len(list(net.parameters()))
    assert decayed_names(net, recipe.replaced(decay_norm=True)) == {n for n, _ in net.named_parameters()}


def test_the_biases_of_gates_are_not_decayed():
    net = Net({"gate": SE(2)(4), "norm": nn.GroupNorm(2, 4), "head": classifier(4, 2)})
    names = decayed_names(net, Recipe(weight_decay=0.01))
    assert names == {"gate.gate.fc1.weight", "gate.gate.fc2.weight", "head.fc.weight"}


def test_every_trainable_parameter_is_in_one_group_and_frozen_ones_in_none():
    net = Tiny(aux=True).build()
    net.stem.requires_grad_(False)
    given = [p for g in build_optimizer(net, Recipe()).param_groups for p in g["params"]]
    assert len(given) == len({id(p) for p in given})
    assert {id(p) for p in given} == {id(p) for p in net.parameters() if p.requires_grad}


# --- the learning rate ---

TEN = Recipe(lr=1.0, epochs=10, warmup=0)  # 10 epochs of 10 steps


def rates(recipe: Recipe, steps_per_epoch: int = 10) -> list[float]:
    return [lr_at(recipe, step, steps_per_epoch) for step in range(recipe.epochs * steps_per_epoch)]


def test_cosine():
    found = rates(TEN)
    assert found == pytest.approx([(1 + math.cos(math.pi * step / 100)) / 2 for step in range(100)])
    assert (found[0], found[50]) == pytest.approx((1, 0.5))
    assert lr_at(TEN, 100, 10) == pytest.approx(0, abs=1e-12)


def test_linear():
    recipe = TEN.replaced(schedule="linear")
    assert rates(recipe) == pytest.approx([1 - step / 100 for step in range(100)])
    assert lr_at(recipe, 100, 10) == 0


def test_step_falls_at_its_milestones_and_not_before():
    found = rates(TEN.replaced(schedule="step", milestones=(0.5, 0.75), gamma=0.1))
    assert found == pytest.approx([1.0] * 50 + [0.1] * 25 + [0.01] * 25)
    assert rates(TEN.replaced(schedule="step", milestones=())) == [1.0] * 100


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
def test_warmup_rises_in_equal_steps_to_the_peak(schedule):
    recipe = TEN.replaced(warmup=2, schedule=schedule)
    found = rates(recipe)
    assert found[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert found[20] == pytest.approx(1)
    assert max(found) == found[20]
    assert min(found) > 0


def test_warmup_may_be_a_part_of_an_epoch_or_longer_than_training():
    assert rates(TEN.replaced(warmup=0.25))[:4] == pytest.approx([1 / 3.5, 2 / 3.5, 3 / 3.5, 1], rel=1e-3)
    assert rates(TEN.replaced(warmup=20))[-1] == pytest.approx(100 / 201)
    assert rates(TEN.replaced(epochs=1, warmup=1), 1) == [0.5]


# --- averaging ---


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_is_the_one_computed_by_hand_buffers_included(decay):
    torch.manual_seed(0)
    net = seq(conv=nn.Conv2d(1, 2, 1), norm=nn.BatchNorm2d(2))
    average = averaged(net, decay)
    expected: dict[str, np.ndarray] = {}
    for n in range(6):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
            net(torch.randn(8, 1, 3, 3))  # moves the statistics
        average.update_parameters(net)
        keep = 0 if n == 0 else min(decay, (1 + n) / (10 + n))
        for name, t in net.state_dict().items():
            value = t.double().numpy()
            whole = name.endswith("num_batches_tracked")
            expected[name] = value if n == 0 or whole else keep * expected[name] + (1 - keep) * value
    found = average.module.state_dict()
    assert found.keys() == expected.keys()
    assert found["norm.num_batches_tracked"] == 6
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not same(found, net.state_dict())


def test_the_average_leaves_the_network_as_it_is():
    net = Tiny().build()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    average = averaged(net, 0.9)
    average.update_parameters(net)
    average.update_parameters(net)
    assert same(net.state_dict(), before)
    copies = {t.data_ptr() for t in average.module.state_dict().values()}
    assert copies.isdisjoint(t.data_ptr() for t in net.state_dict().values())
