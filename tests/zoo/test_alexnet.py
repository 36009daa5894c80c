"""AlexNet as the paper describes it, and the later forms that others call AlexNet."""

import pytest
import torch
import torchvision
from torch import nn

from convatlas.papers.built import built
from convatlas.tree import SE, Gate, cost, local_response_norm
from convatlas.zoo import create, list_networks, spec

PAPER = """
    Conv2d ReLU LocalResponseNorm MaxPool2d
    Conv2d ReLU LocalResponseNorm MaxPool2d
    Conv2d ReLU Conv2d ReLU Conv2d ReLU MaxPool2d
    Linear ReLU Dropout Linear ReLU Dropout Linear
"""
PORT = """
    Conv2d ReLU MaxPool2d
    Conv2d ReLU MaxPool2d
    Conv2d ReLU Conv2d ReLU Conv2d ReLU MaxPool2d
    Dropout Linear ReLU Dropout Linear ReLU Linear
"""


def layers(name):
    """The kinds of the leaves in order, without the reshaping in front of the fully connected layers."""
    return [row.kind for row in built(spec(name)).cost.rows if row.kind not in ("AdaptiveAvgPool2d", "Flatten")]


@pytest.mark.parametrize("name", ["alexnet", "alexnet.ungrouped", "alexnet.owt", "alexnet.cifar"])
def test_order_of_the_layers_is_the_papers(name):
    assert layers(name) == PAPER.split()


def test_the_port_has_no_normalisation_and_drops_out_earlier():
    assert layers("alexnet.torchvision") == PORT.split()


@pytest.mark.parametrize("name", ["alexnet", "alexnet.owt", "alexnet.torchvision"])
def test_maps_are_those_of_the_papers_figure(name):
    maps = built(spec(name)).cost.outputs
    assert [maps[path].h for path in ("stage1.conv1", "stage2.conv2", "stage3.conv3", "stage3")] == [55, 27, 13, 6]


def test_224_pixels_without_padding_miss_the_papers_map():
    assert cost(spec("alexnet").skeleton(), 224).outputs["stage1.conv1"].h == 54


def test_the_small_form_ends_in_a_4x4_map():
    maps = built(spec("alexnet.cifar")).cost.parts
    assert {name: out.shape for name, out in maps.items() if name != "head"} == {
        "stage1": (96, 16, 16),
        "stage2": (256, 8, 8),
        "stage3": (256, 4, 4),
    }


@pytest.mark.parametrize(("name", "seen"), [("alexnet", [0, 128, 0, 0]), ("alexnet.ungrouped", [48, 128, 192, 192])])
def test_only_conv3_sees_both_halves_of_its_input(name, seen):
    """How many channels of the first half of their input the last channels of conv2 to conv5 depend on."""
    net, found = create(name), []
    for path in ("stage2.conv2", "stage3.conv3", "stage3.conv4", "stage3.conv5"):
        conv = net.get_submodule(f"{path}.conv")
        x = torch.randn(1, conv.in_channels, 5, 5, requires_grad=True)
        conv(x)[0, -1].sum().backward()
        found.append(int(x.grad[0, : conv.in_channels // 2].abs().amax((1, 2)).count_nonzero()))
    assert found == seen


def test_response_normalisation_is_the_papers_formula():
    """b = a / (k + alpha * sum of a^2 over n neighbours)^beta, alpha not divided by n [Sec. 3.3]."""
    torch.manual_seed(0)
    a = 100 * torch.randn(2, 8, 3, 3, dtype=torch.double)
    expected = torch.empty_like(a)
    for i in range(8):
        near = a[:, max(0, i - 2) : min(7, i + 2) + 1]
        expected[:, i] = a[:, i] / (2 + 1e-4 * near.square().sum(1)) ** 0.75
    assert torch.allclose(local_response_norm()(a), expected, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in list_networks("alexnet*") if name != "alexnet.cifar"])
def test_weights_begin_as_in_section_5(name):
    torch.manual_seed(0)
    net = create(name)
    biases = {}
    for path, m in net.named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            n = m.weight.numel()
            assert abs(m.weight.mean()) < 5 * 0.01 / n**0.5, path
            assert abs(m.weight.std() / 0.01 - 1) < 5 / (2 * n) ** 0.5, path
            biases[path.removesuffix(".conv").split(".")[-1]] = m.bias.unique().tolist()
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert biases == {name: [1.0 if name in ones else 0.0] for name in (*ones, "conv1", "conv3", "fc8")}


def test_weights_of_the_small_form_begin_as_glorots():
    torch.manual_seed(0)
    for path, m in create("alexnet.cifar").named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            area = m.weight[0, 0].numel()
            std = (2 / (area * (m.weight.shape[0] + m.weight.shape[1]))) ** 0.5
            assert abs(m.weight.std() / std - 1) < 5 / (2 * m.weight.numel()) ** 0.5, path
            assert m.bias.abs().max() == 0, path


@torch.no_grad()
def test_the_port_is_torchvisions():
    """The same tensors in the same order give the same logits, bit for bit, at other sizes too."""
    torch.manual_seed(0)
    ours, theirs = create("alexnet.torchvision").eval(), torchvision.models.alexnet(weights=None).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    for size in (224, 256):
        x = torch.randn(1, 3, size, size)
        assert torch.equal(ours(x), theirs(x)), size


def test_an_image_below_67_pixels_is_refused():
    net = spec("alexnet").skeleton()
    assert cost(net, 67).last_map.shape == (256, 1, 1)
    with pytest.raises(ValueError, match="needs at least 3 pixels, but its input is 2x2"):
        cost(net, 66)


def test_squeeze_and_excitation_follows_every_convolutions_relu():
    net = built(spec("alexnet", se=SE(16))).net
    for path in ("stage1.conv1", "stage2.conv2", "stage3.conv3", "stage3.conv4", "stage3.conv5"):
        assert [type(m) for m in net.get_submodule(path)] == [nn.Conv2d, nn.ReLU, Gate]
    assert sum(isinstance(m, Gate) for m in net.modules()) == 5
