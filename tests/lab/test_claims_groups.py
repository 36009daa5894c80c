"""The claims about groups: their exact parts hold, their helpers are right, and what they measure can be shown."""

import json

import pytest
import torch
from torch import nn

from convatlas.lab import Lab, experiment, trials
from convatlas.lab.claims import channel_shuffle, group_convolution, unit_costs
from convatlas.lab.depends import depends
from convatlas.lab.experiment import OPEN, REFUTED, SUPPORTED
from convatlas.report import figures
from convatlas.tree import Concat, Shuffle, conv, conv_bn_act, cost
from convatlas.zoo import spec
from convatlas.zoo.shufflenet import cell

from tiny import splits

NAMES = ("group-convolution", "channel-shuffle", "unit-costs")


def shown(name, measured):
    """The findings in what was measured, drawn too."""
    e = experiment(name)
    measured = json.loads(json.dumps(measured))
    assert len(json.dumps(measured)) < 60_000
    assert figures.png(lambda figure: e.draw(figure, measured), *e.size)[:4] == b"\x89PNG"
    return e.judge(measured)


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_part_holds(name):
    facts = experiment(name).exact()
    assert facts
    assert [fact.what for fact in facts if not fact.holds] == []


def test_what_depends_on_what():
    assert depends(conv(6, 6, 3), 6, 2) == [[1, 1], [1, 1]]
    assert depends(conv(6, 6, 3, groups=3), 6, 3) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert depends(Shuffle(2), 4, 4) == [
        [1, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]  # to 0 2 1 3
    assert depends(Concat(a=nn.Identity(), b=nn.Identity()), 2, 2) == [[1, 1], [1, 1]]
    three = conv_bn_act(6, 6, 3, groups=3)
    assert depends(nn.Sequential(three, Shuffle(3), conv(6, 6, 1, groups=3)), 6, 3) == [[1, 1, 0], [1, 0, 1], [0, 1, 1]]


def test_taken_apart_a_convolution_computes_the_same():
    layer, x = conv(6, 4, 3, stride=2, groups=2, bias=True), torch.randn(1, 6, 9, 9)
    first = torch.conv2d(x[:, :3], layer.weight[:2], layer.bias[:2], 2, 1)
    with torch.no_grad():
        assert torch.allclose(group_convolution.apart(layer, x)[:, :2], first, atol=1e-6)
        assert torch.allclose(group_convolution.apart(layer, x), layer(x), atol=1e-6)


def test_the_formula_is_the_papers_example_by_hand():
    assert unit_costs.formula(240, 60, 3, 28) == 28 * 28 * (240 * 60 // 3 + 60 * 9 + 60 * 240 // 3)
    assert cost(unit_costs.unit(3), unit_costs.SIDE, unit_costs.C).macs == unit_costs.formula(480, 120, 3, 14)


def test_the_units_that_are_timed_are_folded_and_shuffled():
    for groups, shuffles in ((1, 0), (3, 1)):
        kinds = [type(m) for m in unit_costs.unit(groups).modules()]
        assert kinds.count(Shuffle) == shuffles
        assert nn.BatchNorm2d not in kinds


@pytest.mark.parametrize("size", [16, 32])
def test_the_shuffled_networks_cost_about_the_same(size):
    macs = []
    for groups in channel_shuffle.WIDTHS:
        net = channel_shuffle.network(cell(groups, 0.25), spec("resnet20", classes=5))
        assert net(torch.randn(2, 3, size, size)).shape == (2, 5)
        macs.append(cost(net, size).macs)
    assert max(macs) / min(macs) < 1.4


def test_times_are_judged_by_their_ratios(monkeypatch):
    seconds = {str(g): [1.0 / g**0.5] * 9 for g in group_convolution.GROUPS}
    assert {f.verdict for f in shown("group-convolution", {"seconds": seconds})} == {SUPPORTED}
    seconds["4"] = [0.2] * 9
    assert [f.verdict for f in shown("group-convolution", {"seconds": seconds})][1] == REFUTED
    for module in (group_convolution, unit_costs):
        monkeypatch.setattr(module, "SIDE", 2)
    monkeypatch.setattr(unit_costs, "C", 96)
    monkeypatch.setattr("convatlas.lab.timing.turns", turns)
    for name in ("group-convolution", "unit-costs"):
        measured = experiment(name).measure(None)
        assert {f.verdict for f in shown(name, measured)} <= {SUPPORTED, OPEN, REFUTED}


def turns(runs, seconds, least, clock):
    """Nine calls of each, of which the i-th is said to take i + 1 seconds."""
    return {name: [float(i + 1) for i in range(least) if run() is not None] for name, run in runs.items()}


def test_accuracies_are_compared_seed_by_seed_over_all_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "SHORT_STEPS", 2)
    measured = experiment("channel-shuffle").measure(Lab(splits(), tmp_path, seeds=(0,)))
    assert list(measured["accuracy"]) == [f"g = {g}, {how} shuffle" for g in (3, 8) for how in ("without", "with")]
    assert shown("channel-shuffle", measured)[0].verdict == OPEN
    measured["accuracy"] = {"g = 1": [0.9, 0.9],
                            "g = 3, without shuffle": [0.5, 0.6], "g = 3, with shuffle": [0.7, 0.8],
                            "g = 8, without shuffle": [0.6, 0.5], "g = 8, with shuffle": [0.7, 0.6]}  # fmt: skip
    (finding,) = shown("channel-shuffle", measured)
    assert finding.mean == pytest.approx(0.15)
    assert finding.verdict == SUPPORTED
