"""The cost fold against what really happens: hooks for shapes, flop_counter for MACs, autograd for memory."""

import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from convatlas.tree import (
    SE,
    AvgPoolTo,
    Concat,
    Highway,
    Net,
    Residual,
    SamePad,
    Scale,
    Shuffle,
    bn_act_conv,
    classifier,
    conv,
    conv_bn_act,
    cost,
    insert_se,
    recompute,
    seq,
)
from convatlas.zoo import create


def inception_like():
    module = Concat(
        a=conv_bn_act(8, 4),
        b=seq(reduce=conv_bn_act(8, 4), conv=conv_bn_act(4, 6, (1, 3)), more=conv_bn_act(6, 6, (3, 1))),
        pool=seq(pool=nn.AvgPool2d(3, 1, 1), proj=conv_bn_act(8, 4)),
    )
    return Net(
        {
            "stem": conv_bn_act(3, 8, 7, stride=2),
            "pool": nn.MaxPool2d(3, 2, ceil_mode=True),
            "mix": seq(mix=module, shuffle=Shuffle(2), se=SE(2)(14)),
            "res": Residual(conv(14, 14, 3)),
            "head": seq(drop=nn.Dropout(0.5), cls=classifier(14, 10)),
        },
        {"mix": classifier(14, 10)},
    )


def every_other_leaf():
    gated = Highway(conv_bn_act(8, 8, 3, act=nn.ReLU6), seq(conv=conv(8, 8, bias=True), sigmoid=nn.Sigmoid()))
    return Net(
        {
            "stem": seq(pad=SamePad(3, 2), conv=conv_bn_act(3, 8, 3, stride=2, padding=0)),
            "pre": seq(conv=bn_act_conv(8, 8, (1, 3)), scale=Scale(0.5), act=nn.ReLU6()),
            "gated": gated,
            "se": seq(max=SE(4, squeeze="max", excite="tanh")(8), pixels=SE(4, squeeze=None, excite="relu")(8)),
            "pool": AvgPoolTo(5, 3, out=4),
            "head": seq(se=SE(None)(8), flatten=nn.Flatten(), fc=nn.Linear(8 * 16, 10)),
        }
    )


NETS = {
    "every other leaf": (every_other_leaf, 28),
    "every other leaf, other bins": (every_other_leaf, 31),
    "inception-like": (inception_like, 45),
    "resnet20": (lambda: create("resnet20"), 32),
    "resnet20.b": (lambda: create("resnet20.b"), 28),
    "plain20": (lambda: create("plain20"), 32),
    "resnet50.v1_5": (lambda: create("resnet50.v1_5"), 64),
    "resnet18+se": (lambda: insert_se(create("resnet18.c"), "stage*.*.res.body"), 64),
    "mobilenet_v2.keras": (lambda: create("mobilenet_v2.keras", classes=3), 64),
    "shufflenet.g3": (lambda: create("shufflenet.g3", classes=3), 64),
    "densenet40_k12.dropout": (lambda: create("densenet40_k12.dropout"), 32),
    "densenet_bc100_k12, blocks recomputed": (lambda: recompute(create("densenet_bc100_k12"), "block*"), 32),
    "densenet40_k12.dropout, all recomputed": (lambda: recompute(create("densenet40_k12.dropout"), "*"), 32),
    "resnet20, units recomputed": (lambda: recompute(create("resnet20"), "stage*.*"), 32),
    "resnet20, stages and units recomputed": (
        lambda: recompute(recompute(create("resnet20"), "stage*"), "stage*.*"),
        32,
    ),
    "vgg16c_bn": (lambda: create("vgg16c_bn", classes=3), 32),
    "vgg11_lrn": (lambda: create("vgg11_lrn", classes=3), 40),
}


@pytest.fixture(params=NETS)
def net_and_size(request):
    torch.manual_seed(0)
    build, size = NETS[request.param]
    return build(), size


def test_shapes_and_macs_are_those_of_a_real_run(net_and_size):
    net, size = net_and_size
    shapes = {}
    for path, m in net.named_modules():
        if not path.startswith("aux"):
            m.register_forward_hook(lambda m, args, out, path=path: shapes.update({path: tuple(out.shape[1:])}))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(torch.randn(2, 3, size, size))
    folded = cost(net, size)
    assert counter.get_total_flops() == 2 * 2 * folded.macs  # a MAC is two flops; two images
    assert shapes.keys() == folded.outputs.keys()
    for path, shape in shapes.items():
        assert torch.Size(shape).numel() == folded.outputs[path].elements, path
        if len(shape) == 3:
            assert shape == folded.outputs[path].shape, path


def test_params_are_all_parameters(net_and_size):
    net, size = net_and_size
    assert cost(net, size, aux=True).params == sum(p.numel() for p in net.parameters())
    assert cost(net, size).params == sum(p.numel() for n, p in net.named_parameters() if not n.startswith("aux."))


