"""The experiments on factorised convolutions and MobileNet's blocks: their facts, their helpers, and a short run."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from convatlas.lab import Lab, trials
from convatlas.lab.claims import (
    bottleneck_shapes,
    depthwise_separable,
    factorised_convolutions,
    linear_bottleneck,
    strided_depthwise,
    width_and_resolution,
)
from convatlas.lab.run import run, write
from convatlas.tree import cost
from convatlas.zoo import spec

from tiny import splits

MODULES = (bottleneck_shapes, depthwise_separable, factorised_convolutions, linear_bottleneck, strided_depthwise,
           width_and_resolution)  # fmt: skip
IDS = [module.EXPERIMENT.name for module in MODULES]


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_the_exact_part_holds(module):
    facts = module.EXPERIMENT.exact()
    assert [fact.what for fact in facts if not fact.holds] == []
    json.dumps([fact.to_dict() for fact in facts])


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_it_is_measured_judged_and_drawn(module, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "SHORT_STEPS", 2)
    monkeypatch.setattr(depthwise_separable, "WIDTHS", (4, 8))
    monkeypatch.setattr(strided_depthwise, "TIMED", {"width": 0.125, "size": 32})
    monkeypatch.setattr(linear_bottleneck, "MATRICES", 3)
    for racing in (depthwise_separable, factorised_convolutions, strided_depthwise):
        monkeypatch.setattr(racing, "race", lambda nets, images, seconds: {name: [1e-3] * 9 for name in nets})
    place = Lab(splits(train=16, val=8, test=8), tmp_path, seeds=(0,))
    record = run(replace(module.EXPERIMENT, exact=list), place, "")
    assert len(json.dumps(record["measured"])) < 60_000
    assert len(record["findings"]) == len(module.EXPERIMENT.judge(record["measured"]))
    write(module.EXPERIMENT, record, tmp_path)


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("form", factorised_convolutions.FORMS)
def test_factorised_networks_take_images_of_any_size(form, size):
    arch = spec("resnet20", classes=3, size=size)
    assert factorised_convolutions.network(form, arch)(torch.zeros(2, 3, size, size)).shape == (2, 3)


@pytest.mark.parametrize(("form", "count"), [("5x5", 25), ("3x3, 3x3", 18), ("1x5, 5x1", 10), ("1x5 | 5x1", 5)])
def test_weights_of_each_form_by_hand(form, count):
    assert factorised_convolutions.weights(form) == count * 64 * 64


def test_times_fewer_is_the_reciprocal_of_the_papers_ratio():
    assert depthwise_separable.times_fewer(16) == pytest.approx(float(1 / (Fraction(1, 16) + Fraction(1, 9))))


def test_pooling_takes_the_place_of_every_stride():
    arch = spec("mobilenet_v1.cifar", width=0.125, size=16)
    net = strided_depthwise.pooled(arch, torch.nn.MaxPool2d)
    assert strided_depthwise.strided(net) == []
    assert sum(isinstance(m, torch.nn.MaxPool2d) for m in net.modules()) == 3
    assert net(torch.zeros(2, 3, 16, 16)).shape == arch.build()(torch.zeros(2, 3, 16, 16)).shape


def test_a_smaller_resolution_is_a_smaller_image():
    arch = spec("mobilenet_v1.cifar", width=0.125, depths=(1, 1, 1, 1, 1), size=32)
    whole, half = (cost(width_and_resolution.network(arch, rho), 32) for rho in (1, 0.5))
    assert whole.macs == cost(arch.build(), 32).macs
    assert half.macs == cost(arch.build(), 16).macs


def test_relu_in_two_dimensions_by_hand():
    identity = torch.eye(2, dtype=torch.float64)
    x = torch.tensor([[1.0, 1.0, -1.0], [2.0, -2.0, -2.0]], dtype=torch.float64)
    assert linear_bottleneck.active(x, identity).tolist() == [2, 1, 0]
    assert linear_bottleneck.lost(x, identity) == pytest.approx(2 / 3)
    assert torch.equal(linear_bottleneck.back(x, identity), x.relu())
    assert linear_bottleneck.error(x, 3 * x) == pytest.approx(0, abs=1e-12)
    assert linear_bottleneck.error(x, x.relu()) == pytest.approx((9 / 15) ** 0.5)  # x.relu() is x's projection on it


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_share_lost_is_n_plus_1_over_2_to_the_n_on_average(n):
    """Each dimension lets half of all directions through."""
    shares = [linear_bottleneck.lost(linear_bottleneck.circle(360), linear_bottleneck.matrix(n, seed))
              for seed in range(400)]  # fmt: skip
    assert sum(shares) / 400 == pytest.approx((n + 1) / 2**n, abs=0.03)


@pytest.mark.parametrize("arm", linear_bottleneck.ARMS)
def test_bottlenecks_end_with_or_without_activation(arm):
    width, linear = linear_bottleneck.ARMS[arm]
    net = linear_bottleneck.network(width, linear, spec("resnet20", classes=3, size=16))
    rows = [row for row in cost(net, 16).rows if ".project." in row.path]
    assert {row.shape[0] for row in rows} == {width}
    assert any(row.kind == "ReLU6" for row in rows) is not linear


def test_shapes_of_the_bottlenecks_by_hand():
    network = bottleneck_shapes.folded("mobilenet_v2")
    assert bottleneck_shapes.body(network, "stage2.1.body") == [24, 144, 144, 24]
    assert bottleneck_shapes.widening([24, 144, 144, 24]) == 6
    assert bottleneck_shapes.between(network) == 16 * 112 * 112 * 2
