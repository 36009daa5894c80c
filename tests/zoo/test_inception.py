"""Inception-v2 and Inception-v3 against the paper, the authors' release, and torchvision's copy of it."""

import itertools

import pytest
import torch
import torchvision
from torch import nn

from convatlas.papers.built import built
from convatlas.tree import SE, Concat, cost
from convatlas.zoo import create, inception_v2, spec

CUT = 0.879626  # standard deviation of a standard normal that is cut at -2 and 2


def words(m):
    """`1x1 48, 5x5 64` of a branch; `(1x3 384 | 3x1 384)` of a Concat in it."""
    if isinstance(m, Concat):
        return f"({' | '.join(words(branch) for branch in m.children())})"
    if isinstance(m, nn.Conv2d):
        stride = f"/{m.stride[0]}" if m.stride != (1, 1) else ""
        padded = all(2 * p + 1 == k for p, k in zip(m.padding, m.kernel_size, strict=True))
        return f"{'x'.join(map(str, m.kernel_size))}{stride}{'' if padded else ' unpadded'} {m.out_channels}"
    if isinstance(m, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max" if isinstance(m, nn.MaxPool2d) else "average"
        return f"{kind} {m.kernel_size}/{m.stride}" + (" padded" if m.padding else "")
    return ", ".join(filter(None, map(words, m.children())))


def module(name, part):
    """The branches of a module."""
    return [words(branch) for branch in built(spec(name)).net.get_submodule(part).children()]


def maps(name):
    return {part: f"{out.h}x{out.w}x{out.c}" for part, out in built(spec(name)).cost.parts.items()}


def test_v3_has_the_layers_of_the_release():
    assert words(built(spec("inception_v3")).net.get_submodule("stem")) == (
        "3x3/2 unpadded 32, 3x3 unpadded 32, 3x3 64, max 3/2, 1x1 80, 3x3 unpadded 192, max 3/2"
    )
    for part, pool in (("mixed5b", 32), ("mixed5c", 64), ("mixed5d", 64)):
        assert module("inception_v3", part) == [
            "1x1 64", "1x1 48, 5x5 64", "1x1 64, 3x3 96, 3x3 96", f"average 3/1 padded, 1x1 {pool}"
        ]  # fmt: skip
    assert module("inception_v3", "mixed6a") == [
        "3x3/2 unpadded 384", "1x1 64, 3x3 96, 3x3/2 unpadded 96", "max 3/2"
    ]  # fmt: skip
    for part, c in (("mixed6b", 128), ("mixed6c", 160), ("mixed6d", 160), ("mixed6e", 192)):
        assert module("inception_v3", part) == [
            "1x1 192",
            f"1x1 {c}, 1x7 {c}, 7x1 192",
            f"1x1 {c}, 7x1 {c}, 1x7 {c}, 7x1 {c}, 1x7 192",
            "average 3/1 padded, 1x1 192",
        ]
    assert module("inception_v3", "mixed7a") == [
        "1x1 192, 3x3/2 unpadded 320", "1x1 192, 1x7 192, 7x1 192, 3x3/2 unpadded 192", "max 3/2"
    ]  # fmt: skip
    for part in ("mixed7b", "mixed7c"):
        assert module("inception_v3", part) == [
            "1x1 320",
            "1x1 384, (1x3 384 | 3x1 384)",
            "1x1 448, 3x3 384, (1x3 384 | 3x1 384)",
            "average 3/1 padded, 1x1 192",
        ]


def test_v3_has_the_maps_of_the_release():
    shapes = ["35x35x192", "35x35x256", "35x35x288", "35x35x288", *["17x17x768"] * 5, "8x8x1280", *["8x8x2048"] * 2]
    assert list(maps("inception_v3").values()) == [*shapes, "1x1x1000"]


@torch.no_grad()
def test_v3_carries_torchvisions_weights():
    torch.manual_seed(0)
    theirs = torchvision.models.inception_v3(weights=None, init_weights=False).eval()
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(std=0.1)
            m.running_var.uniform_(0.5, 1.5)
    state = theirs.state_dict()
    in_our_order = sorted(state, key=lambda key: key.startswith("AuxLogits"))  # stable: the auxiliary head last
    ours = spec("inception_v3").skeleton().to_empty(device="cpu").eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), (state[key] for key in in_our_order), strict=True)))
    seen = []
    theirs.Mixed_6e.register_forward_hook(lambda m, args, out: seen.append(out))
    x = torch.randn(1, 3, 299, 299)
    logits, aux = ours(x, aux=True)
    expected = theirs(x)
    assert expected.std() > 1e-3
    assert (logits - expected).abs().max() <= 1e-5
    assert (aux["mixed6e"] - theirs.AuxLogits(*seen)).abs().max() <= 1e-5


