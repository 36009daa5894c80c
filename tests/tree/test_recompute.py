"""Recomputation changes memory and time, and nothing else."""

import copy
import pickle

import pytest
import torch
from torch import nn

from convatlas.errors import ConfigError
from convatlas.tree import Net, classifier, conv_bn_act, cost, draw, features, freeze, recompute, seq
from convatlas.zoo import create

CASES = [
    ("densenet_bc100_k12.dropout", "block*"),
    ("densenet40_k12.dropout", "*"),
    ("resnet20", "stage*.*"),
    ("resnet20", "stage*"),
]


def pair(name, where):
    """The same network twice, the second one recomputed."""
    torch.manual_seed(0)
    plain = create(name, classes=10)
    return plain, recompute(copy.deepcopy(plain), where)


def train(net, steps):
    """SGD with momentum on random images.  Returns losses, last gradients, and where the random numbers stand."""
    torch.manual_seed(1)
    losses = []
    optimizer = torch.optim.SGD(net.train().parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(torch.randn(4, 3, 32, 32)), torch.randint(0, 10, (4,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses), {name: p.grad for name, p in net.named_parameters()}, torch.get_rng_state()


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize(("name", "where"), CASES)
def test_training_is_the_same_to_the_bit(name, where):
    plain, recomputed = pair(name, where)
    losses, gradients, random = train(plain, 3)
    again, other_gradients, other_random = train(recomputed, 3)
    assert torch.equal(losses, again)
    assert_same(gradients, other_gradients)
    assert_same(plain.state_dict(), recomputed.state_dict())  # weights, running statistics, num_batches_tracked
    assert torch.equal(random, other_random)
    counts = {int(b) for key, b in recomputed.state_dict().items() if key.endswith("num_batches_tracked")}
    assert counts == {3}


def test_two_backward_passes_and_lower_precision_are_the_same_to_the_bit():
    plain, recomputed = pair("densenet40_k12.dropout", "block*")
    x = torch.randn(2, 3, 32, 32)
    for net in (plain, recomputed):
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16):
            total = net.train()(x).float().sum()
        total.backward(retain_graph=True)
        total.backward()
    assert_same(*({name: p.grad for name, p in net.named_parameters()} for net in (plain, recomputed)))
    assert_same(plain.state_dict(), recomputed.state_dict())


def test_frozen_batch_norm_inside_stands_still():
    plain, recomputed = pair("resnet20", "stage2")
    before = copy.deepcopy(recomputed.state_dict())
    for net in (plain, recomputed):
        train(freeze(net, "stage2.0"), 1)
    assert_same(plain.state_dict(), recomputed.state_dict())
    after = recomputed.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before if key.startswith("stage2.0"))
    assert not torch.equal(after["stage2.1.res.body.conv1.norm.running_mean"],
                           before["stage2.1.res.body.conv1.norm.running_mean"])  # fmt: skip


def test_nested_recomputation_counts_once():
    plain, recomputed = pair("resnet20", "stage*")
    train(plain, 1)
    train(recompute(recomputed, "stage*.*"), 1)
    assert_same(plain.state_dict(), recomputed.state_dict())


@pytest.mark.parametrize(
    ("name", "where", "size", "ratio"),
    [
        ("densenet_bc100_k12", "block*", 32, 7.9),
        ("densenet_bc100_k12", "*", 32, 13.4),
        ("densenet121", "block*", 224, 4.6),
        ("resnet20", "stage*.*", 32, 3.2),
    ],
)
def test_memory_that_is_saved(name, where, size, ratio):
    """The ratios that the documentation states; that `saved` is what autograd keeps is tested in test_cost.py."""
    plain, recomputed = pair(name, where)
    assert round(cost(plain, size).saved / cost(recomputed, size).saved, 1) == ratio


def test_a_dense_block_keeps_each_map_once():
    _, net = pair("densenet_bc100_k12", "block1")
    rows = {row.path: row.saved for row in cost(net, 32).rows if row.path.startswith("block1")}
    kept = [saved for saved in rows.values() if saved]
    assert kept == [4 * 24 * 32 * 32] + 15 * [4 * 12 * 32 * 32]  # the stem's maps, and those of all layers but the last


def test_nothing_else_changes():
    plain, recomputed = pair("densenet40_k12", "block2")
    a, b = cost(plain, 32), cost(recomputed, 32)
    assert [(r.path, r.kind, r.shape, r.params, r.macs, r.live, r.rf) for r in a.rows] == [
        (r.path, r.kind, r.shape, r.params, r.macs, r.live, r.rf) for r in b.rows
    ]
    assert draw(plain, size=32) == draw(recomputed, size=32)
    assert draw(create("resnet20"), size=32) == draw(recompute(create("resnet20"), "stage1.1"), size=32)


@pytest.mark.parametrize("mode", [True, False])
def test_features_by_name(mode):
    plain, recomputed = pair("densenet40_k12", "block*")
    names, x = ["block1.3", "block1.4.x", "block1.5.new.conv", "block2"], torch.randn(2, 3, 32, 32)
    a, b = (features(net.train(mode), names)(x) for net in (plain, recomputed))
    assert_same(a, b)


@torch.no_grad()
def test_eval_exports_and_compiles():
    plain, recomputed = pair("densenet40_k12.dropout", "block*")
    x = torch.randn(2, 3, 32, 32)
    expected = plain.eval()(x)
    assert torch.equal(recomputed.eval()(x), expected)
    with torch.enable_grad():
        program = torch.export.export(recomputed, (x,))
    assert torch.equal(program.module()(x), expected)
    compiled = torch.compile(recomputed, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), expected, atol=1e-5)


def test_it_survives_pickle():
    _, net = pair("resnet20", "stage*.*")
    again = pickle.loads(pickle.dumps(net))
    assert cost(again, 32).saved == cost(net, 32).saved


def test_a_place_that_cannot_be_recomputed_is_refused():
    net = create("resnet20")
    with pytest.raises(ConfigError, match=r"no module .* 'layer1'.*stage1"):
        recompute(net, "layer1")
    with pytest.raises(ConfigError, match=r"'stage1.0.res' names no Sequential but Residual"):
        recompute(net, "stage1.0.res")
    net = Net({"stem": conv_bn_act(3, 4, 3), "more": seq(act=nn.ReLU(inplace=True)), "head": classifier(4, 2)})
    with pytest.raises(ConfigError, match="'more' overwrites its input"):
        recompute(net, "more")
