"""Transforms for inference: the same logits, less work, and only where they are exact."""

import copy

import pytest
import torch
from torch import nn

from convatlas.deploy.optimise import (
    FOR,
    absorb_shuffle,
    activate_branches,
    clamp_before_convolution,
    convolve_head,
    drop_dead,
    fill_block,
    fold_batch_norm,
    gather_shuffle,
    optimise,
    pool_before_convolution,
    preallocate,
    stride_early,
)
from convatlas.deploy.optimise.clamp import Clamp
from convatlas.deploy.optimise.dense import DenseBlock
from convatlas.tree import (
    SE,
    Concat,
    Net,
    Residual,
    Shuffle,
    ZeroPad,
    bn_act_conv,
    classifier,
    conv_bn,
    conv_bn_act,
    cost,
    seq,
)
from convatlas.zoo import spec

from forms import every_form
from golden import quick_size

EVERY = tuple(dict.fromkeys(transform for transforms in FOR.values() for transform in transforms))


@torch.no_grad()
def randomised(net, size=32):
    """Weights with nothing trivial in them and the statistics of a batch, in double precision and eval mode."""
    random = torch.Generator().manual_seed(0)
    for values in net.double().state_dict().values():
        if values.dim() > 1:
            values.normal_(std=(2 / values[0].numel()) ** 0.5, generator=random)
        elif values.is_floating_point():
            values.uniform_(-0.3, 0.3, generator=random)
    norms = [m for m in net.eval().modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:
        m.weight += 0.8 * m.weight.sign()  # half of them below 0
        m.reset_running_stats()
        m.train().momentum = 1.0
    net(images(next(m for m in net.modules() if isinstance(m, nn.Conv2d)).in_channels, size))
    return net.eval()


def built(name):
    return randomised(spec(name).skeleton().to_empty(device="cpu"), quick_size(name))


def images(channels=3, size=32):
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1)).double()


@torch.no_grad()
def assert_same_logits(net, after, x):
    wanted = net(x)
    assert wanted.abs().max() > 1e-6  # else anything would do
    tolerance = min(1e-4, 1e-6 * wanted.abs().max())
    assert (after(x) - wanted).abs().max() <= tolerance


@every_form
def test_all_transforms_together_leave_the_logits_of_every_network(name):
    net, arch = built(name), spec(name)
    after = copy.deepcopy(net)
    for transform in EVERY:
        assert transform(after) is after
    size = quick_size(name)
    assert_same_logits(net, after, images(arch.in_channels, size)[:1])
    assert cost(after, size, arch.in_channels).macs <= 1.1 * cost(net, size, arch.in_channels).macs  # filled blocks


@pytest.mark.parametrize("runtime", FOR)
@pytest.mark.parametrize("name", ["densenet40_k12", "shufflenet.g3.cifar", "googlenet.cifar"])
def test_a_network_is_optimised_for_each_runtime(name, runtime):
    net = built(name)
    after = optimise(copy.deepcopy(net).train(), runtime)
    assert not after.training
    assert not any(p.requires_grad for p in after.parameters())
    assert repr(after) != repr(net)
    assert_same_logits(net.eval(), after, images())


def test_dead_parts_go():
    net = drop_dead(built("googlenet.cifar"))
    assert not net.aux
    assert not any(isinstance(m, nn.Dropout) for m in net.modules())


def test_an_average_moves_before_a_1x1_convolution():
    net = built("densenet40_k12")
    after = pool_before_convolution(copy.deepcopy(net))
    assert_same_logits(net, after, images())
    saved = 3 / 4 * (160 * 160 * 32**2 + 304 * 304 * 16**2)  # both transitions at a quarter of their pixels
    assert cost(net, 32).macs - cost(after, 32).macs == saved


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2, ceil_mode=True), nn.MaxPool2d(2)], ids=["padded", "ceil", "max"]
)
def test_a_pooling_that_is_no_plain_average_stays_behind_the_convolution(pool):
    net = randomised(Net({"conv": nn.Conv2d(3, 4, 1), "pool": pool, "head": classifier(4, 2)}))
    after = pool_before_convolution(copy.deepcopy(net))
    assert repr(after) == repr(net)
    assert_same_logits(net, after, images(size=33))


