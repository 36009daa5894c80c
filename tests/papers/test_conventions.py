"""Conventions count what their names say, on a tree small enough to count by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from convatlas.papers import CONVENTIONS
from convatlas.papers.built import Built, built
from convatlas.tree import SE, Net, Residual, classifier, conv_bn, cost, seq
from convatlas.zoo import spec

SIZE, C, CLASSES = 4, 8, 10
WEIGHTS = 3 * C + C * C + 2 * (C * 2) + C * CLASSES  # stem, body, two layers of the gate, classifier
MACS = 16 * (3 * C + C * C) + 2 * (C * 2) + C * CLASSES


@pytest.fixture(scope="module")
def count() -> Callable[[str], int | str]:
    with torch.device("meta"):
        net = Net(
            {
                "stem": conv_bn(3, C),
                "stage1": nn.Sequential(seq(res=Residual(seq(conv=conv_bn(C, C), se=SE(4)(C))))),
                "head": classifier(C, CLASSES),
            }
        )
    tree = Built(spec("resnet18"), net, cost(net, SIZE))
    return lambda convention, part="": CONVENTIONS[convention].count(tree, part)


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("W", WEIGHTS),
        ("W+b", WEIGHTS + C + 2 + CLASSES),
        ("W+b+BN", WEIGHTS + C + 2 + CLASSES + 4 * C),
        ("W+b+BN+stats", WEIGHTS + C + 2 + CLASSES + 8 * C),
        ("BN stats", 4 * C),
        ("conv+FC", MACS),
        ("conv only", MACS - 2 * (C * 2) - C * CLASSES),
        ("conv+FC+add", MACS + 16 * C),
        ("conv+FC+add+scale", MACS + 2 * 16 * C),
        ("weight layers", 3),  # the gate has two more
        ("stage maps", "8x4x4"),
    ],
)
def test_counts(count, convention, expected):
    assert count(convention) == expected


def test_shortcuts_are_no_weight_layers():
    with_projections = built(spec("resnet34.c"))
    assert CONVENTIONS["weight layers"].count(with_projections, "") == 34


@pytest.mark.parametrize(
    ("name", "convention", "part", "printed"),
    [
        ("vgg11_lrn", "VGG table", "stage1", "conv3-64; LRN; maxpool"),
        ("vgg16c", "VGG table", "stage5", "conv3-512; conv3-512; conv1-512; maxpool"),
        ("vgg13_bn", "VGG table", "head", "FC-4096; FC-4096; FC-1000"),
        ("resnet152.c", "ResNet table", "stage4", "7x7 [1x1,512; 3x3,512; 1x1,2048] x3"),
        ("resnet50", "ResNet stem", "stem+pool", "112x112 7x7,64,stride 2; 3x3 max pool stride 2"),
        ("resnet1202", "ResNet CIFAR table", "stage3", "64 filters, 2n layers"),
        ("resnet34", "ResNet CIFAR table", "stage1", "64 filters, 6 layers"),
        ("se_resnet34", "SE table", "stage4", "[3x3,512;3x3,512; fc 32,512] x3"),
        ("se_resnext101_32x4d", "SE table", "stage2", "[1x1,256;3x3,256,C=32;1x1,512; fc 32,512] x4"),
    ],
)
def test_tables_are_printed_from_the_tree(name, convention, part, printed):
    assert CONVENTIONS[convention].count(built(spec(name)), part) == printed
