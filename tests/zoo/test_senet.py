"""SE networks: the gate by hand, its places in a unit, what it costs, and SENet-154 against its description."""

import fnmatch

import pytest
import torch
from torch import Tensor, nn

from convatlas.papers.built import built
from convatlas.tree import SE, Gate, cost, insert_se
from convatlas.zoo import create, spec
from convatlas.zoo.resnet import ResNet

STAGES = ((3, 256), (4, 512), (6, 1024), (3, 2048))  # units and channels out of ResNet-50


def small(name: str) -> nn.Module:
    """The registered variant of SE-ResNet-50 with one narrow unit a stage, and statistics that are not trivial."""
    torch.manual_seed(0)
    net = create(name, width=16, depths=(1, 1, 1, 1), classes=10)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean, std=0.2)
            nn.init.uniform_(m.running_var, 0.5, 2)
    return net.eval()


def gated(x: Tensor, se: Gate) -> Tensor:
    """x scaled as in eq. (2) to (4), from the weights of `se`."""
    w1, w2 = se.gate.fc1.weight[:, :, 0, 0], se.gate.fc2.weight[:, :, 0, 0]
    z = x.mean((2, 3))
    return x * torch.sigmoid(torch.relu(z @ w1.T) @ w2.T)[:, :, None, None]


PLACES = {  # where a unit has its gate, and what it then computes of x from body b, skip s and gate g [Fig. 5]
    "se_resnet50": ("res.body.se", lambda b, s, g, x: torch.relu(g(b.conv3(b.conv2(b.conv1(x)))) + s(x))),
    "se_resnet50.pre": ("res.body.se", lambda b, s, g, x: torch.relu(b.conv3(b.conv2(b.conv1(g(x)))) + s(x))),
    "se_resnet50.post": ("se", lambda b, s, g, x: g(torch.relu(b.conv3(b.conv2(b.conv1(x))) + s(x)))),
    "se_resnet50.identity": ("res.skip.se", lambda b, s, g, x: torch.relu(b.conv3(b.conv2(b.conv1(x))) + g(s(x)))),
    "se_resnet50.3x3": ("res.body.conv2.se", lambda b, s, g, x: torch.relu(b.conv3(g(b.conv2(b.conv1(x)))) + s(x))),
}


@torch.no_grad()
@pytest.mark.parametrize("name", PLACES)
def test_a_unit_computes_what_its_drawing_shows(name):
    place, drawing = PLACES[name]
    unit, plain = small(name).stage2[0], small("resnet50").stage2[0]
    shared = {k.replace("layer.", ""): v for k, v in unit.state_dict().items() if ".gate." not in k}
    plain.load_state_dict(shared)
    x = torch.randn(2, 64, 8, 8)
    expected = drawing(plain.res.body, plain.res.skip, lambda y: gated(y, unit.get_submodule(place)), x)
    assert torch.allclose(unit(x.clone()), expected, atol=1e-6)
    assert not torch.allclose(plain(x.clone()), expected, atol=1e-2)


@torch.no_grad()
def test_on_an_identity_shortcut_the_gate_stands_alone():
    unit = create("se_resnet50.identity").stage1[1]
    assert [name for name, _ in unit.res.skip.named_children()] == ["se"]


