"""The experiments on pre-activation, shortcuts, concatenation and Squeeze-and-Excitation."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn

from convatlas.lab import Lab, experiment, trials
from convatlas.lab.claims import concatenation, pre_activation, shortcut_options, squeeze_excitation
from convatlas.report import figures
from convatlas.tree import SE, Concat, Residual, conv

from tiny import splits

NAMES = ("pre-activation", "shortcut-options", "concatenation", "squeeze-excitation")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exact_holds(name):
    facts = experiment(name).exact()
    assert [fact.what for fact in facts if not fact.holds] == []
    json.dumps([fact.to_dict() for fact in facts])


@pytest.fixture
def cheap(monkeypatch):
    """Few steps of few and shallow networks, and no further process."""
    monkeypatch.setattr(trials, "SHORT_STEPS", 1)
    monkeypatch.setattr(pre_activation, "DEEP", "preact_resnet110")
    monkeypatch.setattr(pre_activation, "SHORT", (1, 1, 1))
    monkeypatch.setattr(pre_activation, "ProcessPoolExecutor", lambda *args, initializer: ThreadPoolExecutor(1))
    monkeypatch.setattr(pre_activation, "gradients", lambda arch, images, labels, seed: [2.0, 1.0])
    monkeypatch.setattr(squeeze_excitation, "BODIES", {"ResNet-8": squeeze_excitation.BODIES["ResNet-8"]})
    monkeypatch.setattr(squeeze_excitation, "PLACES", {"SE-POST": squeeze_excitation.PLACES["SE-POST"]})


@pytest.mark.parametrize("name", NAMES)
def test_it_is_measured_judged_and_drawn(name, tmp_path, cheap):
    each = experiment(name)
    measured = json.loads(json.dumps(each.measure(Lab(splits(), tmp_path, seeds=(0,)))))
    assert len(json.dumps(measured)) < 60_000
    assert all(len(of_arm) == 1 for of_arm in measured["accuracy"].values())
    assert all(-1 <= finding.mean <= 1 or "nats" in finding.what for finding in each.judge(measured))
    assert figures.png(lambda figure: each.draw(figure, measured), *each.size)[:4] == b"\x89PNG"


# --- pre-activation ---


def test_orders_differ_in_what_is_on_the_way_and_in_what_is_added():
    assert not pre_activation.is_identity("original")
    assert pre_activation.is_identity("full_preactivation")
    assert pre_activation.adds_no_negative("relu_before_addition")
    assert not pre_activation.adds_no_negative("full_preactivation")


def test_gradients_are_those_of_every_unit_relative_to_the_last():
    arch = trials.spec("preact_resnet110", depths=(2, 1, 1), width=4)
    images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    found = pre_activation.gradients(arch, images, labels, 0)
    assert len(found) == 4
    assert found[-1] == 1
    torch.manual_seed(0)
    net = arch.build()
    nn.functional.cross_entropy(net(images), labels).backward()
    first, last = (
        net.get_parameter(f"{unit}.res.body.conv1.conv.weight").grad.norm() for unit in ("stage1.0", "stage3.0")
    )
    assert found[0] == pytest.approx((first / last).item(), rel=0.01)


# --- concatenation ---


def test_the_rank_is_what_the_joined_maps_still_tell():
    torch.manual_seed(0)
    a, b = conv(6, 3), conv(6, 3)
    assert concatenation.rank(Concat(a=a, b=b), 6) == 6
    assert concatenation.rank(Residual(a, b), 6) == 3
    assert concatenation.rank(Concat(a=a, b=a), 6) == 3


def dense() -> nn.Module:
    torch.manual_seed(0)
    return concatenation.networks(classes=3, size=16)[concatenation.DENSE].build()


def test_reuse_is_the_mean_weight_by_source():
    net = dense()
    c0, k = concatenation.C0, concatenation.K
    nn.init.ones_(net.get_parameter("block1.2.new.conv.conv.weight"))
    with torch.no_grad():
        net.get_parameter("block1.2.new.conv.conv.weight")[:, c0 : c0 + k] = -3.0  # of what layer 1 has added
    first, *_ = concatenation.reuse(net)
    mean = (c0 + k + 3 * k) / (c0 + 2 * k)
    assert [row[2] for row in first] == [pytest.approx(v / mean, abs=1e-3) for v in (1, 3, 1)] + [None, None]
    assert [row[-1] for row in first] == pytest.approx([1] * 5, abs=0.3)  # the transition reads all


def test_a_shortsighted_layer_reads_the_newest_maps_only():
    net = dense()
    blind = concatenation.shortsighted(net)
    weight, before = (n.get_parameter("block2.3.new.conv.conv.weight") for n in (blind, net))
    assert weight[:, : -concatenation.K].abs().max() == 0 < before[:, : -concatenation.K].abs().min()
    assert torch.equal(weight[:, -concatenation.K :], before[:, -concatenation.K :])
    first = [n.get_parameter("block2.0.new.conv.conv.weight") for n in (blind, net)]
    assert torch.equal(*first)


# --- shortcuts and Squeeze-and-Excitation ---


def test_a_projection_costs_its_weights_and_its_norm():
    assert shortcut_options.projection(4, 8) == 4 * 8 + 8 + 8


def test_the_share_is_that_of_the_variance_between_classes():
    labels = torch.tensor([0, 0, 2, 2])
    means, share = squeeze_excitation.by_class(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), labels)
    assert means.tolist() == [[1.0], [5.0]]
    assert share == pytest.approx(16 / 20)  # 4 (2^2) of 9 + 1 + 1 + 9
    assert squeeze_excitation.by_class(torch.tensor([[1.0], [1.0], [3.0], [3.0]]), labels)[1] == pytest.approx(1)


def test_places_are_dropped_at_the_full_budget_only(tmp_path):
    lab = Lab(splits(), tmp_path)
    short = squeeze_excitation.networks(lab)
    assert set(short) - set(squeeze_excitation.networks(replace(lab, budget="full"))) == set(squeeze_excitation.PLACES)
    assert all(isinstance(short[name].se, SE) for name in short if name.startswith("SE"))
