"""The combinators compute their formulas and refuse what would corrupt them silently."""

import pytest
import torch
from torch import nn

from convatlas.tree import Concat, Gate, Net, Residual, Shuffle, ZeroPad, classifier, conv, conv_bn_act, seq


@pytest.fixture
def x():
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def test_seq_leaves_out_none():
    assert [name for name, _ in seq(a=nn.ReLU(), b=None, c=nn.Identity()).named_children()] == ["a", "c"]


def test_residual_is_body_plus_skip(x):
    body, skip = conv(4, 8, 3), conv(4, 8)
    assert torch.equal(Residual(body, skip)(x), body(x) + skip(x))
    assert torch.equal(Residual(nn.ReLU())(x), x.relu() + x)


def test_concat_joins_channels_in_order(x):
    a, b = conv(4, 3), conv(4, 2)
    assert torch.equal(Concat(a=a, b=b)(x), torch.cat([a(x), b(x)], 1))


def test_gate_multiplies(x):
    gate = seq(pool=nn.AdaptiveAvgPool2d(1), sigmoid=nn.Sigmoid())
    assert torch.equal(Gate(gate)(x), x * x.mean((2, 3), keepdim=True).sigmoid())


in_place = nn.ReLU(inplace=True)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Residual(in_place),
        lambda: Residual(nn.Conv2d(4, 4, 1), in_place),
        lambda: Residual(seq(a=nn.Identity(), b=seq(act=in_place), c=conv(4, 4))),
        lambda: Residual(seq(drop=nn.Dropout(0.5), act=in_place)),
        lambda: Concat(a=conv(4, 4), b=seq(act=in_place)),
        lambda: Gate(seq(act=in_place)),
        lambda: Net({"stem": conv(4, 4), "act": in_place, "head": classifier(4, 2)}, {"stem": classifier(4, 2)}),
    ],
)
def test_an_in_place_first_layer_is_refused(build):
    with pytest.raises(ValueError, match="in-place layer"):
        build()


def test_an_in_place_layer_after_another_is_fine(x):
    body = seq(conv=conv(4, 4), act=in_place)
    before = x.clone()
    Residual(body)(x)
    assert torch.equal(x, before)


def test_shuffle_interleaves_the_groups():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert Shuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(Shuffle(3)(Shuffle(2)(x)), x)


def test_zero_pad_subsamples_and_centres(x):
    y = ZeroPad(4, 8, stride=2)(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert y[:, :2].abs().sum() == y[:, 6:].abs().sum() == 0


def small_net(**aux):
    return Net(
        {"stem": conv_bn_act(3, 4, 3), "stage": conv_bn_act(4, 4, 3), "head": classifier(4, 5)},
        {part: classifier(4, 5) for part in aux},
    )


def test_net_returns_a_tensor_in_every_mode_and_aux_only_when_asked():
    net, x = small_net(stem=1), torch.randn(2, 3, 8, 8)
    for mode in (True, False):
        net.train(mode)
        assert net(x).shape == (2, 5)
    logits, side = net(x, aux=True)
    assert torch.equal(logits, net(x))
    assert list(side) == ["stem"]
    assert torch.equal(side["stem"], net.aux["stem"](net.stem(x)))


def test_net_refuses_a_head_on_an_unknown_part():
    with pytest.raises(ValueError, match="no such part"):
        small_net(stage9=1)


def test_net_needs_a_head():
    with pytest.raises(ValueError, match="must be 'head'"):
        Net({"stem": conv(3, 4)})


def test_repr_shows_the_architecture():
    text = repr(small_net())
    assert "(stem): Sequential" in text
    assert "ZeroPad(4, 8, stride=2)" in repr(ZeroPad(4, 8, 2))
