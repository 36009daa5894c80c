"""GoogLeNet against its paper, and against torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import googlenet as torchvision_googlenet

from convatlas.papers.built import built
from convatlas.tree import SE, Gate, set_in_channels
from convatlas.zoo import create, list_networks, spec

NAMES = list_networks("googlenet*")
MODULES = [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]


def leaves(net, kind):
    return {path: m for path, m in net.named_modules() if isinstance(m, kind)}


@pytest.fixture(scope="module")
def paper():
    return spec("googlenet").skeleton()


def test_parts_are_the_rows_of_table_1(paper):
    stem = ["conv1", "pool1", "conv2", "pool2"]
    assert list(paper.parts) == [*stem, *MODULES[:2], "pool3", *MODULES[2:7], "pool4", *MODULES[7:], "head"]


def test_a_module_looks_with_three_kernels_and_a_pool(paper):
    branches = dict(paper.inception4e.named_children())
    convs = {name: [m for m in branch.modules() if isinstance(m, nn.Conv2d)] for name, branch in branches.items()}
    assert {name: [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in ms] for name, ms in convs.items()} == {
        "one": [(528, 256, 1)],
        "three": [(528, 160, 1), (160, 320, 3)],
        "five": [(528, 32, 1), (32, 128, 5)],
        "pool": [(528, 128, 1)],
    }
    assert (branches["pool"].pool.kernel_size, branches["pool"].pool.stride) == (3, 1)


def test_the_paper_normalises_twice_and_has_biases(paper):
    assert list(leaves(paper, nn.LocalResponseNorm)) == ["pool1.lrn", "conv2.lrn"]
    assert [type(m) for m in paper.pool1] == [nn.MaxPool2d, nn.LocalResponseNorm]
    assert leaves(paper, nn.BatchNorm2d) == {}
    assert all(m.bias is not None for m in leaves(paper, nn.Conv2d).values())


@pytest.mark.parametrize("name", ["googlenet.bn", "googlenet.torchvision", "googlenet.cifar"])
def test_batch_norm_takes_the_place_of_lrn_and_of_biases(name):
    net = spec(name).skeleton()
    assert leaves(net, nn.LocalResponseNorm) == {}
    assert all(m.bias is None for m in leaves(net, nn.Conv2d).values())
    assert len(leaves(net, nn.BatchNorm2d)) == len(leaves(net, nn.Conv2d)) == 57 + 2


def test_only_torchvisions_form_departs_from_the_paper():
    for name in NAMES:
        net = spec(name).skeleton()
        released = name == "googlenet.torchvision"
        assert {m.eps for m in leaves(net, nn.BatchNorm2d).values()} <= {1e-3 if released else 1e-5}
        assert net.inception3a.five.conv.conv.kernel_size == ((3, 3) if released else (5, 5))
        assert (net.pool3.kernel_size, net.pool4.kernel_size) == (3, 2 if released else 3)
        assert net.head.drop.p == (0.2 if released else 0.4)
        assert {head.drop.p for head in net.aux.values()} == {0.7}


@pytest.mark.parametrize("name", NAMES)
def test_two_heads_hang_on_4a_and_4d_and_run_only_when_asked(name):
    net, size = spec(name, classes=7).skeleton().train(), spec(name).size
    x = torch.empty(2, 3, size, size, device="meta")
    assert net(x).shape == (2, 7)
    logits, aux = net(x, aux=True)
    assert logits.shape == (2, 7)
    assert {part: out.shape for part, out in aux.items()} == {"inception4a": (2, 7), "inception4d": (2, 7)}
    assert {head.conv.conv.in_channels for head in net.aux.values()} == {512, 528}


@pytest.mark.parametrize(("name", "size"), [("googlenet", 14), ("googlenet.cifar", 16)])
def test_the_heads_pool_5x5_by_3(name, size):
    x = torch.randn(1, 512, size, size)
    for head in spec(name).skeleton().aux.values():
        assert torch.equal(head.pool(x), F.avg_pool2d(x, 5, 3))
        assert head.pool(torch.randn(1, 512, 9, 5)).shape == (1, 512, 4, 4)


def test_the_separable_stem_is_a_7x7_of_eight_filters_a_channel():
    torch.manual_seed(0)
    stem = create("googlenet.separable").conv1
    assert [type(m) for m in stem] == [nn.Conv2d, nn.Conv2d, nn.ReLU]
    assert (stem.depthwise.groups, stem.depthwise.out_channels, stem.depthwise.stride) == (3, 24, (2, 2))
    assert stem.depthwise.bias is None
    filters = stem.depthwise.weight.view(3, 8, 7, 7)  # with nothing between them, the two are one 7x7
    dense = torch.einsum("ocm,cmhw->ochw", stem.conv.weight.view(64, 3, 8), filters)
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(stem(x), F.conv2d(x, dense, stem.conv.bias, 2, 3).relu(), atol=1e-5)
    assert spec("googlenet.separable", in_channels=1).skeleton().conv1.depthwise.out_channels == 8


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 6])
def test_a_separable_stem_takes_other_channels(channels):
    torch.manual_seed(0)
    net = create("googlenet.separable", classes=3).eval()
    grey = torch.randn(2, 1, 64, 64)
    before = net(grey.expand(-1, 3, -1, -1))
    after = set_in_channels(net, channels)(grey.expand(-1, channels, -1, -1))
    assert torch.allclose(after, before, atol=1e-5)


def test_small_images_keep_their_map():
    maps = {part: (out.h, out.w) for part, out in built(spec("googlenet.cifar")).cost.parts.items()}
    assert {part: maps[part] for part in ("conv2", "inception3b", "inception4e", "inception5b")} == {
        "conv2": (32, 32),
        "inception3b": (32, 32),
        "inception4e": (16, 16),
        "inception5b": (8, 8),
    }


@torch.no_grad()
def test_weights_begin_as_he_by_fan_in_and_the_signal_arrives():
    torch.manual_seed(0)
    net = create("googlenet", classes=10).eval()
    for path, m in leaves(net, nn.Conv2d).items():
        if m.weight.numel() > 10_000:
            assert m.weight.std().item() == pytest.approx((2 / m.weight[0].numel()) ** 0.5, rel=0.05), path
        assert m.bias.abs().max() == 0, path
    images = F.interpolate(torch.randn(8, 3, 14, 14), size=112, mode="bilinear")
    logits, aux = net(images, aux=True)
    for out in (logits, *aux.values()):
        assert 0.005 < out.std(0).mean() < 0.5  # Glorot's: 0.0005


@torch.no_grad()
def test_carries_torchvisions_weights():
    torch.manual_seed(0)
    theirs = torchvision_googlenet(weights=None, init_weights=False, aux_logits=True, num_classes=10)
    for m in leaves(theirs, nn.BatchNorm2d).values():
        for tensor in (m.weight, m.bias, m.running_mean):
            tensor.normal_(0.5, 0.2)
        m.running_var.uniform_(0.5, 1.5)
    ours = create("googlenet.torchvision", classes=10).eval()
    order = sorted(theirs.state_dict(), key=lambda key: key.startswith("aux"))  # the heads last, as ours
    ours.load_state_dict(dict(zip(ours.state_dict(), (theirs.state_dict()[key] for key in order), strict=True)))
    for m in leaves(theirs, nn.Dropout).values():
        m.p = 0.0
    theirs.eval().training = True  # so that it puts out its auxiliary logits, with the statistics that it keeps
    x = torch.randn(2, 3, 128, 128)
    expected = theirs(x)
    logits, aux = ours(x, aux=True)
    assert (logits - expected.logits).abs().max() <= 1e-5
    assert (aux["inception4a"] - expected.aux_logits1).abs().max() <= 1e-5
    assert (aux["inception4d"] - expected.aux_logits2).abs().max() <= 1e-5


def test_squeeze_and_excitation_stands_behind_every_module():
    net = spec("googlenet", se=SE(16)).skeleton()
    assert list(leaves(net, Gate)) == [f"{module}.se" for module in MODULES]
    assert net(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)
