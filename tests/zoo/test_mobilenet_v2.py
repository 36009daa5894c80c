"""MobileNet v2 as the paper's tables and figures describe it."""

from math import ceil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from convatlas.papers.built import built
from convatlas.tree import SE, Gate, Residual
from convatlas.zoo import create, list_networks, spec
from convatlas.zoo.mobilenet_v2 import divisible

WIDTHS = {  # the stem, the seven stages, the last convolution
    "mobilenet_v2.x0_35": (16, 8, 8, 16, 24, 32, 56, 112, 1280),
    "mobilenet_v2.x0_5": (16, 8, 16, 16, 32, 48, 80, 160, 1280),
    "mobilenet_v2.x0_75": (24, 16, 24, 24, 48, 72, 120, 240, 1280),
    "mobilenet_v2": (32, 16, 24, 32, 64, 96, 160, 320, 1280),
    "mobilenet_v2.x1_3": (40, 24, 32, 40, 80, 128, 208, 416, 1664),
    "mobilenet_v2.x1_4": (48, 24, 32, 48, 88, 136, 224, 448, 1792),
}
JOINED = ["2.1", "3.1", "3.2", "4.1", "4.2", "4.3", "5.1", "5.2", "6.1", "6.2"]  # stage.unit with a shortcut


def residuals(name):
    """Where the shortcuts are, and how many channels they join."""
    net = built(spec(name))
    paths = [path for path, m in net.net.named_modules() if isinstance(m, Residual)]
    return {path.removeprefix("stage"): net.cost.outputs[path].c for path in paths}


@pytest.mark.parametrize("name", WIDTHS)
def test_widths_are_rounded_as_in_the_release(name):
    maps = built(spec(name)).cost.parts
    assert tuple(out.c for part, out in maps.items() if part != "head") == WIDTHS[name]


@given(st.floats(min_value=7.5, max_value=5000))
def test_a_rounded_width_is_a_near_multiple_of_8_and_not_below_90_percent(c):
    width = divisible(c)
    assert width % 8 == 0
    assert 0.9 * c <= width <= c + 8
    if abs(width - c) > 4:  # not the nearest, as that lies below 90%
        assert width - 8 < 0.9 * c


def test_a_unit_is_expand_depthwise_project():
    net = spec("mobilenet_v2").skeleton()
    body = net.get_submodule("stage4.0.body")
    convs = [m for m in body.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size, m.stride, m.groups) for m in convs] == [
        (32, 192, (1, 1), (1, 1), 1),
        (192, 192, (3, 3), (2, 2), 192),
        (192, 64, (1, 1), (1, 1), 1),
    ]
    assert [type(m).__name__ for m in body.modules() if not list(m.children())] == [
        "Conv2d", "BatchNorm2d", "ReLU6", "Conv2d", "BatchNorm2d", "ReLU6", "Conv2d", "BatchNorm2d",
    ]  # fmt: skip
    assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Conv2d))


def test_the_unit_with_t_1_has_no_expansion():
    net = spec("mobilenet_v2").skeleton()
    without = [p for p, m in net.named_modules() if p.endswith("body") and not hasattr(m, "expand")]
    assert without == ["stage1.0.body"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mobilenet_v2", [112, 112, 56, 28, 14, 14, 7, 7, 7]),
        ("mobilenet_v2.keras", [112, 112, 56, 28, 14, 14, 7, 7, 7]),
        ("mobilenet_v2.cifar", [32, 32, 32, 16, 8, 8, 4, 4, 4]),
    ],
)
def test_maps(name, sizes):
    maps = list(built(spec(name)).cost.parts.values())
    assert [(out.h, out.w) for out in maps[:-1]] == [(n, n) for n in sizes]


def test_shortcuts_join_the_thin_ends_where_stride_and_widths_allow():
    thin = {"2": 24, "3": 32, "4": 64, "5": 96, "6": 160}
    assert residuals("mobilenet_v2") == {at: thin[at[0]] for at in JOINED}
    assert residuals("mobilenet_v2.x0_75").keys() == residuals("mobilenet_v2").keys()


def test_widths_that_rounding_made_equal_get_a_shortcut_only_at_stride_1():
    assert residuals("mobilenet_v2.x0_35").keys() == residuals("mobilenet_v2").keys()  # stages 1 and 2 are both 8 wide
    quarter = built(spec("mobilenet_v2", width=0.25)).net  # so are the stem and stage 1
    assert isinstance(quarter.get_submodule("stage1.0"), Residual)
    wide = built(spec("mobilenet_v2.expansions", width=0.25)).net  # but not what follows them
    assert not isinstance(wide.get_submodule("stage1.0"), Residual)