def test_v3_auxiliary_head_is_counted_apart():
    b = built(spec("inception_v3"))
    assert sum(p.numel() for p in b.net.parameters()) == 27_161_264
    assert sum(p.numel() for p in b.net.aux.parameters()) == 3_326_696
    assert b.cost.params == 23_834_568
    assert dict(spec("inception_v3", aux=False).skeleton().aux) == {}


@pytest.mark.parametrize(("name", "part", "norms"), [("inception_v3", "mixed6e", 2), ("inception_v2", "mixed6f", 1)])
def test_only_v3_normalises_all_of_the_auxiliary_head(name, part, norms):
    net = built(spec(name)).net
    assert list(net.aux) == [part]
    assert words(net.aux[part]) == "1x1 128, 5x5 unpadded 768"
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.aux.modules()) == norms
    assert all((m.bias is None) == (norms == 2) for m in [net.aux[part].get_submodule("conv.conv")])


@torch.no_grad()
def test_auxiliary_head_pools_5x5_with_stride_3():
    pool = built(spec("inception_v3")).net.aux["mixed6e"].get_submodule("pool")
    x = torch.arange(17.0).expand(1, 1, 17, 17)
    assert pool(x)[0, 0, 0].tolist() == [2, 5, 8, 11, 14]


@torch.no_grad()
@pytest.mark.parametrize("name", ["inception_v2", "inception_v3"])
@pytest.mark.parametrize("size", [75, 224])
def test_auxiliary_head_takes_other_sizes(name, size):
    net = spec(name).skeleton()
    logits, aux = net(torch.empty(2, 3, size, size, device="meta"), aux=True)
    assert {logits.shape, *(out.shape for out in aux.values())} == {(2, 1000)}
    with pytest.raises(ValueError, match="needs at least 3 pixels"):
        cost(net, 74)


@pytest.mark.parametrize("name", ["inception_v2", "inception_v3"])
def test_weights_begin_as_in_the_release(name):
    torch.manual_seed(0)
    net = create(name)
    (aux,) = net.aux.values()
    deviation = {
        aux.get_submodule("conv.conv"): 0.01,
        aux.get_submodule("fc"): 0.001,
        net.get_submodule("head.fc"): 0.01,
    }
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            std, n = deviation.get(m, 0.1), m.weight.numel()
            assert m.weight.abs().max() <= 2 * std
            assert m.weight.std().item() == pytest.approx(CUT * std, rel=4 / (2 * n) ** 0.5)  # 4 standard errors
            assert m.bias is None or not m.bias.any()
        elif isinstance(m, nn.BatchNorm2d):
            assert m.eps == 1e-3
        elif isinstance(m, nn.Dropout):
            assert m.p == 0.2


def test_cifar_form_keeps_the_layers_and_the_map():
    assert [shape[: shape.rindex("x")] for shape in maps("inception_v3.cifar").values()] == [
        *["32x32"] * 4, *["16x16"] * 5, *["8x8"] * 3, "1x1"
    ]  # fmt: skip
    assert (
        words(built(spec("inception_v3.cifar")).net.get_submodule("stem")) == "3x3 32, 3x3 32, 3x3 64, 1x1 80, 3x3 192"
    )
    assert module("inception_v3.cifar", "mixed6a")[2] == "max 3/2 padded"

    def widths(name):
        net = spec(name, classes=10, aux=False).skeleton()
        return [p.shape for p in net.parameters()]

    assert widths("inception_v3.cifar") == widths("inception_v3")


@pytest.mark.parametrize("name", ["inception_v2", "inception_v3", "inception_v3.cifar"])
def test_se_stands_behind_every_module(name):
    parts = [part for part in maps(name) if part.startswith("mixed")]
    net = spec(name, se=SE(16)).skeleton()
    gates = [path for path, m in net.named_modules() if type(m).__name__ == "Gate"]
    assert gates == [f"{part}.se" for part in parts]


def test_v2_has_the_layers_of_table_1():
    assert words(built(spec("inception_v2")).net.get_submodule("stem")) == (
        "3x3/2 unpadded 32, 3x3 unpadded 32, 3x3 64, max 3/2, 3x3 unpadded 80, 3x3/2 unpadded 192, 3x3 288"
    )
    shapes = [*["35x35x288"] * 4, *["17x17x768"] * 6, "8x8x1280", *["8x8x2048"] * 2, "1x1x1000"]
    assert list(maps("inception_v2").values()) == shapes


