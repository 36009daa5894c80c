"""Pre-activation ResNet, and the orders and shortcuts that it is compared with, as their paper describes them."""

import itertools
from collections import Counter

import pytest
import torch
from torch import nn

from convatlas.errors import ConfigError
from convatlas.papers.built import built
from convatlas.tree import SE, Gate, Highway, ZeroPad
from convatlas.weights.convert import to_ours
from convatlas.weights.peers import PEERS
from convatlas.zoo import create, list_networks, spec
from convatlas.zoo.preact_resnet import ORDERS, SHORTCUTS

OURS = [name for name in list_networks() if spec(name).paper == "arXiv:1603.05027"]
WORDS = {"Conv2d": "conv", "BatchNorm2d": "bn", "ReLU": "relu", "Residual": "+", "ZeroPad": "pad"}


def sentence(arch, module, path="body"):
    """The leaves under `module` in the order in which they run, without the other path of a Residual."""
    other = {"body": "skip", "skip": "body"}[path]
    rows = [row for row in built(arch).cost.rows if f"{row.path}.".startswith(f"{module}.")]
    return " ".join(WORDS[row.kind] for row in rows if other not in row.path.split(".") and row.kind != "Identity")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@torch.no_grad()
def shaken(net):
    """The network in eval mode and double precision, its normalisations with statistics and factors of all sizes."""
    net = net.double().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor in (m.weight, m.bias, m.running_mean, m.running_var):
                tensor.copy_(0.5 + torch.rand_like(tensor))
    return net


@pytest.mark.parametrize(
    ("order", "basic"),
    [
        ("original", "conv bn relu conv bn + relu"),
        ("bn_after_addition", "conv bn relu conv + bn relu"),
        ("relu_before_addition", "conv bn relu conv bn relu +"),
        ("relu_only_preactivation", "relu conv bn relu conv bn +"),
        ("full_preactivation", "bn relu conv bn relu conv +"),
    ],
)
def test_the_five_orders_of_figure_4(order, basic):
    assert sentence(spec("preact_resnet110", order=order), "stage2.1") == basic
    with_one_more_layer = basic.replace("conv bn relu conv", "conv bn relu conv bn relu conv")
    assert sentence(spec("preact_resnet164", order=order), "stage2.1") == with_one_more_layer


@pytest.mark.parametrize("order", ORDERS)
def test_all_orders_consist_of_the_same_components(order):
    """Fig. 4: "only the orders are different"; a BN before the convolutions has the width of the unit's input."""
    original, other = (built(spec("preact_resnet110", order=o)) for o in ("original", order))
    assert Counter(row.kind for row in original.cost.rows) == Counter(row.kind for row in other.cost.rows)
    for column in ("weights", "biases", "norm", "macs"):
        assert original.cost.total(column) == other.cost.total(column)
    widths = [
        sorted(m.num_features for m in b.net.modules() if isinstance(m, nn.BatchNorm2d)) for b in (original, other)
    ]
    assert widths[0] == widths[1]


@torch.no_grad()
def test_the_original_order_is_resnet():
    theirs, ours = shaken(create("resnet110")), shaken(create("preact_resnet110", order="original"))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32).double()
    assert torch.equal(ours(x), theirs(x))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("preact_resnet110", True),
        ("preact_resnet110.one_layer", True),
        ("resnet110.relu_before_addition", True),
        ("resnet110.relu_only_preactivation", True),
        ("resnet110.bn_after_addition", False),
        ("resnet110.constant_scaling", False),
        ("resnet110.one_layer", False),
    ],
)
def test_nothing_but_additions_is_left_between_the_first_unit_and_the_last(name, clean):
    """Eq. 4, x_L = x_l + sum of F(x_i), over the whole network; where the width changes, x is padded with zeros."""
    net, added = shaken(create(name)), []
    for path, m in net.named_modules():
        if path.endswith("res.body"):
            m.register_forward_hook(lambda m, args, out: added.append(out))
        if path == "stage1":
            m.register_forward_pre_hook(lambda m, args: added.insert(0, args[0].clone()))
        if path == "stage3":
            m.register_forward_hook(lambda m, args, out: added.append(out.clone()))
    net(torch.randn(1, 3, 32, 32).double())
    x, *residuals, last = added
    for residual in residuals:
        if residual.shape != x.shape:
            x = ZeroPad(x.shape[1], residual.shape[1], stride=2)(x)
        x = residual + x
    assert torch.equal(x, last) == clean


@torch.no_grad()
def test_relu_before_addition_lets_the_signal_only_grow():
    """Sec. 4.1: F is non-negative there, so the signal is monotonically increasing; in no other order."""

    def grows(arch):
        net, maps = shaken(arch.build()), []
        for unit in net.get_submodule("stage1"):
            unit.register_forward_hook(lambda m, args, out: maps.append(out.clone()))
        net(torch.randn(1, 3, 32, 32).double())
        return all((after >= before).all() for before, after in itertools.pairwise(maps))

    assert [order for order in ORDERS if grows(spec("preact_resnet110", order=order))] == ["relu_before_addition"]


