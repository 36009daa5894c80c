"""BN-Inception's figures."""

from collections import Counter
from dataclasses import replace

from convatlas.papers import audit
from convatlas.papers.audit import check
from convatlas.papers.tables import figures

PROJ_96 = "avg pool proj 96; stride 1"


def test_verdicts():
    counts = Counter(f.verdict for f in audit("BN-Inception"))
    assert counts == {"agrees": 31, "contradiction": 8, "reported": 29}


def test_contradictions():
    found = {f.quantity: f.exact for f in audit("BN-Inception") if f.verdict == "contradiction"}
    assert found == {
        "params": 11_194_984,
        "claim:params vs GoogLeNet": "+60",
        "claim:cost vs GoogLeNet": "+29",
        "channels:inception (4c)": f"#1x1 160; #3x3red 128; #3x3 160; dbl3x3red 128; dbl3x3 160; {PROJ_96}",
        "channels:inception (4d)": f"#1x1 96; #3x3red 128; #3x3 192; dbl3x3red 160; dbl3x3 192; {PROJ_96}",
        "stage_shape:inception (3c)": "14x14x576",
        "stage_shape:inception (4e)": "7x7x1024",
        "text:double 3x3 filters": "up to 256",
    }


def test_the_letter_of_fig_5_agrees_inside_the_modules_and_not_behind_them():
    rows = [f for f in figures() if f.paper == "BN-Inception" and f.part in ("inception4c", "inception4d")]
    assert len(rows) == 4
    for f in rows:
        literal = check(replace(f, arch="bn_inception.608", resolution=""))
        assert literal.verdict == ("agrees" if f.quantity.startswith("channels") else "differs"), f


def test_the_size_printed_for_a_halving_module_is_that_of_its_input():
    rows = [f for f in figures() if f.paper == "BN-Inception" and f.quantity == "stage_shape:inception (3c)"]
    assert [check(f).exact for f in rows] == ["14x14x576"]
    (before,) = [check(replace(f, convention="input map")).exact for f in rows]
    assert before == "28x28x320"
