"""The pre-activation paper's figures against the networks built now."""

from collections import Counter
from dataclasses import replace

import pytest

from convatlas.papers import audit
from convatlas.papers.audit import check
from convatlas.papers.tables import figures

PRINTED = [f for f in figures() if f.paper == "PreAct-ResNet" and f.where != "derived"]


def test_verdicts():
    assert Counter(f.verdict for f in audit("PreAct-ResNet")) == {"agrees": 110, "reported": 61}


def test_table_4_counts_its_own_networks_without_batch_normalisation_and_the_quoted_one_with():
    table = {(f.arch, f.changes): f for f in PRINTED if f.quantity == "params"}
    assert {(*key, f.printed, f.convention, check(f).exact) for key, f in table.items()} == {
        ("resnet110", "", "1.7", "W", 1_719_856),
        ("preact_resnet164", "", "1.7", "W", 1_679_024),
        ("preact_resnet164", "classes=100", "1.7", "W", 1_702_064),
        ("resnet164", "classes=100", "1.7", "W", 1_702_064),
        ("preact_resnet1001", "", "10.2", "W", 10_178_480),
        ("preact_resnet1001", "classes=100", "10.2", "W", 10_201_520),
        ("resnet1001", "classes=100", "10.2", "W", 10_201_520),
        ("resnet1202", "", "19.4", "W+b+BN", 19_421_274),
    }
    for key, other in ((("preact_resnet1001", ""), "W+b+BN"), (("resnet1202", ""), "W")):
        assert check(replace(table[key], convention=other)).verdict == "differs"


def test_depths_are_the_weight_layers():
    depths = {f.arch: check(f).exact for f in PRINTED if f.quantity == "layers"}
    assert depths == {"preact_resnet200": 200, "preact_resnet1001": 1001}


def test_every_error_carries_the_network_that_it_was_measured_on():
    assert all(f.arch for f in PRINTED if f.convention == "result")
    table_1 = {(f.arch, f.changes): f.printed for f in PRINTED if f.where == "Table 1"}
    assert table_1 == {
        ("resnet110", ""): "6.61",
        ("plain110", ""): "fail",
        ("resnet110.constant_scaling", ""): "fail",
        ("resnet110.frozen_gating", ""): "12.35",
        ("resnet110.exclusive_gating", "gate_bias=0"): "fail",
        ("resnet110.exclusive_gating", ""): "8.70",
        ("resnet110.exclusive_gating", "gate_bias=-7"): "9.81",
        ("resnet110.shortcut_only_gating", "gate_bias=0"): "12.86",
        ("resnet110.shortcut_only_gating", ""): "6.91",
        ("resnet110.conv_shortcut", ""): "12.22",
        ("resnet110.dropout_shortcut", ""): "fail",
    }
    assert len([f for f in PRINTED if f.where == "Table 2"]) == 10


@pytest.mark.parametrize(("depth", "params"), [(152, 60_185_128), (200, 64_666_152)])
def test_a_second_first_activation_is_128_parameters(depth, params):
    exact = {f.arch: f.exact for f in audit(f"preact_resnet{depth}*") if f.convention == "W+b+BN"}
    assert exact[f"preact_resnet{depth}"] == params
    assert exact[f"preact_resnet{depth}.pytorchcv"] == params + 2 * 64
