"""Update rules, learning rates and averaging, each against the same computation written out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from convatlas.train.optim import CaffeSGD, RMSpropTF, average_of, averaged, build_optimizer, lr_at, polyak
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


# --- SGD in Caffe's form ---

FALLING = (0.1, 0.1, 0.01, 0.01, 0.2, 0.2)


def falling(make) -> np.ndarray:
    """The parameter after each step, at the rates FALLING."""
    p = nn.Parameter(torch.tensor(START))
    optimizer = make([p])
    path = []
    for lr, gradient in zip(FALLING, GRADIENTS, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = torch.tensor(gradient)
        optimizer.step()
        path.append(p.detach().numpy().copy())
    return np.stack(path)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_caffes_sgd_is_the_papers_formula(momentum):
    w, v, expected = START.copy(), np.zeros(5), []
    for lr, gradient in zip(FALLING, GRADIENTS, strict=True):
        v = momentum * v - 0.0005 * lr * w - lr * gradient  # NIPS 2012, Sec. 5
        w = w + v
        expected.append(w)
    found = falling(lambda ps: CaffeSGD(ps, 1.0, momentum=momentum, weight_decay=0.0005))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_caffes_sgd_is_torchs_until_the_rate_changes():
    ours = falling(lambda ps: CaffeSGD(ps, 1.0, momentum=0.9, weight_decay=0.01))
    torchs = falling(lambda ps: torch.optim.SGD(ps, 1.0, momentum=0.9, weight_decay=0.01))
    np.testing.assert_allclose(ours[:2], torchs[:2], rtol=1e-12)
    assert np.abs(ours[2] - torchs[2]).min() > 1e-3


# --- torch's own rules, as the recipe means them ---


def steps_of(recipe) -> np.ndarray:
    """The weight of a linear layer after each of the gradients."""
    layer = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(START)[None])
    optimizer = build_optimizer(layer, recipe)
    path = []
    for gradient in GRADIENTS:
        layer.weight.grad = torch.tensor(gradient)[None]
        optimizer.step()
        path.append(layer.weight.detach().numpy()[0].copy())
    return np.stack(path)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_by_hand(nesterov):
    lr, m, decay = 0.1, 0.8, 0.01
    p, v, expected = START.copy(), np.zeros(5), []
    for gradient in GRADIENTS:
        g = gradient + decay * p
        v = m * v + g
        p = p - lr * (g + m * v if nesterov else v)
        expected.append(p)
    found = steps_of(Recipe(optimizer="sgd", lr=lr, momentum=m, nesterov=nesterov, weight_decay=decay))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_adamw_by_hand():
    lr, beta1, beta2, decay = 0.01, 0.85, 0.999, 0.05
    p, mean, square, expected = START.copy(), np.zeros(5), np.zeros(5), []
    for n, g in enumerate(GRADIENTS, 1):
        p = p * (1 - lr * decay)
        mean, square = beta1 * mean + (1 - beta1) * g, beta2 * square + (1 - beta2) * g**2
        p = p - lr * (mean / (1 - beta1**n)) / (np.sqrt(square / (1 - beta2**n)) + 1e-8)
        expected.append(p)
    found = steps_of(Recipe(optimizer="adamw", lr=lr, momentum=beta1, weight_decay=decay))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


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
    recipe = Recipe(optimizer="rmsprop_tf", lr=0.045, momentum=0.7, rho=0.8, eps=0.1)
    optimizer = build_optimizer(Tiny().build(), recipe)
    assert type(optimizer) is RMSpropTF
    assert {(g["lr"], g["momentum"], g["decay"], g["eps"]) for g in optimizer.param_groups} == {(0.045, 0.7, 0.8, 0.1)}


def test_caffes_sgd_gets_its_options():
    optimizer = build_optimizer(Tiny().build(), Recipe(optimizer="sgd_caffe", lr=0.3, momentum=0.8))
    assert type(optimizer) is CaffeSGD
    assert {(g["lr"], g["momentum"]) for g in optimizer.param_groups} == {(0.3, 0.8)}


def decayed_names(net, recipe) -> set[str]:
    decayed = {
        id(p) for g in build_optimizer(net, recipe).param_groups if g["weight_decay"] == 0.01 for p in g["params"]
    }
    return {name for name, p in net.named_parameters() if id(p) in decayed}


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_caffe", "adamw", "rmsprop_tf"])
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


@pytest.mark.parametrize("network", ["mobilenet_v1", "shufflenet.g3", "resnext50_32x4d"])
def test_depthwise_filters_may_be_exempt(network):
    net = spec(network).skeleton()
    weights = {n for n, p in net.named_parameters() if p.dim() > 1}
    depthwise = {n for n, p in net.named_parameters() if p.dim() == 4 and p.shape[1] == 1}
    assert decayed_names(net, Recipe(weight_decay=0.01)) == weights
    assert decayed_names(net, Recipe(weight_decay=0.01, decay_depthwise=False)) == weights - depthwise
    assert len(depthwise) == {"mobilenet_v1": 13, "shufflenet.g3": 16, "resnext50_32x4d": 0}[network]


def test_outside_the_head_the_rate_is_smaller():
    net = Tiny().build()
    head = {name for name, _ in net.named_parameters() if name.startswith("head.")}
    optimizer = build_optimizer(net, Recipe(lr=0.5, backbone_lr=0.1), head)
    scales = {id(p): (g["scale"], g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    for name, p in net.named_parameters():
        assert scales[id(p)] == ((1.0, 0.5) if name in head else (0.1, 0.05)), name
    alike = build_optimizer(net, Recipe(lr=0.5), head)
    assert {g["scale"] for g in alike.param_groups} == {1.0}


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


@pytest.mark.parametrize(
    ("name", "epoch", "rate"),
    [
        ("inception", 1.99, 0.045),
        ("inception", 2, 0.045 * 0.94),
        ("inception", 99, 0.045 * 0.94**49),
        ("mobilenet_v2", 0.99, 0.045),
        ("mobilenet_v2", 1, 0.045 * 0.98),
        ("mobilenet_v2", 299, 0.045 * 0.98**299),
        ("googlenet", 7.99, 0.01),
        ("googlenet", 16, 0.01 * 0.96**2),
        ("densenet", 29.99, 0.1),
        ("densenet", 30, 0.01),
        ("densenet", 89.99, 0.001),
        ("senet", 29.99, 0.6),
        ("senet", 99.99, 0.0006),
        ("densenet_cifar", 149.99, 0.1),
        ("densenet_cifar", 225, 0.001),
        ("shufflenet", 0, 0.5),
        ("shufflenet", 120, 0.25),
        ("shufflenet", 240, 0),
    ],
)
def test_schedules_of_the_papers(name, epoch, rate):
    assert lr_at(Recipe.load(name), round(epoch * 1000), 1000) == pytest.approx(rate)


CIFAR_STEPS = 352  # batches of 128 in 45,000 images


@pytest.mark.parametrize("name", ["resnet_cifar", "resnet110_cifar", "preact_resnet_cifar"])
def test_the_schedule_of_cifar_in_iterations(name):
    recipe = Recipe.load(name)
    warm = name != "resnet_cifar"
    assert recipe.epochs * CIFAR_STEPS == pytest.approx(64_000, abs=CIFAR_STEPS)
    for step, rate in ((399, 0.01 if warm else 0.1), (400, 0.1), (31_999, 0.1), (32_100, 0.01), (47_999, 0.01),
                       (48_100, 0.001), (64_000, 0.001)):  # fmt: skip
        assert lr_at(recipe, step, CIFAR_STEPS) == pytest.approx(rate), step


def rows(*accuracies):
    return [{"val_accuracy": accuracy, "val_loss": 0.0} for accuracy in accuracies]


def test_on_a_plateau_the_rate_falls():
    recipe = TEN.replaced(schedule="plateau", patience=2, gamma=0.1)
    for history, falls in (
        ((), 0),
        ((0.5, 0.6, 0.7, 0.8), 0),
        ((0.5, 0.5), 0),
        ((0.5, 0.5, 0.5), 1),  # the same is not better
        ((0.5, 0.4, 0.6, 0.5), 0),
        ((0.5, 0.4, 0.3, 0.6), 1),  # what came later does not take it back
        ((0.5, 0.4, 0.3, 0.45, 0.45), 2),  # nor is what is worse than the best an improvement
        ((0.0,) * 7, 3),
    ):
        assert lr_at(recipe, 95, 10, rows(*history)) == pytest.approx(0.1**falls), history
    assert lr_at(recipe.replaced(warmup=2), 5, 10, rows(0, 0, 0)) == pytest.approx(6 / 21)


def test_warmup_at_a_constant_rate():
    found = rates(TEN.replaced(warmup=2, warmup_lr=0.01, schedule="step", milestones=(0.5,)))
    assert found == pytest.approx([0.01] * 20 + [1.0] * 30 + [0.1] * 50)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "exponential", "plateau"])
def test_warmup_rises_in_equal_steps_to_the_peak(schedule):
    recipe = TEN.replaced(warmup=2, schedule=schedule, every=3)
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


@pytest.mark.parametrize("start", [0, 1, 3])
def test_polyaks_average_is_the_mean_of_what_came_after_its_start(start):
    torch.manual_seed(0)
    net = seq(conv=nn.Conv2d(1, 2, 1), norm=nn.BatchNorm2d(2))
    average, seen = polyak(net, start), []
    for n in range(1, 8):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
            net(torch.randn(8, 1, 3, 3))
        average.update_parameters(net)
        seen.append({name: t.double().clone() for name, t in net.state_dict().items()})
        for name, t in average.module.state_dict().items():
            whole = name.endswith("num_batches_tracked")
            used = seen[-1:] if whole or n <= start else seen[start:]
            wanted = torch.stack([values[name] for values in used]).mean(0)
            torch.testing.assert_close(t.double(), wanted, rtol=1e-5, atol=1e-6)


def test_which_average_a_recipe_means():
    net = Tiny().build()
    assert average_of(net, Recipe(), 100) is None
    followers = {}
    for recipe in (Recipe(ema=0.5), Recipe(polyak=0.25)):
        average = average_of(net, recipe, 8)
        p = next(net.parameters())
        for n in range(8):
            with torch.no_grad():
                p.fill_(float(n))
            average.update_parameters(net)
        followers[recipe.ema] = next(average.parameters()).flatten()[0].item()
    assert followers[0.0] == pytest.approx((6 + 7) / 2)
    expected = 0.0
    for n in range(1, 8):
        keep = min(0.5, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * n
    assert followers[0.5] == pytest.approx(expected)


def test_the_average_leaves_the_network_as_it_is():
    net = Tiny().build()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    average = averaged(net, 0.9)
    average.update_parameters(net)
    average.update_parameters(net)
    assert same(net.state_dict(), before)
    copies = {t.data_ptr() for t in average.module.state_dict().values()}
    assert copies.isdisjoint(t.data_ptr() for t in net.state_dict().values())