def test_the_first_and_the_last_unit():
    """Appendix: an activation between conv1 and the first split, and another after the last addition."""
    for name in ("preact_resnet110", "preact_resnet164", "preact_resnet1001"):
        assert sentence(spec(name), "stem") == "conv bn relu"
        assert sentence(spec(name), "stage1.0").startswith("conv bn relu conv")
        assert sentence(spec(name), "final") == "bn relu"
    assert sentence(spec("resnet164.relu_only_preactivation"), "final") == "relu"
    assert "final" not in built(spec("resnet164.bn_after_addition")).net.parts


def test_where_the_first_activation_of_large_images_is():
    for name, stem, unit in (
        ("preact_resnet50", "conv bn relu", "conv bn relu conv bn relu conv +"),
        ("preact_resnet50.timm", "conv", "bn relu conv bn relu conv bn relu conv +"),
        ("preact_resnet50.pytorchcv", "conv bn relu", "bn relu conv bn relu conv bn relu conv +"),
    ):
        assert (sentence(spec(name), "stem"), sentence(spec(name), "stage1.0")) == (stem, unit)


@pytest.mark.parametrize("name", ["preact_resnet164", "preact_resnet200"])
def test_projections_have_no_bn_and_read_the_pre_activated_input(name):
    net = built(spec(name)).net
    projecting = {path for path, _ in net.named_modules() if path.endswith("res.skip.conv")}
    stages = range(1, 1 + len(spec(name).depths))
    assert projecting == {f"stage{i}.0.res.skip.conv" for i in stages}
    for i in stages:
        assert sentence(spec(name), f"stage{i}.0.res", "skip") == "conv +"
        if i > 1:
            assert [child for child, _ in net.get_submodule(f"stage{i}.0").named_children()] == ["norm", "act", "res"]


def test_basic_units_pad_the_raw_input():
    for stage in (2, 3):
        assert sentence(spec("preact_resnet110"), f"stage{stage}.0", "skip") == "pad +"
    assert not [path for path, _ in built(spec("preact_resnet110")).net.named_modules() if "skip.conv" in path]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("preact_resnet200", "conv1"),
        ("preact_resnet1001", "conv1"),
        ("preact_resnet110", "conv1"),
        ("preact_resnet200.v1_5", "conv2"),
        ("preact_resnet50.timm", "conv2"),
        ("preact_resnet50.pytorchcv", "conv1"),
        ("preact_resnet164.pytorchcv", "conv2"),
    ],
)
def test_place_of_the_stride(name, layer):
    net = built(spec(name)).net
    strided = {path for path, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)}
    bodies = {path for path in strided if "body" in path}
    assert bodies == {f"stage{i}.0.res.body.{layer}.conv" for i in range(2, 1 + len(spec(name).depths))}


@pytest.mark.parametrize(
    ("name", "units", "channels"),
    [
        ("preact_resnet110", (18, 18, 18), (16, 32, 64)),
        ("preact_resnet110.one_layer", (36, 36, 36), (16, 32, 64)),
        ("preact_resnet164", (18, 18, 18), (64, 128, 256)),
        ("preact_resnet1001", (111, 111, 111), (64, 128, 256)),
        ("preact_resnet152", (3, 8, 36, 3), (256, 512, 1024, 2048)),
        ("preact_resnet200", (3, 24, 36, 3), (256, 512, 1024, 2048)),
    ],
)
def test_units_and_channels(name, units, channels):
    tree = built(spec(name))
    stages = [f"stage{i}" for i in range(1, 1 + len(units))]
    assert tuple(len(tree.net.get_submodule(stage)) for stage in stages) == units
    assert tuple(tree.cost.outputs[stage].c for stage in stages) == channels


@pytest.mark.parametrize("name", OURS)
def test_the_name_is_the_number_of_layers(name):
    depth = int(name.removeprefix("preact_").removeprefix("resnet").split(".")[0])
    assert len(built(spec(name)).weight_layers()) == depth


def table_1(shortcut, unit, x):
    """h(x) and F(x) of Table 1, computed from the parts of a built unit; the paper's g from the gate's own weights."""
    body, skip = unit.res.body, unit.res.skip
    cin, cout = x.shape[1], body.conv2.conv.out_channels
    identity = x if cin == cout else ZeroPad(cin, cout, stride=2)(x)
    f = body.conv2(body.conv1(x))
    match shortcut:
        case "constant_scaling":
            return 0.5 * identity, f
        case "frozen_gating":
            return 0.5 * identity, 0.5 * f
        case "exclusive_gating":
            g = torch.sigmoid(unit.res.gate.conv(x))
            return (1 - g) * identity, g * f
        case "shortcut_only_gating":
            gate = skip.gate.gate.conv
            g = torch.sigmoid(nn.functional.conv2d(x, -gate.weight, -gate.bias))
            return (1 - g if cin == cout else ZeroPad(cin, cout, stride=2)(1 - g)) * identity, f
        case "conv_shortcut":
            return skip.norm(skip.conv(x)), f
        case "dropout_shortcut":
            return identity, f
    raise AssertionError(shortcut)


