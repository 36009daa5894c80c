"""The audit agrees where the papers are right, and can say otherwise."""

import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from convatlas.errors import ConfigError
from convatlas.papers import audit
from convatlas.papers.audit import check
from convatlas.papers.tables import figures
from convatlas.zoo import list_networks


@pytest.fixture(scope="module")
def computed():
    """The figures for which the audit computes an integer or a word."""
    return [f for f in figures() if f.arch in list_networks() and not f.resolution and check(f).exact is not None]


def figure(arch, quantity, printed):
    """The figure, in the first of the papers that print it."""
    return next(f for f in figures() if (f.arch, f.quantity, f.printed) == (arch, quantity, printed))


def test_verdicts_of_the_built_families():
    """A golden count: a figure that changes its verdict, or disappears, shows here."""
    counts = Counter((f.paper, f.verdict) for paper in ("VGG", "ResNet") for f in audit(paper))
    assert counts == {
        ("VGG", "agrees"): 84,
        ("VGG", "contradiction"): 2,
        ("VGG", "reported"): 77,
        ("ResNet", "agrees"): 195,
        ("ResNet", "agrees (floor)"): 1,
        ("ResNet", "reported"): 57,
    }


def test_nothing_differs_without_an_explanation():
    assert [f for f in audit() if f.verdict == "differs"] == []


def test_contradictions_are_named_with_their_resolution():
    found = [f for f in audit() if f.verdict == "contradiction"]
    assert {f.quantity: f.note for f in found if f.paper == "VGG"}.keys() == {"hparam:init", "top5_error"}
    assert all(f.note.endswith(".") for f in found)


def test_every_figure_is_computed_or_reported():
    """A golden count over all papers."""
    verdicts = Counter(f.verdict for f in audit())
    assert verdicts == {"agrees": 1067, "agrees (floor)": 8, "contradiction": 67, "reported": 593}


@pytest.mark.parametrize(
    ("arch", "quantity", "printed", "convention", "exact"),
    [
        ("vgg16", "params", "138", "W+b", 138_357_544),
        ("vgg16c", "params", "134", "W+b", 133_638_952),
        ("vgg16", "macs", "15.3", "conv only", 15_346_630_656),
        ("vgg19", "macs", "19.6", "conv+FC", 19_632_062_464),
        ("resnet18", "macs", "1.8", "conv+FC", 1_794_805_760),
        ("resnet34", "macs", "3.6", "conv+FC", 3_644_493_824),
        ("resnet101", "macs", "7.58", "conv+FC+add", 7_579_125_760),
        ("resnet152", "macs", "11.30", "conv+FC+add", 11_295_561_728),
        ("resnet1202", "params", "19.4", "W+b+BN", 19_421_274),
        ("resnet110", "layers", "110", "weight layers", 110),
    ],
)
def test_a_figure_agrees_under_its_convention(arch, quantity, printed, convention, exact):
    finding = check(figure(arch, quantity, printed))
    assert (finding.convention, finding.exact, finding.verdict) == (convention, exact, "agrees")


def test_a_cut_figure_agrees_only_when_cut():
    cut = figure("resnet50", "macs", "3.8")
    assert check(cut).verdict == "agrees (floor)"
    assert check(replace(cut, rounding="round")).verdict == "differs"


@pytest.mark.parametrize("step", [1, -1])
def test_a_last_digit_that_is_off_by_one_differs(computed, step):
    numbers = [f for f in computed if f.rounding]
    assert len(numbers) > 500
    for f in numbers:
        digits = Decimal(f.printed)
        off = digits + step * Decimal((0, (1,), digits.as_tuple().exponent))
        assert check(replace(f, printed=str(off))).verdict == "differs", f


def test_a_word_that_is_off_differs(computed):
    words = [f for f in computed if not f.rounding]
    assert len(words) > 80
    for f in words:
        off = re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 1) % 10), f.printed)
        assert check(replace(f, printed=off)).verdict == "differs", f


@pytest.mark.parametrize(
    ("arch", "quantity", "printed", "changed"),
    [
        ("resnet34", "macs", "3.6", {"arch": "resnet34.b"}),  # another shortcut
        ("resnet101", "macs", "7.6", {"arch": "resnet101.v1_5"}),  # another place of the stride
        ("resnet1202", "params", "19.4", {"convention": "W"}),  # without batch normalisation
        ("vgg16", "macs", "15.3", {"convention": "conv+FC"}),
        ("vgg16", "params", "138", {"unit": "K=1024"}),
        ("vgg16", "params", "138", {"changes": "classes=10"}),
    ],
)
def test_another_network_or_convention_differs(arch, quantity, printed, changed):
    assert check(replace(figure(arch, quantity, printed), **changed)).verdict == "differs"


def test_an_explained_difference_is_a_contradiction():
    explained = replace(figure("vgg16", "params", "138"), printed="139", resolution="A slip.")
    finding = check(explained)
    assert (finding.verdict, finding.exact, finding.note) == ("contradiction", 138_357_544, "A slip.")


def test_changes_reach_the_spec():
    ten_classes = replace(figure("resnet18", "params", "11515688"), changes="classes=10", printed="11007818")
    assert 11_515_688 - 990 * 513 == 11_007_818
    assert check(ten_classes).verdict == "agrees"


def test_a_network_that_is_not_built_never_agrees():
    printed = figure("vgg16", "params", "138")
    for absent in (replace(printed, arch="no_such_network"), replace(printed, arch="", convention="")):
        finding = check(absent)
        assert (finding.verdict, finding.exact) == ("not built", None)


def test_published_errors_are_reported_and_never_computed():
    errors = [f for f in audit() if f.quantity in ("top1_error", "top5_error", "test_error")]
    assert len(errors) > 400
    assert {f.exact for f in errors} == {None}
    assert {f.verdict for f in errors} == {"reported", "contradiction"}


def test_the_exact_integers_cover_the_built_families():
    exact = [f for f in audit() if f.where == "derived" and f.verdict != "not built"]
    assert {f.verdict for f in exact} == {"agrees"}
    assert len({f.arch for f in exact}) == 114
    assert {"vgg11_lrn", "vgg16_bn", "resnet34.c", "resnet152.v1_5", "resnet1202", "plain110"} <= {
        f.arch for f in exact
    }


def test_a_pattern_selects_networks_or_a_paper():
    assert {f.arch for f in audit("vgg1?")} == {"vgg11", "vgg13", "vgg16", "vgg19"}
    assert {f.paper for f in audit("VGG")} == {"VGG"}
    assert audit("resnet20.b") == []  # registered, and no paper says anything about it
    assert {f.verdict for f in audit("DenseNet")} == {"agrees", "contradiction", "reported"}


def test_an_unknown_pattern_is_an_error():
    with pytest.raises(ConfigError, match=r"error\[L2\]: no network and no paper is called 'wgg\*'"):
        audit("wgg*")
