"""DenseNet's published numbers against the networks built here."""

from collections import Counter

import pytest

from convatlas.papers import CONVENTIONS, audit
from convatlas.papers.built import built
from convatlas.zoo import spec


def test_verdicts():
    """A golden count: a figure that changes its verdict, or disappears, shows here."""
    assert Counter(f.verdict for f in audit("DenseNet")) == {"agrees": 142, "reported": 56, "contradiction": 3}


def test_contradictions():
    found = {(f.arch, f.quantity, f.printed): f for f in audit("DenseNet") if f.verdict == "contradiction"}
    assert found.keys() == {
        ("densenet264", "layers", "264"),
        ("densenet169", "top1_error", "23.6"),
        ("densenet201", "top1_error", "22.5"),
    }
    off_by_one = found["densenet264", "layers", "264"]
    assert off_by_one.exact == 265
    assert "off by one" in off_by_one.note
    assert "23.80" in found["densenet169", "top1_error", "23.6"].note


@pytest.mark.parametrize(
    ("name", "convention", "part", "printed"),
    [
        ("densenet161", "DenseNet blocks", "", "6-12-36-24"),
        ("densenet201", "DenseNet block", "block3", "14x14 [1x1,3x3] x48"),
        ("densenet169", "DenseNet transition", "transition2", "28x28 1x1 conv; 14x14 avg pool 2/2"),
        ("densenet40_k12", "DenseNet block", "block2", "16x16 [3x3] x12"),
        ("densenet_c100_k12", "DenseNet blocks", "", "32-32-32"),
    ],
)
def test_the_table_is_printed_from_the_tree(name, convention, part, printed):
    assert CONVENTIONS[convention].count(built(spec(name)), part) == printed


def test_results_without_augmentation_are_those_of_the_networks_with_dropout():
    for name in ("densenet40_k12", "densenet_bc100_k12"):
        datasets = {f.dataset for f in audit(f"{name}.dropout")}
        assert len(datasets) == 3
        assert all("dropout 0.2" in dataset for dataset in datasets)
        assert not any("dropout" in f.dataset for f in audit(name))
