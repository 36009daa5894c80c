"""What the audit finds in the SENet paper."""

from collections import Counter
from dataclasses import replace

import pytest

from convatlas.papers import audit
from convatlas.papers.audit import check
from convatlas.papers.tables import figures

PAPER = [f for f in figures() if f.paper == "SENet"]


def figure(network, quantity, where):
    (found,) = [f for f in PAPER if (f.network, f.quantity, f.where) == (network, quantity, where)]
    return found


def test_verdicts():
    """A golden count: a figure that changes its verdict, or disappears, shows here."""
    assert Counter(f.verdict for f in audit("SENet")) == {
        "agrees": 121,
        "agrees (floor)": 2,
        "contradiction": 8,
        "reported": 139,
    }


def test_contradictions_by_name():
    assert {(f.arch, f.printed, f.exact) for f in audit("SENet") if f.verdict == "contradiction"} == {
        ("se_resnet101", "7.60", 7_592_800_256),
        ("se_resnext50_32x4d", "4.25", 4_244_033_536),
        ("resnext101_32x4d", "7.99", 7_978_928_128),
        ("se_resnext101_32x4d", "8.00", 7_992_602_624),
        ("se_bn_inception.608", "2.04", 2_034_420_128),
        ("shufflenet.g3", "140", 138_824_832),
        ("se_shufflenet.g3", "142", 141_039_312),
        ("se_resnet50.r8", "30.7", 30_640_040),
    }


@pytest.mark.parametrize("where", ["Table 10", "Table 13", "Table 15"])
def test_the_ablations_count_running_statistics(where):
    """Some of their parameters come out only with them, and all but that of r = 8 with them."""
    params = [f for f in PAPER if (f.quantity, f.where) == ("params", where)]
    without = [check(replace(f, convention="W+b+BN", resolution="")).verdict for f in params]
    assert "differs" in without
    assert {f.network for f in params if check(replace(f, resolution="")).verdict == "differs"} <= {"SE-ResNet-50 r=8"}


def test_additions_alone_give_the_operations_of_the_ablations():
    macs = [f for f in PAPER if f.quantity == "macs" and f.where in ("Table 13", "Table 15", "Table 16")]
    assert len(macs) == 6
    assert {(f.convention, check(f).verdict) for f in macs} == {("conv+FC+add", "agrees")}
    for other in ("conv+FC", "conv+FC+add+scale"):
        assert "differs" in {check(replace(f, convention=other)).verdict for f in macs}


def test_scaling_is_counted_in_table_2():
    deep = figure("SE-ResNet-152", "macs", "Table 2")
    assert check(deep).verdict == "agrees"
    assert check(replace(deep, convention="conv+FC+add")).verdict == "differs"


def test_what_the_gates_add():
    added = figure("SE-ResNet-50 r=16", "params:added", "Sec. 4")
    assert (check(added).exact, check(added).verdict) == (2_514_944, "agrees")
    assert check(replace(added, part="stage4")).exact == 2 * 3 * 2048 * 128
    assert check(replace(added, arch="se_resnet50.bias")).exact > check(added).exact


def test_a_gate_for_every_pixel_costs_what_table_16_says():
    pixels = figure("ResNet-50 NoSqueeze", "macs", "Table 16")
    assert check(pixels).verdict == "agrees"
    assert check(replace(pixels, arch="se_resnet50")).verdict == "differs"


def test_networks_outside_this_library_are_reported():
    outside = [f for f in PAPER if f.convention == "outside"]
    assert {f.network for f in outside} == {"Inception-ResNet-v2", "SE-Inception-ResNet-v2"}
    assert {check(f).verdict for f in outside} == {"reported"}


def test_every_result_of_a_network_that_is_built_names_it():
    nameless = {f.network for f in PAPER if f.convention == "result" and not f.arch}
    assert {name.split("-")[0] for name in nameless} == {"Inception", "SE", "WRN", "Shake", "CVPR"}
    assert {name for name in nameless if name.startswith("SE-")} == {
        "SE-Inception-ResNet-v2", "SE-WRN-16-8", "SE-Shake-Shake 26 2x96d + Cutout", "SE-Shake-Even 29 2x4x64d + Cutout"
    }  # fmt: skip
