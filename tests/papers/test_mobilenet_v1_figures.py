"""MobileNet v1's figures."""

from collections import Counter

import pytest

from convatlas.papers import CONVENTIONS, audit
from convatlas.papers.built import built
from convatlas.zoo import spec

KINDS = ("Conv 1x1", "Conv DW 3x3", "Conv 3x3", "Fully Connected")


def test_verdicts():
    assert Counter(f.verdict for f in audit("MobileNetV1")) == {"agrees": 101, "contradiction": 3, "reported": 17}


def test_contradictions():
    found = {f.quantity: (f.printed, f.exact) for f in audit("MobileNetV1") if f.verdict == "contradiction"}
    assert found.pop("share_macs:Conv 3x3") == ("1.19", pytest.approx(1.9056, abs=5e-5))
    assert found == {
        "macs": ("45", 41_030_272),
        "stage_shape:block13": (
            "dw 3x3x1024 s2 (printed); pw 1x1x1024x1024; input 7x7x1024",
            "dw 3x3x1024 s1; pw 1x1x1024x1024; input 7x7x1024",
        ),
    }


def test_table_3s_layers_are_the_same_unit_of_four_networks():
    found = {(f.printed, f.exact) for f in audit("MobileNetV1") if f.where == "Table 3"}
    separable = 9 * 512 + 512 * 512
    thin = 9 * 384 + 384 * 384
    assert found == {
        ("462", 9 * 512 * 512 * 14 * 14),
        ("2.36", 9 * 512 * 512),
        ("52.3", separable * 14 * 14),
        ("0.27", separable),
        ("29.6", thin * 14 * 14),
        ("15.1", thin * 10 * 10),
        ("0.15", thin),
    }


@pytest.mark.parametrize("convention", ["share of MACs", "share of weights"])
def test_shares_add_up(convention):
    shares = [CONVENTIONS[convention].count(built(spec("mobilenet_v1")), kind) for kind in KINDS]
    assert sum(shares) == pytest.approx(100, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "part", "printed"),
    [
        ("mobilenet_v1.conv", "stage5.0", "3x3x512x1024; input 14x14x512"),
        ("mobilenet_v1.x0_25", "stem", "3x3x3x8; input 224x224x3"),
        ("mobilenet_v1.cifar", "stage2.0", "dw 3x3x64 s1; pw 1x1x64x128; input 32x32x64"),
    ],
)
def test_table_1_is_printed_from_the_tree(name, part, printed):
    assert CONVENTIONS["MobileNet v1 table"].count(built(spec(name)), part) == printed
