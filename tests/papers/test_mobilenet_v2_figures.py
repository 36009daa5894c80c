"""MobileNet v2's figures against the networks built now."""

from collections import Counter

from convatlas.papers import audit


def test_verdicts():
    assert Counter(f.verdict for f in audit("MobileNetV2")) == {
        "agrees": 77,
        "agrees (floor)": 3,
        "contradiction": 16,
        "reported": 25,
    }


def test_contradictions_by_name():
    contradictions = [f for f in audit("MobileNetV2") if f.verdict == "contradiction"]
    found = {(f.arch, f.quantity, f.printed): f.exact for f in contradictions}
    assert found == {
        ("mobilenet_v2.x1_4", "params", "6.9"): 6_059_840,
        ("mobilenet_v2.x1_4", "macs", "585"): 582_195_824,
        ("", "macs", "7 .. 585"): None,
        ("", "params", "1.7 .. 6.9"): None,
        ("mobilenet_v2", "layers", "19 residual bottleneck layers"): "17 residual bottleneck layers",
        ("mobilenet_v1", "macs", "575"): 568_740_352,
        ("mobilenet_v1", "memory:7x7", "1024/199"): "1024/100",
        ("mobilenet_v2", "memory:56x56", "32/200"): "24/150",
        ("mobilenet_v2", "memory:28x28", "64/100"): "32/50",
        ("mobilenet_v2", "memory:14x14", "160/62"): "96/37",
        ("mobilenet_v2", "memory:7x7", "320/32"): "320/31",
        ("shufflenet.g3.x2", "memory:112x112", "32/800"): "48/1200",
        ("shufflenet.g3.x2", "memory:28x28", "400/600K"): "480/750",
        ("shufflenet.g3.x2", "memory:14x14", "800/310"): "960/370",
        ("shufflenet.g3.x2", "memory:7x7", "1600/156"): "1920/180",
        ("shufflenet.g3.x2", "memory:1x1", "1600/3"): "1920/3",
    }
    assert all(f.note.endswith(".") for f in contradictions)


def test_table_2_and_the_agreeing_cells_of_table_3_are_computed():
    agreeing = {f.printed: f.exact for f in audit("MobileNetV2") if f.verdict == "agrees"}
    for printed in ("t=6 c=160 n=3 s=2; input 14^2", "224^2x3 -> 32, s2", "7^2x320 -> 1280", "16/400", "48/300"):
        assert agreeing[printed] == printed
