"""Transforms keep what they promise: outputs where they should be equal, all other weights, names, modes."""

import copy

import pytest
import torch
from torch import nn

from convatlas.errors import ConfigError
from convatlas.tree import (
    SE,
    Net,
    classifier,
    conv_bn_act,
    cost,
    fold_batch_norm,
    freeze,
    insert_se,
    replace_head,
    same_padding,
    seq,
    set_in_channels,
)  # fmt: skip
from convatlas.zoo import create


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = create("resnet20.b")
    for m in net.modules():  # statistics and affine parameters that are not the trivial ones
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean, std=0.2)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 2)
            nn.init.normal_(m.bias, std=0.2)
    return net.eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_folding_batch_norm_keeps_the_logits(net, x):
    before = net(x)
    assert fold_batch_norm(net) is net
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert (net(x) - before).abs().max() <= 1e-4 * before.abs().max()
    assert cost(net, 32).params == cost(create("resnet20.b"), 32).params - sum(
        m.num_features for m in create("resnet20.b").modules() if isinstance(m, nn.BatchNorm2d)
    )  # scale and shift become one bias


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "left"), [("densenet40_k12", 39), ("densenet_bc100_k12", 51), ("preact_resnet110", 54)]
)
def test_folding_reaches_from_one_sequential_into_the_next_and_not_across_a_join(name, left, x):
    """What stays begins a unit: there, the map it reads is also the shortcut's, or the block's."""
    torch.manual_seed(0)
    net = create(name).eval().double()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean, std=0.2)
            nn.init.uniform_(m.running_var, 0.5, 2)
    before = net(x.double())
    fold_batch_norm(net)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == left
    assert (net(x.double()) - before).abs().max() <= 1e-12 * before.abs().max()


@torch.no_grad()
def test_folding_leaves_what_an_auxiliary_head_reads():
    parts = {"stem": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "head": classifier(4, 2)}
    net = Net(parts, aux={"stem": classifier(4, 2)}).eval()
    nn.init.normal_(net.norm.running_mean)
    images = torch.randn(2, 3, 8, 8)
    logits, side = net(images, aux=True)
    again, side_again = fold_batch_norm(net)(images, aux=True)
    assert torch.allclose(again, logits)
    assert torch.equal(side_again["stem"], side["stem"])
    assert isinstance(net.norm, nn.BatchNorm2d)


