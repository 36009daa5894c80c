"""The experiments on heads, targets, depth and gradients: facts, what they compute by, and a run on tiny images."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from convatlas.lab import Lab, trials
from convatlas.lab.claims import auxiliary_heads, degradation, gradient_flow, label_smoothing
from convatlas.lab.few import few
from convatlas.tree import Net, bn_act_conv, seq
from convatlas.zoo import create

from tiny import splits


def lab(folder: Path, **more) -> Lab:
    return Lab(splits(), folder, (0, 1), **more)


@pytest.mark.parametrize("module", [auxiliary_heads, degradation, gradient_flow, label_smoothing])
def test_the_exact_parts_hold(module):
    facts = module.EXPERIMENT.exact()
    assert [fact.what for fact in facts if not fact.holds] == []


@pytest.mark.parametrize("module", [auxiliary_heads, degradation, gradient_flow, label_smoothing])
def test_they_run_and_are_judged_and_drawn_from_their_record(module, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "SHORT_STEPS", 2)
    monkeypatch.setattr(gradient_flow, "DEPTHS", (20, 110))
    monkeypatch.setattr(gradient_flow, "DENSE", {20: 22, 110: 22})
    measured = json.loads(json.dumps(module.EXPERIMENT.measure(lab(tmp_path))))
    assert len(json.dumps(measured)) < 60_000
    findings = module.EXPERIMENT.judge(measured)
    assert all(math.isfinite(finding.mean) and finding.low is not None for finding in findings)
    figure = Figure()
    module.EXPERIMENT.draw(figure, measured)
    assert all(axes.get_xlabel() or axes.get_title() or axes.get_ylabel() for axes in figure.axes)


# --- fewer images ---


def test_fewer_images_are_seen_as_often(tmp_path):
    fewer, fields = few(lab(tmp_path), 2)
    assert (len(fewer.splits.train), len(fewer.splits.val), len(fewer.splits.test)) == (35, 12, 30)
    assert fields == {}
    assert fewer.recipe.epochs * math.ceil(35 / fewer.recipe.batch) == trials.SHORT_STEPS
    whole = lab(tmp_path, budget="full")
    fewer, fields = few(whole, 2)
    assert fields == {"epochs": 2 * whole.recipe.epochs, "warmup": 2 * whole.recipe.warmup}
    assert list(fewer.splits.train.names[:2]) == [whole.splits.train.names[i] for i in (0, 2)]


# --- auxiliary heads ---


def test_the_arms_differ_in_nothing_but_the_heads(tmp_path):
    arch = lab(tmp_path).spec("resnet20")
    nets = {}
    for heads in (True, False):
        torch.manual_seed(3)
        nets[heads] = auxiliary_heads.network(arch, heads)
    bare = nets[False].state_dict()
    assert {name for name in nets[True].state_dict() if not name.startswith("aux.")} == bare.keys()
    assert all(torch.equal(value, nets[True].state_dict()[name]) for name, value in bare.items())
    for side in (16, 32):
        logits, aux = nets[True].eval()(torch.randn(1, 3, side, side), aux=True)
        assert [tuple(scores.shape) for scores in (logits, *aux.values())] == [(1, 3)] * 3


def test_the_gradient_of_a_part_is_taken_over_its_weights():
    net = Net({"stem": seq(conv=nn.Conv2d(1, 1, 1, bias=False)), "head": seq(flat=nn.Flatten(1), fc=nn.Linear(1, 2))})
    x, label = torch.ones(1, 1, 1, 1), torch.tensor([0])
    w, v, b = 2.0, torch.tensor([[0.5], [-1.0]]), torch.tensor([0.1, 0.2])
    nn.init.constant_(net.get_parameter("stem.conv.weight"), w)
    with torch.no_grad():
        net.get_parameter("head.fc.weight").copy_(v)
        net.get_parameter("head.fc.bias").copy_(b)
    delta = (v.flatten() * w + b).softmax(0) - torch.tensor([1.0, 0.0])
    found = auxiliary_heads.gradients(net, x, label)
    assert found["stem"] == pytest.approx(math.log10(abs(float(delta @ v.flatten())) / w), abs=1e-3)
    head = torch.cat([delta * w, delta]).norm() / torch.cat([v.flatten(), b]).norm()
    assert found["head"] == pytest.approx(math.log10(head), abs=1e-3)


# --- label smoothing ---


def test_the_optimum_has_the_smoothed_target_as_softmax():
    gap = label_smoothing.optimum(0.1, 4)
    probabilities = torch.tensor([gap, 0, 0, 0]).softmax(0)
    assert probabilities.tolist() == pytest.approx([0.925, 0.025, 0.025, 0.025])
    assert label_smoothing.optimum(0.1, 10) == pytest.approx(math.log(91))


def test_the_loss_pulls_the_logits_apart_up_to_the_optimum():
    best = label_smoothing.optimum(0.1, 10)
    assert label_smoothing.pull(best - 0.1, 0.1) > 0 > label_smoothing.pull(best + 0.1, 0.1)
    p = math.exp(2) / (math.exp(2) + 9)
    assert label_smoothing.pull(2, 0) == pytest.approx(1 - p, rel=1e-5)


# --- degradation ---


def test_a_network_of_another_width_or_with_other_units_is_not_what_a_shallower_one_computes():
    assert degradation.distance(20, 8) < 1e-9
    small, large = (degradation.network(create, "plain", layers).eval() for layers in (8, 20))
    x = torch.randn(2, 3, 16, 16)
    assert not torch.allclose(small(x), large(x))
    assert torch.allclose(small(x), degradation.contain(large, small)(x), atol=1e-5)


def test_a_unit_of_identities_changes_nothing_that_a_relu_put_out():
    unit = degradation.network(create, "plain", 8).get_submodule("stage1.0").eval()
    x = torch.rand(2, 4, 6, 6)
    degradation.be_identity(unit)
    assert torch.allclose(unit(x.clone()), x, atol=1e-6)


# --- gradient flow ---


def test_without_batch_norm_a_shortcut_still_reads_the_input():
    torch.manual_seed(0)
    net = gradient_flow.network("pre-activation", 20).build()
    gradient_flow.without_norm(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    unit = net.get_submodule("stage1.1")
    x = torch.randn(1, 16, 4, 4)
    before = x.clone()
    unit(x)
    assert torch.equal(x, before)


def test_orders_are_those_of_the_norms_of_the_gradients():
    net = Net({"stem": seq(conv=nn.Conv2d(3, 4, 3)), "a": bn_act_conv(4, 4, 3), "b": bn_act_conv(4, 4, 3),
               "head": seq(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(1), fc=nn.Linear(4, 3))})  # fmt: skip
    x, labels = torch.randn(6, 3, 12, 12), torch.arange(6) % 3
    found = gradient_flow.orders(net, x, labels)
    net.zero_grad()
    F.cross_entropy(net(x.double()), labels).backward()
    first, last = (net.get_parameter(f"{part}.conv.weight").grad.norm().item() for part in "ab")
    assert found == pytest.approx([math.log10(first / last), 0], abs=1e-3)
