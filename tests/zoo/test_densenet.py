"""DenseNet against its paper, the authors' code, and torchvision's."""

import pytest
import torch
from torch import nn
from torchvision.models import densenet121 as torchvision_densenet121

from convatlas.papers.built import built
from convatlas.tree import SE, Concat, Gate
from convatlas.zoo import create, list_networks, spec


def convolutions(net):
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


def order(m):
    """The leaves in the order in which they run, by kind."""
    return [type(leaf).__name__ for leaf in m.modules() if not list(leaf.children())]


@pytest.fixture(scope="module")
def densenet121():
    return spec("densenet121").skeleton()


def test_blocks_alternate_with_transitions(densenet121):
    blocks = ["block1", "transition1", "block2", "transition2", "block3", "transition3", "block4"]
    assert densenet121.parts == ("stem", "pool", *blocks, "final", "head")
    sizes = [out.h for out in built(spec("densenet121")).cost.parts.values()]
    assert sizes == [112, 56, 56, 28, 28, 14, 14, 7, 7, 7, 1]


def test_a_layer_normalises_before_each_convolution(densenet121):
    assert order(densenet121.block1[0].new) == ["BatchNorm2d", "ReLU", "Conv2d"] * 2
    assert order(densenet121.transition1) == ["BatchNorm2d", "ReLU", "Conv2d", "AvgPool2d"]
    assert order(densenet121.final) == ["BatchNorm2d", "ReLU"]
    assert order(spec("densenet40_k12").skeleton().block1[0].new) == ["BatchNorm2d", "ReLU", "Conv2d"]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("densenet121", [(64, 256), (128, 512), (256, 1024), (512, 1024)]),
        ("densenet161", [(96, 384), (192, 768), (384, 2112), (1056, 2208)]),
        ("densenet40_k12", [(16, 160), (160, 304), (304, 448)]),  # theta = 1
        ("densenet_bc100_k12", [(24, 216), (108, 300), (150, 342)]),
        ("densenet_bc250_k24", [(48, 1032), (516, 1500), (750, 1734)]),
        ("densenet_b100_k12", [(16, 208), (208, 400), (400, 592)]),
        ("densenet_c100_k12", [(16, 400), (200, 584), (292, 676)]),
    ],
)
def test_channels_grow_by_k_a_layer_and_shrink_in_transitions(name, blocks):
    costs = built(spec(name)).cost
    parts = [path for path in costs.parts if path.startswith("block")]
    assert [(costs.inputs[path].c, costs.outputs[path].c) for path in parts] == blocks


@pytest.mark.parametrize("name", ["densenet201", "densenet_bc190_k40", "densenet_b100_k12"])
def test_the_bottleneck_has_4k_channels(name):
    k = spec(name).growth_rate
    for path, m in spec(name).skeleton().named_modules():
        if isinstance(m, nn.Conv2d) and ".new." in path:
            expected = (m.in_channels, 4 * k, (1, 1)) if "conv1" in path else (4 * k, k, (3, 3))
            assert (m.in_channels, m.out_channels, m.kernel_size) == expected


@torch.no_grad()
def test_a_layer_sees_the_maps_of_all_before_it():
    torch.manual_seed(0)
    block, x = create("densenet40_k12").block1.eval(), torch.randn(2, 16, 8, 8)
    features = [x]
    for layer in block:
        features.append(layer.new(torch.cat(features, 1)))
    assert len(features) == 13
    assert torch.equal(block(x), torch.cat(features, 1))


def test_small_images_are_not_shrunk_by_the_stem():
    net, costs = spec("densenet_bc100_k12").skeleton(), built(spec("densenet_bc100_k12")).cost
    assert order(net.stem) == ["Conv2d"]  # BatchNorm and ReLU are those of the first layer
    assert [costs.parts[part].h for part in ("stem", "block1", "block2", "block3")] == [32, 32, 16, 8]


@pytest.mark.parametrize(
    ("name", "width", "params"),
    [
        ("densenet40_k12", 24, 1_059_298),  # the authors' code: 2k channels in the stem of every network
        ("densenet100_k12", 24, 7_083_538),
        ("densenet100_k24", 48, 28_071_706),
        ("densenet_c100_k12", 24, 4_068_490),  # pytorchcv's densenet100_k12_cifar10
    ],
)
def test_another_width_of_the_stem_gives_the_counts_of_others(name, width, params):
    assert built(spec(name, width=width)).cost.params == params
    assert spec(name).width == 16


@pytest.mark.parametrize("name", list_networks("densenet*.dropout"))
def test_dropout_follows_every_convolution_but_the_first(name):
    arch, kinds = spec(name), order(spec(name).skeleton())
    assert arch.dropout == 0.2
    after = [kinds[i + 1] == "Dropout" for i, kind in enumerate(kinds) if kind == "Conv2d"]
    assert after == [False] + [True] * (len(after) - 1)
    assert kinds.count("Dropout") == len(after) - 1


def test_without_augmentation_only_dropout_is_added():
    plain, dropout = spec("densenet_bc100_k12").skeleton(), spec("densenet_bc100_k12.dropout").skeleton()
    assert list(plain.state_dict()) == list(dropout.state_dict())
    assert "Dropout" not in order(plain)


def test_initialisation_is_that_of_the_authors_code():
    torch.manual_seed(0)
    net = create("densenet121")
    for m in convolutions(net):
        n = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
        assert m.weight.std().item() == pytest.approx((2 / n) ** 0.5, rel=6 / (2 * m.weight.numel()) ** 0.5)
        assert m.weight.mean().item() == pytest.approx(0, abs=6 * (2 / n / m.weight.numel()) ** 0.5)
        assert m.bias is None
    assert torch.equal(net.head.fc.bias, torch.zeros(1000))
    assert net.head.fc.weight.std() > 0


@torch.no_grad()
def test_torchvisions_weights_fit_in_their_order():
    torch.manual_seed(0)
    theirs, ours = torchvision_densenet121(), create("densenet121")
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.uniform_(0.5, 1.5)
            m.bias.normal_(std=0.2)
            m.running_mean.normal_(std=0.2)
            m.running_var.uniform_(0.5, 2)
    pairs = list(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(dict(pairs))
    x = torch.randn(2, 3, 64, 64)
    expected = theirs.eval()(x)
    assert expected.std() > 0.1
    assert (ours.eval()(x) - expected).abs().max() <= 1e-5


def test_se_gates_the_new_maps_of_each_layer():
    net = spec("densenet_bc100_k12", se=SE(4)).skeleton()
    gates = {path: m for path, m in net.named_modules() if isinstance(m, Gate)}
    assert len(gates) == 3 * 16
    assert {m.gate.fc1.in_channels for m in gates.values()} == {12}
    layer = net.block2[3]
    assert isinstance(layer, Concat)
    assert [name for name, _ in layer.new.named_children()] == ["conv1", "conv2", "se"]