@pytest.mark.parametrize(
    ("name", "share"),  # of the multiply-accumulates that stay
    [("resnet50", 0.9026), ("preact_resnet50", 0.9026), ("resnet50.v1_5", 1), ("se_resnet50", 1), ("resnet18", 1)],
)
def test_strides_move_to_where_the_pixels_are_first_thrown_away(name, share):
    skeleton = spec(name).skeleton().eval()
    before = cost(skeleton).macs
    assert cost(stride_early(skeleton)).macs / before == pytest.approx(share, abs=1e-4)


def unit(stride=1, skip=None, **extra):
    return Residual(seq(conv1=conv_bn_act(8, 8, stride=stride), conv2=conv_bn_act(8, 8, 3), **extra), skip)


@pytest.mark.parametrize("size", [31, 32])
@pytest.mark.parametrize("extra", [{}, {"conv3": conv_bn(8, 8)}], ids=["3x3", "1x1"])
def test_a_stride_moves_through_an_addition(extra, size):
    parts = {"a": unit(**extra), "act": nn.ReLU(), "b": unit(2, ZeroPad(8, 8, 2)), "head": classifier(8, 2)}
    net = randomised(Net({"stem": conv_bn_act(3, 8, 3), **parts}))
    after = stride_early(copy.deepcopy(net))
    assert [m.kernel_size for m in after.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)] == [(3, 3)]
    assert_same_logits(net, after, images(size=size))


def test_a_stride_moves_through_1x1_convolutions_to_the_last_that_looks_around():
    chain = seq(a=conv_bn_act(3, 8, 3), b=conv_bn_act(8, 8, 5), c=conv_bn_act(8, 8), d=conv_bn_act(8, 8, stride=2))
    net = randomised(Net({"chain": chain, "head": classifier(8, 2)}))
    after = stride_early(copy.deepcopy(net))
    assert [m.stride for m in after.modules() if isinstance(m, nn.Conv2d)] == [(1, 1), (2, 2), (1, 1), (1, 1)]
    assert_same_logits(net, after, images(size=33))


@pytest.mark.parametrize(
    ("before", "behind", "aux"),
    [
        (unit(), unit(2, conv_bn(8, 8, 3, stride=2)), {}),  # the shortcut looks at every pixel
        (unit(se=SE(2)(8)), unit(2, ZeroPad(8, 8, 2)), {}),  # the gate's mean does
        (unit(), unit(2, ZeroPad(8, 8, 2)), {"a": classifier(8, 2)}),  # the auxiliary head does
    ],
)
def test_a_stride_stays_where_another_reads_what_it_skips(before, behind, aux):
    parts = {"stem": conv_bn_act(3, 8, 3), "a": before, "b": behind, "head": classifier(8, 2)}
    net = randomised(Net(parts, aux))
    after = stride_early(copy.deepcopy(net))
    assert repr(after) == repr(net)


@pytest.mark.parametrize(("groups", "left"), [(1, 0), (3, 1)])
def test_a_shuffle_is_absorbed_by_a_convolution_without_groups(groups, left):
    body = seq(conv=conv_bn_act(6, 12, groups=groups), shuffle=Shuffle(3), wise=conv_bn(12, 12, 3, groups=12))
    net = randomised(Net({"stem": conv_bn_act(3, 6, 3), "body": body, "head": classifier(12, 2)}))
    after = absorb_shuffle(fold_batch_norm(copy.deepcopy(net)))
    assert sum(isinstance(m, Shuffle) for m in after.modules()) == left
    assert_same_logits(net, after, images())
    gathered = gather_shuffle(after)
    assert not any(isinstance(m, Shuffle) for m in gathered.modules())
    assert_same_logits(net, gathered, images())


