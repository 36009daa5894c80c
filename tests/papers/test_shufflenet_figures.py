"""ShuffleNet's figures against the networks built now."""

from collections import Counter

from convatlas.papers import audit


def test_verdicts():
    assert Counter(f.verdict for f in audit("ShuffleNet")) == {"agrees": 72, "contradiction": 3, "reported": 59}


def test_contradictions_by_name():
    contradictions = [f for f in audit("ShuffleNet") if f.verdict == "contradiction"]
    assert {(f.arch, f.quantity, f.printed): f.exact for f in contradictions} == {
        ("shufflenet.g8", "macs", "140"): 136_829_952,
        ("shufflenet.g4.x0_5", "macs", "38"): 37_468_832,
        ("shufflenet.g3.x0_5.shallow", "macs", "40"): 21_584_496,
    }
    assert all(f.note.endswith(".") for f in contradictions)


def test_table_1_and_both_depths_are_computed():
    agreeing = {(f.arch, f.printed): f.exact for f in audit("ShuffleNet") if f.verdict == "agrees"}
    for groups, channels in ((1, 288), (2, 400), (3, 480), (4, 544), (8, 768)):
        row = f"14x14, {channels} ch, repeat 1 (s2) + 7"
        assert agreeing[f"shufflenet.g{groups}", row] == row
    assert agreeing["shufflenet.g3", "50"] == 50
    assert agreeing["shufflenet.g3.x0_5.shallow", "26"] == 26


def test_ablations_of_the_shuffle_carry_their_network():
    without = {(f.arch, f.printed) for f in audit("shufflenet.*.noshuffle")}
    assert without == {
        ("shufflenet.g3.noshuffle", "34.5"),
        ("shufflenet.g8.noshuffle", "37.6"),
        ("shufflenet.g3.x0_5.noshuffle", "45.7"),
        ("shufflenet.g8.x0_5.noshuffle", "48.1"),
        ("shufflenet.g3.x0_25.noshuffle", "56.3"),
        ("shufflenet.g8.x0_25.noshuffle", "56.5"),
    }
