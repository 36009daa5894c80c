"""The figures of the Inception-v3 paper, for Inception-v2 and Inception-v3."""

from collections import Counter
from dataclasses import replace

import pytest

from convatlas.papers import CONVENTIONS, audit
from convatlas.papers.audit import check
from convatlas.papers.built import built
from convatlas.papers.notation.inception_v3 import longest_path
from convatlas.papers.tables import figures
from convatlas.zoo import spec

TABLE_1 = [f for f in figures() if f.paper == "Inception-v3" and f.where == "Table 1"]


def test_verdicts():
    assert Counter(f.verdict for f in audit("Inception-v3")) == {"agrees": 29, "contradiction": 6, "reported": 31}


def test_contradictions():
    found = {(f.network, f.quantity, f.printed): f.exact for f in audit("Inception-v3") if f.verdict == "contradiction"}
    assert found == {
        ("Inception-v3", "macs", "5"): 5_713_216_096,
        ("Inception-v3", "macs", "4.8"): 5_713_216_096,
        ("Inception-v2 BN-auxiliary = Inception-v3", "macs", "4.8"): 5_713_216_096,
        ("Inception-v2 Factorized 7x7", "macs", "4.8"): 3_753_561_184,
        ("Inception-v3 x4", "top1_error", "17.2"): None,
        ("Inception-v3 x4", "top5_error", "3.58"): None,
    }


def test_every_row_of_table_1_enters_a_layer_of_inception_v2():
    findings = [check(f) for f in TABLE_1]
    assert [f.exact for f in findings] == [
        "299x299x3", "149x149x32", "147x147x32", "147x147x64", "73x73x64", "71x71x80", "35x35x192", "35x35x288",
        "17x17x768", "8x8x1280", "8x8x2048", "1x1x2048",
    ]  # fmt: skip
    assert {f.verdict for f in findings} == {"agrees"}


def test_table_1_is_not_the_released_inception_v3():
    same_part = [replace(f, arch="inception_v3", resolution="") for f in TABLE_1 if f.part in ("stem.conv5", "mixed5b")]
    assert [check(f).exact for f in same_part] == ["73x73x80", "35x35x192"]
    assert {check(f).verdict for f in same_part} == {"differs"}


@pytest.mark.parametrize(
    ("name", "depth", "convolutions"),
    [("inception_v2", 42, 52), ("inception_v2.serial", 42, 54), ("inception_v3", 38, 47), ("vgg16", 13, 13)],
)
def test_depth_counts_a_row_and_a_column_once(name, depth, convolutions):
    b = built(spec(name))
    assert CONVENTIONS["n x n depth"].count(b, "") == depth
    assert sum(len(longest_path(b.net.get_submodule(part))) for part in b.net.parts) == convolutions