@torch.no_grad()
@pytest.mark.parametrize("base", ["resnet20", "resnet20.b"])
def test_a_spec_with_se_is_the_plain_network_with_se_inserted(base):
    torch.manual_seed(0)
    se, x = SE(4, bias=False), torch.randn(2, 3, 32, 32)
    declared = create(base, se=se).eval()
    inserted = insert_se(create(base), ResNet.SE_AT, se).eval()
    assert list(declared.state_dict()) == list(inserted.state_dict())
    inserted.load_state_dict(declared.state_dict())
    assert torch.equal(declared(x), inserted(x))


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["se_resnet20", "se_mobilenet_v1", "se_shufflenet.g3", "se_densenet121", "se_googlenet"]
)
def test_every_gate_is_between_0_and_1_for_each_channel_of_each_image(name):
    torch.manual_seed(0)
    net, gates = create(name, classes=10), []
    for m in net.modules():
        if isinstance(m, Gate):
            m.gate.register_forward_hook(lambda m, args, out: gates.append((args[0].shape, out)))
    net(torch.randn(2, 3, 64, 64))
    assert gates
    for (n, c, _, _), gate in gates:
        assert gate.shape == (n, c, 1, 1)
        assert 0 < gate.min() < gate.max() < 1


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "pool", "last"),
    [
        ("se_resnet50.max", lambda x: x.amax((2, 3), keepdim=True), torch.sigmoid),
        ("se_resnet50.tanh", lambda x: x.mean((2, 3), keepdim=True), torch.tanh),
        ("se_resnet50.relu", lambda x: x.mean((2, 3), keepdim=True), torch.relu),
        ("se_resnet50.no_squeeze", lambda x: x, torch.sigmoid),
    ],
)
def test_other_squeezes_and_excitations(name, pool, last):
    torch.manual_seed(0)
    se, x = spec(name).se(32), torch.randn(2, 32, 5, 5)
    w1, w2 = se.gate.fc1.weight[:, :, 0, 0], se.gate.fc2.weight[:, :, 0, 0]
    hidden = torch.relu(torch.einsum("nchw,dc->ndhw", pool(x), w1))
    expected = x * last(torch.einsum("ndhw,cd->nchw", hidden, w2))
    assert torch.allclose(se(x), expected, atol=1e-5)
    assert not torch.allclose(SE(16)(32)(x), expected, atol=1e-2)


@pytest.mark.parametrize(("name", "r"), [("se_resnet50", 16), *((f"se_resnet50.r{r}", r) for r in (2, 4, 8, 32))])
def test_the_cost_is_that_of_eq_5(name, r):
    added = 2 * sum(n * c * c for n, c in STAGES)
    assert added % r == 0
    assert built(spec(name)).cost.params - built(spec("resnet50")).cost.params == added // r
    assert built(spec(name)).cost.macs - built(spec("resnet50")).cost.macs == added // r  # each weight once


def test_one_full_layer_costs_as_much_as_reduction_2():
    one, two = (built(spec(f"se_resnet50.{v}")).cost for v in ("single_fc", "r2"))
    assert (one.params, one.macs) == (two.params, two.macs)
    assert [m.gate.fc.weight.shape for m in spec("se_resnet50.single_fc").skeleton().modules() if isinstance(m, Gate)][
        -1
    ] == (2048, 2048, 1, 1)


@pytest.mark.parametrize(
    ("name", "where", "gates"),
    [
        ("se_resnet50", "stage*.*.res.body.se", 16),
        ("se_resnet50.stage2", "stage1.*.res.body.se", 3),
        ("se_resnet50.stage3", "stage2.*.res.body.se", 4),
        ("se_resnet50.stage4", "stage3.*.res.body.se", 6),
        ("se_resnet18", "stage*.*.res.body.se", 8),
        ("se_resnext101_32x4d", "stage*.*.res.body.se", 33),
        ("senet154", "stage*.*.res.body.se", 50),
        ("se_preact_resnet164", "stage*.*.res.body.se", 54),
        ("se_vgg16_bn", "stage*.conv*.se", 13),
        ("se_googlenet", "inception*.se", 9),
        ("se_bn_inception.608", "inception*.se", 10),
        ("se_inception_v3", "mixed*.se", 11),
        ("se_mobilenet_v1", "stage*.*.se", 13),
        ("se_mobilenet_v2", "stage*.*.body.se", 17),
        ("se_shufflenet.g3", "stage*.body.se", 16),
        ("se_densenet121", "block*.new.se", 58),
    ],
)
def test_gates_are_where_the_paper_has_them(name, where, gates):
    paths = [path for path, m in spec(name).skeleton().named_modules() if isinstance(m, Gate)]
    assert len(paths) == gates
    assert all(fnmatch.fnmatchcase(path, where) for path in paths)


@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet50", "se_resnext101_32x4d", "se_resnet20", "se_vgg16_bn"])
def test_the_paper_has_no_biases_in_the_gates(name):
    assert not [p for p, _ in spec(name).skeleton().named_parameters() if ".gate." in p and p.endswith("bias")]