def test_saved_is_what_autograd_keeps(net_and_size):
    net, size = net_and_size
    batch = 2
    kept = {}
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}

    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in own and t.dim() > 1:  # 1-d: the batch statistics of BatchNorm
            kept[storage.data_ptr()] = (storage.nbytes(), t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        net.train()(torch.randn(batch, 3, size, size))
    assert sum(n for n, _ in kept.values()) == batch * cost(net, size).saved


class Watch(TorchDispatchMode):
    """The most bytes of storages born in this mode that were alive at once."""

    def __init__(self, net):
        super().__init__()
        self.now = self.peak = 0
        self.known = {t.untyped_storage()._cdata for t in (*net.parameters(), *net.buffers())}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in self.known and t.numel() > 0:
                self.add(t.untyped_storage())
        return out

    def add(self, storage):
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.drop, key, size)

    def drop(self, key, size):
        self.known.discard(key)
        self.now -= size


def test_live_is_the_peak_of_a_real_run():
    for name in (
        "inception-like",
        "every other leaf",
        "resnet20",
        "resnet20.b",
        "plain20",
        "resnet50.v1_5",
        "resnet18+se",
        "vgg16c_bn",
    ):
        torch.manual_seed(0)
        build, size = NETS[name]
        net, batch = build().eval(), 2
        watch = Watch(net)
        with watch, torch.no_grad():
            x = torch.zeros(batch, 3, size, size)
            net(x)
        assert watch.peak == batch * cost(net, size).live, name


@pytest.mark.parametrize("name", ["resnet20", "plain20", "vgg11_bn", "resnet18.b"])
def test_receptive_field_is_that_of_the_gradient(name):
    """A position of the last map depends on exactly the pixels that its receptive field says, per axis."""
    net = create(name).double().eval()
    for path, m in list(net.named_modules()):  # positive weights, averages for maxima: every path contributes
        if isinstance(m, nn.Conv2d):
            nn.init.constant_(m.weight, 1 / m.weight[0].numel())
        if isinstance(m, nn.MaxPool2d):
            net.set_submodule(path, nn.AvgPool2d(m.kernel_size, m.stride, m.padding))
    folded = cost(net, 32)
    h, _ = folded.parts["stage1"].rf
    size = int(h) * 2 + 33
    x = torch.ones(1, 3, size, size, dtype=torch.double, requires_grad=True)
    y = x
    for part in net.parts:
        y = net.get_submodule(part)(y)
        if part == "stage1":
            break
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == h


def test_ceil_mode_follows_torch():
    for n in range(3, 40):
        for k, s, p in [(3, 2, 0), (3, 2, 1), (2, 2, 0), (5, 3, 0), (2, 3, 1)]:
            pool = nn.MaxPool2d(k, s, p, ceil_mode=True)
            net = seq(pool=pool)
            assert cost(net, n).outputs["pool"].h == pool(torch.zeros(1, 3, n, n)).shape[2], (n, k, s, p)


def test_a_layer_used_twice_runs_twice_and_is_stored_once():
    shared = conv(3, 3, 3)
    for net in (seq(a=shared, b=shared), Concat(a=shared, b=shared)):
        folded = cost(net, 8)
        assert (folded.macs, folded.params) == (2 * 81 * 64, 81)
    assert Concat(a=shared, b=shared)(torch.ones(1, 3, 8, 8)).shape == (1, 6, 8, 8)


def test_unknown_leaf_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"no cost rule for Softplus at 'act'.*@convatlas.tree.rule"):
        cost(seq(act=nn.Softplus()), 8)


def test_shapes_that_do_not_meet_are_named():
    with pytest.raises(ValueError, match=r"res: body .* and skip .* do not add"):
        cost(seq(res=Residual(conv(3, 4), conv(3, 5))), 8)
    with pytest.raises(ValueError, match="takes 4 channels, but its input has 3"):
        cost(seq(conv=conv(4, 4)), 8)
    with pytest.raises(ValueError, match="branches' maps differ"):
        cost(seq(mix=Concat(a=conv(3, 4), b=conv(3, 4, stride=2))), 8)


def test_three_3x3_see_what_one_7x7_sees():
    c = 8
    three = cost(seq(a=conv(c, c, 3), b=conv(c, c, 3), c=conv(c, c, 3)), 32, c)
    one = cost(seq(a=conv(c, c, 7)), 32, c)
    assert three.rows[-1].rf == one.rows[-1].rf == (7, 7)
    assert (three.params, one.params) == (27 * c * c, 49 * c * c)


def test_nothing_is_allocated_on_meta():
    with torch.device("meta"):
        net = create("vgg19")
    assert all(p.is_meta for p in net.parameters())
    assert cost(net, 224).params == 143_667_240