def test_v2_has_the_modules_of_the_figures():
    for part in ("mixed5b", "mixed5c", "mixed5d"):
        assert module("inception_v2", part) == [
            "1x1 64", "1x1 32, 3x3 64", "1x1 32, 3x3 96, 3x3 96", "average 3/1 padded, 1x1 64"
        ]  # fmt: skip
    for part in ("mixed6b", "mixed6c", "mixed6d", "mixed6e", "mixed6f"):
        assert module("inception_v2", part) == [
            "1x1 192",
            "1x1 64, 1x7 64, 7x1 192",
            "1x1 64, 1x7 64, 7x1 64, 1x7 64, 7x1 192",
            "average 3/1 padded, 1x1 192",
        ]
    for part in ("mixed7b", "mixed7c"):
        assert module("inception_v2", part) == [
            "1x1 320",
            "1x1 128, (1x3 384 | 3x1 384)",
            "1x1 128, 3x3 128, (1x3 384 | 3x1 384)",
            "average 3/1 padded, 1x1 192",
        ]
    for part, inner, three, threes in (("mixed6a", 32, 384, 96), ("mixed7a", 64, 320, 192)):
        assert module("inception_v2", part) == [
            f"1x1 {inner}, 3x3/2 unpadded {three}",
            f"1x1 {inner}, 3x3 {threes}, 3x3/2 unpadded {threes}",
            "max 3/2",
        ]


def test_v2_serial_differs_in_the_8x8_modules_only():
    assert module("inception_v2.serial", "mixed7b") == [
        "1x1 320",
        "1x1 128, 1x3 128, 3x1 768",
        "1x1 128, 3x3 128, 1x3 128, 3x1 768",
        "average 3/1 padded, 1x1 192",
    ]
    for part in maps("inception_v2"):
        same = words(built(spec("inception_v2")).net.get_submodule(part)) == words(
            built(spec("inception_v2.serial")).net.get_submodule(part)
        )
        assert same == (part not in ("mixed7b", "mixed7c"))
    assert maps("inception_v2.serial") == maps("inception_v2")


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)), lambda: nn.Conv2d(8, 8, 5)),
        (lambda: inception_v2.row_column(8, 8, 7), lambda: nn.Conv2d(8, 8, 7)),
        (lambda: inception_v2.factorised(8, 8, serial=True), lambda: nn.Conv2d(8, 8, 3)),
        (lambda: inception_v2.factorised(8, 8, serial=False), lambda: nn.Conv2d(8, 8, 3)),
    ],
)
def test_a_factorised_kernel_sees_as_much_and_costs_less(small, large):
    with torch.device("meta"):
        ours, theirs = cost(small(), 17, 8), cost(large(), 17, 8)
    assert ours.outputs[""].rf == theirs.outputs[""].rf
    assert ours.total("weights") < theirs.total("weights")


def test_v2_widths_are_those_of_the_search():
    """One inner width per grid, in multiples of 32: six triples come to 3.8 G, of which one doubles."""

    def macs(build, c, side):
        with torch.device("meta"):
            return cost(build, side, c).macs

    def at_35(a):
        return 3 * macs(inception_v2.module35(a), 288, 35) + macs(inception_v2.reduction(288, a, 384, 96), 288, 35)

    def at_17(b):
        return 5 * macs(inception_v2.module17(b), 768, 17) + macs(inception_v2.reduction(768, b, 320, 192), 768, 17)

    def at_8(c):
        return sum(macs(inception_v2.module8(cin, c, serial=False), cin, 8) for cin in (1280, 2048))

    rest = macs(inception_v2.stem(3), 3, 299) + 2048 * 1000
    widths = range(32, 513, 32)
    costs = [{w: at(w) for w in widths} for at in (at_35, at_17, at_8)]
    total = {
        abc: rest + sum(c[w] for c, w in zip(costs, abc, strict=True)) for abc in itertools.product(widths, repeat=3)
    }
    assert [abc for abc, macs in total.items() if 3.75e9 <= macs < 3.85e9] == [
        (32, 32, 384), (32, 64, 128), (32, 64, 160), (32, 64, 192), (64, 32, 160), (64, 32, 192)
    ]  # fmt: skip
    assert total[32, 64, 128] == built(spec("inception_v2")).cost.macs == 3_753_561_184