@pytest.mark.parametrize("name", ["se_resnet50.bias", "se_resnext101_32x4d.bias", "senet154", "se_resnet18.b.bias"])
def test_the_released_models_have_biases_in_the_gates(name):
    net = spec(name).skeleton()
    assert all(
        m.gate.fc1.bias is not None and m.gate.fc2.bias is not None for m in net.modules() if isinstance(m, Gate)
    )


def test_16_channels_are_squeezed_into_4():
    net = spec("se_resnet110").skeleton()
    assert [net.get_submodule(f"stage{i}.0.res.body.se.gate.fc1").out_channels for i in (1, 2, 3)] == [4, 8, 16]


def test_gates_begin_as_he_with_biases_0():
    torch.manual_seed(0)
    gate = create("se_resnet50.bias").stage4[2].res.body.se.gate
    for fc, fan_out in ((gate.fc1, 128), (gate.fc2, 2048)):
        assert fc.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.01)
        assert fc.weight.mean().abs() < 1e-3
        assert fc.bias.abs().max() == 0


# ---- SENet-154


@pytest.fixture(scope="module")
def senet154():
    return built(spec("senet154"))


def test_senet154_has_154_layers_and_the_released_count(senet154):
    assert len(senet154.weight_layers()) == 154
    assert senet154.cost.params == 115_088_984
    assert [len(senet154.net.get_submodule(f"stage{i}")) for i in (1, 2, 3, 4)] == [3, 8, 36, 3]


def test_senet154_maps(senet154):
    shapes = {name: out.shape for name, out in senet154.cost.parts.items()}
    assert shapes["stem"] == (128, 112, 112)
    assert shapes["pool"] == (128, 56, 56)
    assert [shapes[f"stage{i}"] for i in (1, 2, 3, 4)] == [
        (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)
    ]  # fmt: skip


def test_senet154_stem_is_three_3x3(senet154):
    stem = [m for m in senet154.net.stem.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size, m.stride) for m in stem] == [
        (64, (3, 3), (2, 2)), (64, (3, 3), (1, 1)), (128, (3, 3), (1, 1))
    ]  # fmt: skip


@pytest.mark.parametrize(("stage", "width"), [(1, 256), (2, 512), (3, 1024), (4, 2048)])
def test_senet154_units_are_those_of_resnext_152_with_half_of_the_first_1x1(senet154, stage, width):
    resnext = spec("resnext50_32x4d", depths=(3, 8, 36, 3), cardinality=64).skeleton()
    for j, unit in enumerate(senet154.net.get_submodule(f"stage{stage}")):
        ours, theirs = unit.res.body, resnext.get_submodule(f"stage{stage}.{j}.res.body")
        assert ours.conv1.conv.out_channels * 2 == theirs.conv1.conv.out_channels == width
        assert ours.conv2.conv.groups == theirs.conv2.conv.groups == 64
        assert ours.conv2.conv.stride == theirs.conv2.conv.stride
        assert ours.conv2.conv.out_channels == theirs.conv2.conv.out_channels == width
        assert ours.conv3.conv.weight.shape == theirs.conv3.conv.weight.shape


def test_senet154_projects_with_3x3_where_it_strides(senet154):
    projections = {
        path: (m.kernel_size, m.stride)
        for path, m in senet154.net.named_modules()
        if isinstance(m, nn.Conv2d) and ".skip." in path
    }
    assert projections == {
        "stage1.0.res.skip.conv": ((1, 1), (1, 1)),
        "stage2.0.res.skip.conv": ((3, 3), (2, 2)),
        "stage3.0.res.skip.conv": ((3, 3), (2, 2)),
        "stage4.0.res.skip.conv": ((3, 3), (2, 2)),
    }


def test_senet154_drops_out_before_its_last_layer(senet154):
    assert [type(m) for m in senet154.net.head] == [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Dropout, nn.Linear]
    assert senet154.net.head.drop.p == 0.2


def test_senet154_pools_without_padding_at_every_size(senet154):
    for size in (224, 256, 320):
        parts = cost(senet154.net, size).parts
        assert (parts["stem"].h, parts["pool"].h) == (size // 2, size // 4)
    assert senet154.net.pool.padding == 0
