"""VGG's figures."""

from collections import Counter

from convatlas.papers import audit


def test_verdicts():
    assert Counter(f.verdict for f in audit("VGG")) == {"agrees": 84, "contradiction": 2, "reported": 77}


def test_contradictions():
    found = {f.quantity: f.note for f in audit("VGG") if f.verdict == "contradiction"}
    assert found.keys() == {"hparam:init", "top5_error"}
    assert "Glorot" in found["hparam:init"]
    assert "7.1 is the validation error, 7.0 the test error" in found["top5_error"]