def test_a_shuffle_is_exported_as_runtimes_know_it_whatever_the_layout():
    x = torch.randn(2, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    program = torch.export.export(Shuffle(3), (x,))
    called = [node.target.__name__ for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["view.default", "transpose.int", "reshape.default"]
    assert torch.equal(program.module()(x), Shuffle(3)(x))


@pytest.mark.parametrize(("act", "activated"), [(nn.ReLU(), 1), (nn.Identity(), 2)], ids=["positive", "signed"])
def test_an_activation_moves_into_the_branches_that_may_be_negative(act, activated):
    mix = Concat(skip=nn.AvgPool2d(3, 2, 1), body=conv_bn(8, 8, 3, stride=2))
    unit = seq(mix=mix, act=nn.ReLU())
    parts = {"stem": conv_bn(3, 8, 3), "act": act, "pool": nn.MaxPool2d(2), "unit": unit, "head": classifier(16, 2)}
    net = randomised(Net(parts))
    after = activate_branches(copy.deepcopy(net))
    assert not hasattr(after.unit, "act")
    assert sum(isinstance(m, nn.ReLU) for m in after.unit.modules()) == activated
    assert_same_logits(net, after, images())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scales", [[0.5, 2.0, 1.0, 3.0], [0.5, -2.0, 0.0, 1e-320]], ids=["positive", "any"])
def test_a_norm_before_a_relu_becomes_a_clamp(scales, bias):
    norm = lambda: seq(norm=nn.BatchNorm2d(4), act=nn.ReLU())  # noqa: E731
    parts = {
        "one": seq(**dict(norm().named_children()), conv=nn.Conv2d(4, 4, 1, bias=bias)),
        "three": seq(**dict(norm().named_children()), conv=nn.Conv2d(4, 4, 3, bias=bias)),
        "padded": seq(**dict(norm().named_children()), conv=nn.Conv2d(4, 4, 3, padding=1, bias=bias)),
        "final": norm(),
        "head": classifier(4, 2),
    }
    net = randomised(Net(parts))
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data = torch.tensor(scales, dtype=torch.float64)
    after = clamp_before_convolution(copy.deepcopy(net))
    clamped = [name for name in parts if any(isinstance(m, Clamp) for m in after.get_submodule(name).modules())]
    assert clamped == ["one", "three", "final"]
    assert_same_logits(net, after, images(4))


def test_a_dense_block_writes_into_one_tensor():
    net = built("densenet_bc100_k12")
    after = preallocate(clamp_before_convolution(copy.deepcopy(net)))
    assert [path for path, m in after.named_modules() if isinstance(m, DenseBlock)] == ["block1", "block2", "block3"]
    assert not any(isinstance(m, Concat) for m in after.modules())
    assert_same_logits(net, after, images())
    x = images(24)
    before = x.clone()
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad():
            maps = after.block1(x.contiguous(memory_format=layout))
        assert torch.equal(maps[:, :24], before)
        assert maps.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)
    costs = cost(net, 32), cost(after, 32)
    assert costs[0].macs == costs[1].macs
    assert all((a.shape, a.rf) == (b.shape, b.rf) for a, b in zip(*(c.parts.values() for c in costs), strict=True))


@pytest.mark.parametrize("last", [nn.AvgPool2d(3, 1, 1), conv_bn(8, 8)], ids=["pool", "conv"])
def test_a_dense_block_begins_nowhere_else(last):
    layer = lambda old, c: Concat(x=old, new=bn_act_conv(c, 4))  # noqa: E731
    other = layer(last, 8) if isinstance(last, nn.AvgPool2d) else last
    net = Net({"stem": conv_bn(3, 4), "mixed": seq(a=layer(nn.Identity(), 4), b=other), "head": classifier(8, 2)})
    net = clamp_before_convolution(net.eval())
    assert repr(preallocate(copy.deepcopy(net))) == repr(net)


@pytest.mark.parametrize("name", ["densenet40_k12", "shufflenet.g3.cifar", "googlenet.cifar"])
def test_other_concatenations_stay(name):
    net = clamp_before_convolution(built(name))
    assert repr(preallocate(copy.deepcopy(net))) == repr(net)


@pytest.mark.parametrize("name", ["shufflenet.g3.x0_25", "se_shufflenet.g3"])
def test_pooled_channels_fill_blocks_of_16(name):
    net = built(name)
    after = fill_block(fold_batch_norm(copy.deepcopy(net)))
    assert net.stem.conv.out_channels in (12, 24)
    assert after.stem.conv.out_channels in (16, 32)
    assert_same_logits(net, after, images(size=64))
    parts = zip(cost(net, 64).parts.items(), cost(after, 64).parts.values(), strict=True)
    assert [part for (part, a), b in parts if a.shape != b.shape] == ["stem", "pool"]


def test_the_last_layer_becomes_a_convolution():
    net = built("shufflenet.g3.cifar")
    after = convolve_head(copy.deepcopy(net))
    assert not any(isinstance(m, nn.Linear) for m in after.modules())
    assert_same_logits(net, after, images())
    alexnet = built("alexnet.cifar")
    assert repr(convolve_head(copy.deepcopy(alexnet))) == repr(alexnet)  # its map before the linear layers is 4x4
