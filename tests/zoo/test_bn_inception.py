"""BN-Inception against its paper, and against pytorchcv's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convatlas.papers.built import built
from convatlas.tree import SE, Concat, Gate
from convatlas.zoo import create, list_networks, spec

NAMES = list_networks("bn_inception*")
MODULES = [f"inception{name}" for name in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]


def leaves(net, kind):
    return {path: m for path, m in net.named_modules() if isinstance(m, kind)}


@pytest.fixture(scope="module")
def paper():
    return spec("bn_inception").skeleton()


def test_no_pooling_stands_between_modules(paper):
    assert list(paper.parts) == ["conv1", "pool1", "conv2", "pool2", *MODULES, "head"]


def test_two_3x3_take_the_place_of_5x5(paper):
    assert {m.kernel_size for path, m in leaves(paper, nn.Conv2d).items() if "inception" in path} == {(1, 1), (3, 3)}
    double = [m for m in paper.inception5a.double3x3.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in double] == [
        (1024, 160, 1),
        (160, 224, 3),
        (224, 224, 3),
    ]


def test_batch_norm_and_relu_follow_every_convolution(paper):
    blocks = [m for m in paper.modules() if isinstance(m, nn.Sequential) and isinstance(next(iter(m), None), nn.Conv2d)]
    assert len(blocks) == len(leaves(paper, nn.Conv2d)) == 3 + 8 * 7 + 2 * 5
    assert {tuple(map(type, block)) for block in blocks} == {(nn.Conv2d, nn.BatchNorm2d, nn.ReLU)}
    assert all(m.bias is None for m in leaves(paper, nn.Conv2d).values())


def test_3c_and_4e_halve_the_map_in_the_last_layer_of_each_branch(paper):
    for name in MODULES:
        module = paper.get_submodule(name)
        layers = leaves(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d))
        strided = {path: m.stride for path, m in layers.items() if m.stride not in (1, (1, 1))}
        if name in ("inception3c", "inception4e"):
            assert strided == {"three.conv.conv": (2, 2), "double3x3.conv2.conv": (2, 2), "pool.pool": 2}
            assert not hasattr(module, "one")
        else:
            assert strided == {}


def test_only_5b_has_a_max_pool_before_its_projection(paper):
    pools = {name: type(paper.get_submodule(f"{name}.pool.pool")) for name in MODULES}
    assert [name for name, pool in pools.items() if pool is nn.MaxPool2d] == [
        "inception3c",
        "inception4e",
        "inception5b",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_fully_connected_layer_but_the_last_and_no_dropout(name):
    net = spec(name).skeleton()
    assert list(leaves(net, nn.Linear)) == ["head.fc"]
    assert leaves(net, nn.Dropout) == {}
    assert not net.aux


def test_a_projection_of_96_keeps_576_channels():
    after = {name: built(spec(name)).cost.parts for name in ("bn_inception", "bn_inception.608")}
    assert [after["bn_inception"][m].c for m in MODULES[5:7]] == [576, 576]
    assert [after["bn_inception.608"][m].c for m in MODULES[5:7]] == [608, 608]


@pytest.mark.parametrize("size", [224, 225, 239, 240, 255])
def test_branches_meet_at_every_size(paper, size):
    assert paper(torch.empty(2, 3, size, size, device="meta")).shape == (2, 1000)


@torch.no_grad()
@pytest.mark.parametrize("size", [14, 28])
def test_the_passing_max_pool_is_caffes_on_even_maps(paper, size):
    x = torch.randn(2, 320, size, size).relu()
    assert torch.equal(paper.inception3c.pool(x), F.max_pool2d(x, 3, 2, ceil_mode=True))


def test_small_images_keep_their_map():
    maps = {part: (out.h, out.w) for part, out in built(spec("bn_inception.cifar")).cost.parts.items()}
    assert [maps[part] for part in ("conv2", "inception3b", "inception3c", "inception4d", "inception4e")] == [
        (32, 32),
        (32, 32),
        (16, 16),
        (16, 16),
        (8, 8),
    ]


def test_weights_begin_as_he_by_fan_in():
    torch.manual_seed(0)
    for path, m in leaves(create("bn_inception.separable"), nn.Conv2d).items():
        if m.weight.numel() > 10_000:
            assert m.weight.std().item() == pytest.approx((2 / m.weight[0].numel()) ** 0.5, rel=0.05), path


@torch.no_grad()
def test_carries_pytorchcvs_weights():
    """Their convolutions have biases, which BatchNorm's mean takes up."""
    peer = pytest.importorskip("pytorchcv.models.bninception")
    torch.manual_seed(0)
    theirs = peer.bninception(num_classes=10).eval()
    for m in leaves(theirs, (nn.BatchNorm2d, nn.Conv2d)).values():
        m.bias.normal_(0, 0.1)
    for m in leaves(theirs, nn.BatchNorm2d).values():
        m.running_mean.normal_(0, 0.1)
        m.running_var.uniform_(0.5, 1.5)
    tensors, bias = [], None
    for key, tensor in theirs.state_dict().items():
        if key.endswith("conv.bias"):
            bias = tensor
        else:
            tensors.append(tensor - bias if key.endswith("running_mean") else tensor)
    ours = create("bn_inception.608", classes=10).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), tensors, strict=True)))
    x = torch.randn(2, 3, 224, 224)  # theirs takes no other size
    assert (ours(x) - theirs(x)).abs().max() <= 1e-5 * theirs(x).abs().max()


def test_squeeze_and_excitation_stands_behind_every_module():
    net = spec("bn_inception.608", se=SE(16)).skeleton()
    assert list(leaves(net, Gate)) == [f"{module}.se" for module in MODULES]
    assert isinstance(net.inception3a.layer, Concat)
    assert net(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)