@torch.no_grad()
def test_one_channel_gives_on_grey_what_three_gave_on_its_rgb_copy(net, x):
    grey = x[:, :1]
    before = net(grey.expand(-1, 3, -1, -1))
    assert torch.allclose(set_in_channels(net, 1)(grey), before, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("channels", [2, 4, 6, 7])
def test_more_channels_keep_the_response_to_equal_ones(net, x, channels):
    grey = x[:, :1]
    if channels % 3:  # equal filters for every channel, so that any number of repeats is exact
        net.stem.conv.weight.copy_(net.stem.conv.weight.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    before = net(grey.expand(-1, 3, -1, -1))
    assert torch.allclose(
        set_in_channels(net, channels)(grey.expand(-1, channels, -1, -1)), before, rtol=1e-3, atol=1e-3
    )


def test_replacing_the_head_keeps_everything_else(net, x):
    before = copy.deepcopy(net.state_dict())
    replace_head(net, 3)
    assert net(x).shape == (2, 3)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert [k for k in before if before[k].shape != after[k].shape] == ["head.fc.weight", "head.fc.bias"]
    assert all(torch.equal(before[k], after[k]) for k in before if not k.startswith("head"))


def test_replacing_the_head_covers_auxiliary_heads():
    net = Net({"stem": conv_bn_act(3, 4, 3), "head": classifier(4, 5)}, {"stem": classifier(4, 5)})
    logits, side = replace_head(net, 7)(torch.randn(2, 3, 8, 8), aux=True)
    assert logits.shape == side["stem"].shape == (2, 7)


def test_a_frozen_part_learns_nothing_and_its_batch_norm_stands_still(net, x):
    freeze(net, "stem", "stage1").train()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(x).sum().backward()
    optimizer.step()
    changed = {k.split(".")[0] for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"stage2", "stage3", "head"}
    assert not net.stem.training
    assert net.stage2.training


def test_freezing_what_is_not_there_names_the_nearest(net):
    with pytest.raises(ConfigError, match=r"called 'stage_1'.*stage1"):
        freeze(net, "stage_1")


@torch.no_grad()
def test_se_is_inserted_at_the_named_place_and_keeps_the_weights(net, x):
    before = copy.deepcopy(net.state_dict())
    insert_se(net, "stage*.*.res.body", SE(4))
    after = net.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    new = {k for k in after if k not in before}
    assert len(new) == 9 * 4  # nine units, two layers with weight and bias each
    assert after["stage3.2.res.body.se.gate.fc1.weight"].shape == (16, 64, 1, 1)
    for k in new:  # a gate that is wide open: sigmoid(100) = 1
        after[k].fill_(100.0 if k.endswith("fc2.bias") else 0.0)
    opened = net(x)
    plain = create("resnet20.b").eval()
    plain.load_state_dict(before)
    assert torch.equal(opened, plain(x))


def test_se_resnet50_has_the_published_count():
    with torch.device("meta"):
        net = insert_se(create("resnet50"), "stage*.*.res.body")
        without_bias = insert_se(create("resnet50"), "stage*.*.res.body", SE(16, bias=False))
    assert cost(net).params == 28_088_024  # the released model
    assert cost(without_bias).params == 28_071_976  # the paper's ablations
    assert cost(net).macs == 3_860_488_192


def test_se_at_a_place_that_is_not_there_is_refused(net):
    with pytest.raises(ConfigError, match=r"no module .* 'layer\*'"):
        insert_se(net, "layer*")


@pytest.mark.parametrize(
    ("where", "first", "gates", "channels"),
    [
        ("stage*.*.res.body", False, "stage3.0.res.body.se", 64),  # standard
        ("stage*.*.res.body", True, "stage3.0.res.body.se", 32),  # PRE
        ("stage*.*", False, "stage3.0.se", 64),  # POST
        ("stage*.*.res.skip", False, "stage3.0.res.skip.se", 64),  # Identity
        ("stage*.*.res", False, "stage3.0.res.se", 64),  # a combinator gets a Sequential around it
    ],
)
def test_se_goes_to_every_place_of_a_unit(where, first, gates, channels):
    net = insert_se(create("resnet20"), where, SE(4, first=first))
    assert len([path for path, m in net.named_modules() if path.endswith(".se")]) == 9
    gate = net.get_submodule(gates)
    assert gate.gate.fc1.in_channels == channels
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    unit = cost(net, 32).inputs[gates] if first else cost(net, 32).outputs[gates]
    assert unit.c == channels


@torch.no_grad()
def test_se_with_one_fc_rescales_each_channel_by_a_sigmoid_of_a_linear_map_of_the_means():
    torch.manual_seed(0)
    gate, x = SE(None)(5), torch.randn(2, 5, 4, 4)
    fc = gate.gate.fc
    scale = torch.sigmoid(x.mean((2, 3)) @ fc.weight[:, :, 0, 0].T + fc.bias)
    assert torch.allclose(gate(x), x * scale[:, :, None, None])


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 33])
def test_same_padding_puts_the_odd_row_and_column_below_and_on_the_right(size):
    torch.manual_seed(0)
    unpadded = seq(conv=nn.Conv2d(3, 8, 3, 2, bias=False), act=nn.ReLU())
    net = Net({"stem": conv_bn_act(3, 8, 3, stride=2), "body": conv_bn_act(8, 8, 3), "head": classifier(8, 2)})
    names = list(net.state_dict())
    unpadded.conv.load_state_dict(net.stem.conv.state_dict())
    x = torch.randn(2, 3, size, size)
    pads = (0, 1, 0, 1) if size % 2 == 0 else (1, 1, 1, 1)
    assert same_padding(net) is net
    stem = seq(pad=net.stem.conv_pad, conv=net.stem.conv, act=nn.ReLU())
    assert torch.equal(stem(x), unpadded(nn.functional.pad(x, pads)))
    assert net.body.conv.padding == (1, 1)
    assert list(net.state_dict()) == names
