"""MobileNet v1 as the paper describes it, and as its authors released it."""

from fractions import Fraction
from math import erf, exp, pi, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convatlas.papers.built import built
from convatlas.tree import SE, Gate
from convatlas.zoo import create, list_networks, spec

UNITS = ["stage1.0", "stage2.0", "stage2.1", "stage3.0", "stage3.1", *(f"stage4.{i}" for i in range(6)), "stage5.0",
         "stage5.1"]  # fmt: skip


def macs(name, path):
    return sum(row.macs for row in built(spec(name)).rows(path))


@pytest.mark.parametrize("path", UNITS)
def test_a_convolution_taken_apart_costs_one_nth_and_one_ninth(path):
    """1/N + 1/9, exactly [Sec. 3.1]."""
    n = built(spec("mobilenet_v1")).cost.outputs[path].c
    cost = Fraction(macs("mobilenet_v1", path), macs("mobilenet_v1.conv", path))
    assert cost == Fraction(1, n) + Fraction(1, 9)


def test_every_convolution_is_followed_by_norm_and_relu_and_nothing_pools_before_the_head():
    kinds = [row.kind for row in built(spec("mobilenet_v1")).cost.rows]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 27 + ["AdaptiveAvgPool2d", "Flatten", "Linear"]


def test_units_are_depthwise_then_pointwise():
    net = built(spec("mobilenet_v1")).net
    for path in UNITS:
        depthwise, pointwise = (net.get_submodule(f"{path}.{name}.conv") for name in ("depthwise", "pointwise"))
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == pointwise.in_channels
        assert (depthwise.kernel_size, pointwise.kernel_size) == ((3, 3), (1, 1))
        assert (pointwise.groups, pointwise.stride) == (1, (1, 1))


def test_full_convolutions_replace_each_pair():
    convs = [m for m in built(spec("mobilenet_v1.conv")).net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 14
    assert {(m.kernel_size, m.groups) for m in convs} == {((3, 3), 1)}


@pytest.mark.parametrize(("name", "sizes"), [
    ("mobilenet_v1", [112, 112, 56, 28, 14, 7]),
    ("mobilenet_v1.keras", [112, 112, 56, 28, 14, 7]),
    ("mobilenet_v1.cifar", [32, 32, 32, 16, 8, 4]),
])  # fmt: skip
def test_maps_after_the_stem_and_the_stages(name, sizes):
    assert [out.h for part, out in built(spec(name)).cost.parts.items() if part != "head"] == sizes


@pytest.mark.parametrize("width", [0.75, 0.5, 0.25])
def test_the_width_multiplier_scales_every_layer(width):
    name = f"mobilenet_v1.x{width}".replace("0.", "0_")
    thin, full = (
        [m.out_channels for m in built(spec(n)).net.modules() if isinstance(m, nn.Conv2d)]
        for n in (name, "mobilenet_v1")
    )
    assert thin == [width * c for c in full]


@pytest.mark.parametrize("size", [192, 160, 128])
def test_the_resolution_multiplier_scales_the_convolutions_by_its_square(size):
    full, small = (built(spec("mobilenet_v1", size=s)).cost for s in (224, size))
    assert Fraction(small.total("macs", "Conv2d"), full.total("macs", "Conv2d")) == Fraction(size, 224) ** 2
    assert small.params == full.params


def test_shallow_leaves_out_five_units_of_stage_4():
    full, shallow = (set(built(spec(n)).net.state_dict()) for n in ("mobilenet_v1", "mobilenet_v1.shallow"))
    assert shallow < full
    assert {key.rsplit(".", 3)[0] for key in full - shallow} == {f"stage4.{i}" for i in range(1, 6)}


@pytest.mark.parametrize("name", list_networks("mobilenet_v1*"))
def test_weights_begin_as_in_the_release(name):
    """N(0, 0.09^2) cut at two deviations, whose own deviation is smaller."""
    torch.manual_seed(0)
    weights = [m.weight for m in create(name).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    cut = sqrt(1 - 4 * exp(-2) / sqrt(2 * pi) / erf(sqrt(2)))
    for w in weights:
        assert w.abs().max() <= 0.18
        assert abs(w.std() / (0.09 * cut) - 1) < 5 / (2 * w.numel()) ** 0.5
        assert abs(w.mean()) < 5 * 0.09 / w.numel() ** 0.5
    assert max(w.abs().max() for w in weights) > 0.17


@torch.no_grad()
def test_tensorflow_pads_below_and_on_the_right():
    torch.manual_seed(0)
    net = create("mobilenet_v1.keras").eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(
        net.stem.conv(net.stem.conv_pad(x)), F.conv2d(F.pad(x, (0, 1, 0, 1)), net.stem.conv.weight, stride=2)
    )
    strided = [p for p, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert strided == ["stem.conv", *(f"stage{i}.0.depthwise.conv" for i in (2, 3, 4, 5))]
    assert all(net.get_submodule(f"{path}_pad").k == 3 for path in strided)


def test_the_release_has_relu6_and_a_larger_epsilon():
    for name, act, eps in (("mobilenet_v1", nn.ReLU, 1e-5), ("mobilenet_v1.keras", nn.ReLU6, 1e-3)):
        net = built(spec(name)).net
        assert {type(m) for m in net.modules() if isinstance(m, nn.ReLU | nn.ReLU6)} == {act}
        assert {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {eps}


@pytest.mark.parametrize(("name", "last"), [("mobilenet_v1", "pointwise"), ("mobilenet_v1.conv", "act")])
def test_squeeze_and_excitation_ends_every_unit(name, last):
    net = built(spec(name, se=SE(16, bias=False))).net
    for path in UNITS:
        assert [child for child, _ in net.get_submodule(path).named_children()][-2:] == [last, "se"]
    assert sum(isinstance(m, Gate) for m in net.modules()) == len(UNITS)


def test_squeeze_and_excitation_has_the_parameters_of_senets_table():
    """4.7M [arXiv:1709.01507, Table 3]."""
    squeezes = sum(2 * c * (c // 16) for c in (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024))
    assert squeezes == 479_744
    assert built(spec("mobilenet_v1", se=SE(16, bias=False))).cost.params == 4_231_976 + squeezes == 4_711_720
