"""VGG as the paper's Table 1 describes it, and the forms that came later."""

import pytest
import torch
from torch import nn

from convatlas.papers.built import built
from convatlas.tree import SE, Gate, cost
from convatlas.zoo import create, list_networks, spec

CIFAR = ["vgg11_bn.cifar", "vgg13_bn.cifar", "vgg16_bn.cifar", "vgg19_bn.cifar"]


@pytest.mark.parametrize(("name", "convs"), [
    ("vgg11", "3 p 3 p 33 p 33 p 33 p"),
    ("vgg13", "33 p 33 p 33 p 33 p 33 p"),
    ("vgg16c", "33 p 33 p 331 p 331 p 331 p"),
    ("vgg16", "33 p 33 p 333 p 333 p 333 p"),
    ("vgg19", "33 p 33 p 3333 p 3333 p 3333 p"),
])  # fmt: skip
def test_kernels_and_poolings_are_those_of_table_1(name, convs):
    modules = [m for m in built(spec(name)).net.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    kinds = "".join(str(m.kernel_size[0]) if isinstance(m, nn.Conv2d) else "p" for m in modules)
    assert kinds == convs.replace(" ", "")


def test_a_lrn_normalises_once_behind_the_first_relu():
    kinds = [row.kind for row in built(spec("vgg11_lrn")).cost.rows]
    assert kinds[:4] == ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"]
    assert kinds.count("LocalResponseNorm") == 1


@pytest.mark.parametrize("name", list_networks("vgg*"))
def test_the_first_two_fully_connected_layers_drop_out(name):
    kinds = [row.kind for row in built(spec(name)).cost.rows if row.path.startswith("head")]
    hidden = ["Linear", "ReLU", "Dropout"]
    assert kinds == ["AdaptiveAvgPool2d", "Flatten", *hidden, *hidden, "Linear"]


@pytest.mark.parametrize("name", ["vgg11_lrn", "vgg16c_bn", "vgg11_bn.cifar"])
def test_weights_begin_as_glorots(name):
    torch.manual_seed(0)
    for path, m in create(name).named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            area = m.weight[0, 0].numel()
            std = (2 / (area * (m.weight.shape[0] + m.weight.shape[1]))) ** 0.5
            n = m.weight.numel()
            assert abs(m.weight.std() / std - 1) < 5 / (2 * n) ** 0.5, path
            assert m.bias.abs().max() == 0, path


@pytest.mark.parametrize("name", CIFAR)
def test_the_small_form_has_the_same_features_and_a_head_for_one_position(name):
    large, small = (built(spec(n)).net.state_dict() for n in (name.removesuffix(".cifar"), name))
    features = [key for key in small if not key.startswith("head")]
    assert features == [key for key in large if not key.startswith("head")]
    assert all(small[key].shape == large[key].shape for key in features)
    assert built(spec(name)).cost.last_map.shape == (512, 1, 1)
    assert [small[f"head.fc{i}.weight"].shape for i in (1, 2, 3)] == [(512, 512), (512, 512), (10, 512)]


def test_the_small_form_has_the_layers_of_its_name():
    assert [len(built(spec(name)).weight_layers()) for name in CIFAR] == [11, 13, 16, 19]


def test_other_sizes_are_pooled_to_the_map_of_the_first_fully_connected_layer():
    for size, side in ((224, 7), (288, 9), (96, 3)):
        folded = cost(spec("vgg11").skeleton(), size)
        assert folded.last_map.shape == (512, side, side)
        assert folded.outputs["head.pool"].shape == (512, 7, 7)


@pytest.mark.parametrize(("name", "layers"), [
    ("vgg11", [nn.Conv2d, nn.ReLU, Gate]),
    ("vgg16_bn", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, Gate]),
])  # fmt: skip
def test_squeeze_and_excitation_follows_every_convolutions_relu(name, layers):
    net = built(spec(name, se=SE(16))).net
    convs = [m for path, m in net.named_modules() if path.startswith("stage") and path.split(".")[-1][:-1] == "conv"]
    assert len(convs) == len(built(spec(name)).weight_layers()) - 3
    assert all([type(m) for m in conv] == layers for conv in convs)
