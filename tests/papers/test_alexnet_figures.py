"""AlexNet's figures, and those of the author's later network."""

from collections import Counter

import pytest

from convatlas.papers import CONVENTIONS, audit
from convatlas.papers.built import built
from convatlas.zoo import spec


def test_verdicts():
    assert Counter(f.verdict for f in audit("AlexNet")) == {
        "agrees": 28,
        "agrees (floor)": 1,
        "contradiction": 4,
        "reported": 25,
    }
    assert Counter(f.verdict for f in audit("One-Weird-Trick")) == {"agrees": 12}


def test_contradictions():
    found = {f.quantity: (f.printed, f.exact) for f in audit("AlexNet") if f.verdict == "contradiction"}
    assert found == {
        "macs": ("720", 724_406_816),
        "neurons": ("650000", 659_272),
        "neurons:conv1": ("253440", 55 * 55 * 96),
        "neurons:input": ("150528", 227 * 227 * 3),
    }


def test_the_printed_neurons_are_those_of_a_slip_and_of_the_text():
    """What the resolutions say of 253,440 and of 650,000."""
    neurons = CONVENTIONS["neurons"].count
    net = built(spec("alexnet"))
    convolutions, head = neurons(net, "stage1+stage2+stage3"), neurons(net, "head")
    assert (55 * 48 * 96, 224 * 224 * 3) == (253_440, 150_528)
    assert (convolutions, convolutions + head) == (650_080, 659_272)
    assert convolutions + head - 55 * 55 * 96 + 253_440 == 622_312


@pytest.mark.parametrize(
    ("name", "convention", "part", "printed"),
    [
        ("alexnet.ungrouped", "AlexNet layer", "stage2.conv2", "256 kernels 5x5x96"),
        ("alexnet.cifar", "AlexNet layer", "stage1.conv1", "96 kernels 5x5x3"),
        ("alexnet.cifar", "AlexNet layer", "head.fc7", 1024),
        ("alexnet.torchvision", "AlexNet normalisation", "", ""),
        ("vgg11_lrn", "AlexNet normalisation", "", "k=2 n=5 alpha=1e-4 beta=0.75 after ReLU of conv1"),
        ("alexnet.torchvision", "AlexNet pooling", "", "overlapping max 3x3 stride 2 after conv1, conv2 and conv5"),
        ("vgg11", "AlexNet pooling", "stage1+stage2", "max 2x2 stride 2 after conv1 and conv1"),
        ("alexnet.cifar", "input neurons", "", 3 * 32 * 32),
    ],
)
def test_section_3_is_printed_from_the_tree(name, convention, part, printed):
    assert CONVENTIONS[convention].count(built(spec(name)), part) == printed
