"""ShuffleNet as the paper's tables and figures describe it."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convatlas.papers.built import built
from convatlas.tree import SE, Concat, Gate, Residual, Shuffle
from convatlas.zoo import create, list_networks, spec

STAGE2 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # Table 1
SCALES = {"": 1, ".x0_25": 0.25, ".x0_5": 0.5, ".x1_5": 1.5, ".x2": 2}
STEM = {0.25: 12, 0.5: 12, 1: 24, 1.5: 24, 2: 48}
ROUNDED = {  # the bottlenecks of the stages whose quarter the groups do not divide
    ("2", ".x0_25"): (14, 26, 50),
    ("2", ".x0_5"): (26, 50, 100),
    ("2", ".x1_5"): (76, 150, 300),
    ("4", ".x0_25"): (20, 36, 68),
    ("4", ".x0_5"): (36, 68, 136),
    ("4", ".x1_5"): (104, 204, 408),
}


def convs(net, path):
    layers = [m for m in net.get_submodule(path).modules() if isinstance(m, nn.Conv2d)]
    return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.groups) for m in layers]


@pytest.mark.parametrize(("groups", "scale"), list(product(STAGE2, SCALES)))
def test_every_cell_has_the_papers_widths_and_only_divisible_groups(groups, scale):
    net, s = built(spec(f"shufflenet.g{groups}{scale}")), SCALES[scale]
    width = STAGE2[groups] * s
    maps = {part: out.shape for part, out in net.cost.parts.items()}
    stem = 16 if groups == 8 and s < 1 else STEM[s]
    assert maps["stem"] == (stem, 112, 112)
    assert maps["pool"] == (stem, 56, 56)
    assert [maps[f"stage{i}"] for i in (2, 3, 4)] == [(width, 28, 28), (2 * width, 14, 14), (4 * width, 7, 7)]
    inner = tuple(net.cost.outputs[f"stage{i}.0.mix.body.conv1"].c for i in (2, 3, 4))
    assert inner == ROUNDED.get((str(groups), scale), (width / 4, width / 2, width))
    grouped = {m.groups for m in net.net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)}
    assert grouped == {1, groups}


def test_the_grid_is_complete():
    assert {f"shufflenet.g{g}{s}" for g, s in product(STAGE2, SCALES)} <= set(list_networks())


def test_units_of_both_strides():
    net = spec("shufflenet.g3").skeleton()
    assert convs(net, "stage2.0") == [(24, 60, 1, 1, 1), (60, 60, 3, 2, 60), (60, 216, 1, 1, 3)]  # the very first
    assert convs(net, "stage2.1") == [(240, 60, 1, 1, 3), (60, 60, 3, 1, 60), (60, 240, 1, 1, 3)]
    assert convs(net, "stage3.0") == [(240, 120, 1, 1, 3), (120, 120, 3, 2, 120), (120, 240, 1, 1, 3)]
    for unit, mixing in (("stage3.0.mix", Concat), ("stage3.1.res", Residual)):
        leaves = [type(m).__name__ for m in net.get_submodule(unit).body.modules() if not list(m.children())]
        assert isinstance(net.get_submodule(unit), mixing)
        assert leaves == ["Conv2d", "BatchNorm2d", "ReLU", "Shuffle", "Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d"]


def test_only_the_very_first_pointwise_convolution_is_whole():
    for name in ("shufflenet.g3", "shufflenet.g8.x0_5", "shufflenet.g3.cifar"):
        pointwise = {p: m for p, m in spec(name).skeleton().named_modules()
                     if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)}  # fmt: skip
        assert [p for p, m in pointwise.items() if m.groups == 1] == ["stage2.0.mix.body.conv1.conv"]


@torch.no_grad()
def test_a_unit_of_stride_2_joins_the_pooled_input_and_the_branch_and_then_rectifies():
    torch.manual_seed(0)
    unit, x = create("shufflenet.g3").stage3[0].eval(), torch.randn(2, 240, 14, 14)
    pooled = F.avg_pool2d(x, 3, stride=2, padding=1)
    assert torch.equal(unit(x), torch.relu(torch.cat([pooled, unit.mix.body(x)], 1)))
    assert (pooled < 0).any()


@pytest.mark.parametrize(("name", "seen"), [("shufflenet.g3", 3), ("shufflenet.g3.noshuffle", 1)])
def test_without_shuffle_a_group_sees_only_itself(name, seen):
    torch.manual_seed(0)
    unit, x = create(name).stage3[1].eval(), torch.randn(1, 480, 14, 14, requires_grad=True)
    unit.res.body(x)[:, :160].sum().backward()  # the first of three groups
    assert sum(bool(group.abs().sum() > 0) for group in x.grad.chunk(3, dim=1)) == seen


@torch.no_grad()
def test_shuffle_reshapes_transposes_and_flattens():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert Shuffle(3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]  # groups (0 1) (2 3) (4 5)


def test_where_the_shuffle_stands_nothing_else_differs():
    for name in list_networks("*.noshuffle"):
        without, whole = spec(name).skeleton(), spec(name.removesuffix(".noshuffle")).skeleton()
        assert {k: v.shape for k, v in without.state_dict().items()} == {
            k: v.shape for k, v in whole.state_dict().items()
        }
        assert sum(isinstance(m, Shuffle) for m in whole.modules()) == 16
        assert not any(isinstance(m, Shuffle) for m in without.modules())
    assert not any(isinstance(m, Shuffle) for m in spec("shufflenet.g1").skeleton().modules())


def test_small_images_end_in_a_map_of_4x4():
    maps = built(spec("shufflenet.g3.cifar")).cost.parts
    assert [out.shape for out in maps.values()][:-1] == [(24, 32, 32), (240, 16, 16), (480, 8, 8), (960, 4, 4)]


def test_squeeze_and_excitation_ends_every_branch_before_it_joins():
    net = built(spec("shufflenet.g3", se=SE(16, bias=False)))
    gates = {p for p, m in net.net.named_modules() if isinstance(m, Gate)}
    assert gates == {
        f"stage{i}.{j}.{'res' if j else 'mix'}.body.se" for i, n in ((2, 4), (3, 8), (4, 4)) for j in range(n)
    }
    assert net.cost.params == 2_476_144  # SENet's Table 3 prints 2.4M


def test_weights_begin_as_hes():
    torch.manual_seed(0)
    net = create("shufflenet.g3.x2")
    for path in ("stage4.1.res.body.conv1.conv", "stage4.1.res.body.conv2.conv", "stage4.1.res.body.conv3.conv"):
        conv = net.get_submodule(path)
        deviation = (2 / (conv.kernel_size[0] ** 2 * conv.out_channels)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(deviation, rel=0.05)