@torch.no_grad()
@pytest.mark.parametrize("unit", ["stage1.0", "stage1.3", "stage2.0", "stage3.0"])
@pytest.mark.parametrize("shortcut", list(SHORTCUTS)[1:])
def test_the_shortcuts_of_table_1(shortcut, unit):
    net = shaken(create(f"resnet110.{shortcut}", gate_bias=-1.0))
    tree = built(spec(f"resnet110.{shortcut}"))
    x = torch.rand(2, *tree.cost.inputs[unit].shape, dtype=torch.double)
    h, f = table_1(shortcut, net.get_submodule(unit), x)
    assert (net.get_submodule(unit)(x) - (h + f).relu()).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("shortcut", "kind"),
    [("exclusive_gating", Highway), ("shortcut_only_gating", Gate), ("dropout_shortcut", nn.Dropout)],
)
def test_other_shortcuts_are_in_all_54_units(shortcut, kind):
    assert sum(isinstance(m, kind) for m in built(spec(f"resnet110.{shortcut}")).net.modules()) == 54


@torch.no_grad()
def test_the_dropout_shortcut_drops_half_of_it_in_training():
    skip = create("resnet110.dropout_shortcut").train().get_submodule("stage2.3.res.skip")
    kept = (skip(torch.ones(4, 32, 16, 16)) != 0).float().mean()
    assert abs(kept - 0.5) < 0.02


def test_gates_begin_with_a_bias_that_leaves_the_shortcut_open():
    """Table 1: b = -6, so that 1 - g(x) is 0.9975 of the shortcut; other values of the paper's search are a field."""
    for shortcut, sign, changes, b in (
        ("exclusive_gating", 1, {}, -6),
        ("exclusive_gating", 1, {"gate_bias": -7}, -7),
        ("shortcut_only_gating", -1, {}, -6),
        ("shortcut_only_gating", -1, {"gate_bias": 0}, 0),
    ):
        net = create(f"resnet110.{shortcut}", **changes)
        gates = [m for path, m in net.named_modules() if path.endswith("gate.conv")]
        assert len(gates) == 54
        assert torch.cat([m.bias for m in gates]).unique().tolist() == [sign * b]
        assert all(m.kernel_size == (1, 1) for m in gates)


@pytest.mark.parametrize("name", ["preact_resnet164", "resnet110.conv_shortcut", "resnet110.exclusive_gating"])
def test_weights_begin_as_hes_and_the_last_biases_at_0(name):
    net = create(name, classes=100)
    for path, m in net.named_modules():
        if isinstance(m, nn.Conv2d):
            area, n = m.kernel_size[0] * m.kernel_size[1], m.weight.numel()
            std = (2 / (area * m.out_channels)) ** 0.5
            assert abs(m.weight.std() / std - 1) < 5 / (2 * n) ** 0.5, path
            assert abs(m.weight.mean()) < 5 * std / n**0.5, path
    assert net.head.fc.bias.abs().max() == 0
    assert net.head.fc.weight.abs().max() <= net.head.fc.in_features**-0.5  # PyTorch's default, as Torch's


@pytest.mark.parametrize("name", ["preact_resnet110", "preact_resnet164", "resnet110.exclusive_gating"])
def test_squeeze_and_excitation_is_on_every_residual_and_on_no_shortcut(name):
    net = built(spec(name, se=SE(4))).net
    gated = {path for path, m in net.named_modules() if isinstance(m, Gate)}
    assert gated == {f"stage{i}.{j}.res.body.se" for i in (1, 2, 3) for j in range(18)}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("preact_resnet50.timm", "timm"),
        ("preact_resnet50.pytorchcv", "pytorchcv.model_provider"),
        ("preact_resnet164.pytorchcv", "pytorchcv.model_provider"),
    ],
)
def test_the_variants_for_others_weights_compute_what_others_do(name, library):
    module = pytest.importorskip(library)
    build = getattr(module, "create_model", None) or module.get_model
    peer = next(p for p in PEERS if p.library == library.split(".")[0] and p.name_of(spec(name)))
    theirs, ours = shaken(build(peer.name_of(spec(name)))), create(name).double().eval()
    ours.load_state_dict(to_ours(peer, spec(name), theirs.state_dict()))
    x = torch.randn(1, 3, spec(name).size, spec(name).size).double()
    expected = theirs(x)
    assert (ours(x) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_an_unknown_order_or_shortcut_is_refused():
    with pytest.raises(ConfigError, match=r"preact_resnet50 cannot have 'preact'. Remedy: choose one of original, .*"):
        spec("preact_resnet50", order="preact")
    with pytest.raises(ConfigError, match=r"resnet164 cannot have 'B'. Remedy: choose one of identity, constant_"):
        spec("resnet164", shortcut="B")