def test_shortcuts_between_expansions_join_six_times_wider_maps_and_cost_nothing():
    assert residuals("mobilenet_v2.no_shortcut") == {}
    wide = residuals("mobilenet_v2.expansions")
    assert sorted(wide.values()) == [144, 192, 192, 384, 384, 384, 576, 576, 960, 960]
    assert len(wide) == len(JOINED)
    original, other = built(spec("mobilenet_v2")).cost, built(spec("mobilenet_v2.expansions")).cost
    assert (other.params, other.macs) == (original.params, original.macs)
    assert [r.shape for r in other.rows if r.kind == "Conv2d"] == [r.shape for r in original.rows if r.kind == "Conv2d"]


@torch.no_grad()
def test_without_shortcuts_both_cuts_are_the_same_function():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    thin, plain, wide = (
        create(name, classes=3).eval()
        for name in ("mobilenet_v2", "mobilenet_v2.no_shortcut", "mobilenet_v2.expansions")
    )
    weights = list(plain.state_dict().values())
    for net in (thin, wide):
        net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    plain_logits = plain(x)
    assert not torch.allclose(thin(x), plain_logits)
    assert not torch.allclose(wide(x), plain_logits)
    for net in (thin, wide):
        for path, m in list(net.named_modules()):
            if isinstance(m, Residual):
                net.set_submodule(path, m.body)
        assert torch.equal(net(x), plain_logits)


@torch.no_grad()
def test_a_linear_bottleneck_puts_out_negative_values_and_a_nonlinear_one_none():
    torch.manual_seed(0)
    x = torch.randn(4, 16, 8, 8)
    linear = create("mobilenet_v2").stage2[0](x)
    clipped = create("mobilenet_v2.nonlinear").stage2[0](30 * x)
    assert (linear < 0).any()
    assert clipped.min() == 0
    assert clipped.max() <= 6


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 33])
def test_keras_pads_strided_convolutions_as_tensorflow(size):
    net = create("mobilenet_v2.keras").eval()
    x = torch.randn(1, 3, size, size)
    below = (ceil(size / 2) - 1) * 2 + 3 - size  # one row for an even size, two for an odd
    padded = F.pad(x, (below // 2, below - below // 2) * 2)
    assert torch.equal(net.stem.conv(net.stem.conv_pad(x)), F.conv2d(padded, net.stem.conv.weight, stride=2))
    padded_at = {p for p, m in net.named_modules() if type(m).__name__ == "SamePad"}
    assert padded_at == {
        "stem.conv_pad", *(f"stage{i}.0.body.depthwise.conv_pad" for i in (2, 3, 4, 6)),
    }  # fmt: skip
    assert {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert {m.eps for m in create("mobilenet_v2").modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}


def test_keras_has_the_same_tensors():
    shapes = [
        {k: v.shape for k, v in spec(n).skeleton().state_dict().items()} for n in ("mobilenet_v2", "mobilenet_v2.keras")
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2.x0_35", "mobilenet_v2.expansions"])
def test_squeeze_and_excitation_ends_every_unit_before_the_addition(name):
    net = spec(name, se=SE(4)).skeleton()
    gates = [p for p, m in net.named_modules() if isinstance(m, Gate)]
    assert len(gates) == 17
    for path in gates:
        body = net.get_submodule(path.removesuffix(".se"))
        assert path.endswith(".body.se")
        assert list(body.children())[-1] is body.se


def test_weights_begin_as_in_the_release():
    torch.manual_seed(0)
    net = create("mobilenet_v2")
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            assert m.weight.abs().max() <= 0.18
        if isinstance(m, nn.BatchNorm2d):
            assert (m.weight == 1).all()
            assert (m.bias == 0).all()
    large = torch.cat([net.head.fc.weight.flatten(), net.conv.conv.weight.flatten()])
    # a normal distribution cut at two deviations has 0.8796 of its deviation left
    assert large.std().item() == pytest.approx(0.8796 * 0.09, rel=0.005)
    assert abs(large.mean().item()) < 3 * 0.08 / len(large) ** 0.5
    assert (net.head.fc.bias == 0).all()


def test_dropout_stands_before_the_last_layer_only():
    for name in list_networks("mobilenet_v2*"):
        dropouts = {p: m.p for p, m in spec(name).skeleton().named_modules() if isinstance(m, nn.Dropout)}
        assert dropouts == {"head.drop": 0.2}
