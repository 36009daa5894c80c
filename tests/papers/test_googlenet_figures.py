"""GoogLeNet's figures."""

from collections import Counter
from dataclasses import replace

from convatlas.papers import CONVENTIONS, audit
from convatlas.papers.audit import check
from convatlas.papers.built import built
from convatlas.papers.tables import figures
from convatlas.tree import SE
from convatlas.zoo import spec

FIGURES = [f for f in figures() if f.paper == "GoogLeNet"]


def figure(quantity, where="Table 1"):
    (found,) = [f for f in FIGURES if (f.quantity, f.where) == (quantity, where)]
    return found


def test_verdicts():
    counts = Counter(f.verdict for f in audit("GoogLeNet"))
    assert counts == {"agrees": 65, "agrees (floor)": 1, "contradiction": 14, "reported": 17}


def test_contradictions():
    """Table 1's column of parameters does not fit its widths; its operations do, but for three rows."""
    found = {f.quantity for f in audit("GoogLeNet") if f.verdict == "contradiction" and f.where == "Table 1"}
    rows = ("3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    macs = {"macs:conv1 7x7/2", "macs:inception (4a)", "macs:inception (5a)"}
    assert found == {"params:conv1 7x7/2", *(f"params:inception ({row})" for row in rows), *macs}


def test_the_printed_cost_of_conv1_is_that_of_a_separable_one():
    printed = replace(figure("macs:conv1 7x7/2"), resolution="")
    assert check(printed).verdict == "differs"
    separable = check(replace(printed, arch="googlenet.separable"))
    assert (separable.exact, separable.verdict) == (112 * 112 * (7 * 7 * 24 + 24 * 64), "agrees")


def test_the_budget_of_1_5_billion_needs_the_separable_stem():
    budget = figure("macs", "Sec. 1; Rethinking Table 3")
    assert check(budget).exact == 1_498_677_248
    assert check(replace(budget, arch="googlenet")).verdict == "differs"


def test_auxiliary_heads_are_counted_only_where_a_figure_says_so():
    with_aux = [f for f in FIGURES if f.changes == "count_aux=1" and f.arch == "googlenet" and f.convention == "W+b+BN"]
    assert [check(f).exact for f in with_aux] == [13_378_280]
    assert [check(replace(f, changes="")).exact for f in with_aux] == [6_998_552]
    assert [check(replace(f, changes="classes=10 count_aux=1")).exact for f in with_aux] == [
        13_378_280 - 3 * 990 * 1025
    ]


def test_depth_counts_the_longest_path():
    counts = {name: CONVENTIONS["depth"].count(built(spec(name)), "") for name in ("googlenet", "resnet50.c", "vgg16")}
    assert counts == {"googlenet": 22, "resnet50.c": 50, "vgg16": 16}
    assert CONVENTIONS["depth"].count(built(spec("googlenet.separable")), "") == 23
    assert CONVENTIONS["depth"].count(built(spec("resnet18", se=SE(16))), "") == 18


def test_torchvisions_form_reads_differently():
    count = CONVENTIONS["GoogLeNet module"].count
    assert count(built(spec("googlenet.torchvision")), "inception3a") == (
        "in 192: #1x1 64; #3x3red 96; #3x3 128; #3x3red 16; #3x3 32; pool proj 32"
    )
