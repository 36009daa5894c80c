"""Properties that every registered network has."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from convatlas.errors import ConfigError
from convatlas.tree import cost, fold_batch_norm
from convatlas.zoo import Arch, create, list_networks, spec
from convatlas.zoo.spec import REGISTRY, register

# The whole registry on the meta device; for real, one network of every kind.
REAL = ["resnet18", "resnet34.c", "resnet50", "resnet50.v1_5", "plain18", "resnet20", "resnet20.b", "plain20",
        "resnet110", "vgg11", "vgg11_lrn", "vgg16c_bn"]  # fmt: skip


def small(name, **overrides):
    """The network at a size that is quick to run."""
    return create(name, classes=10, **overrides), min(spec(name).size, 64)


@pytest.mark.parametrize("name", list_networks())
def test_builds_on_meta_and_describes_itself(name):
    arch = spec(name)
    with torch.device("meta"):
        net = arch.build()
        assert all(p.is_meta for p in net.parameters())
        for size in (arch.size, arch.size + 32, arch.size * 2):
            assert net(torch.empty(2, 3, size, size)).shape == (2, arch.classes)
            cost(net, size)
    assert arch.use


@pytest.mark.parametrize("name", list_networks())
def test_spec_goes_to_json_and_back(name):
    assert Arch.from_dict(json.loads(json.dumps(spec(name).to_dict()))) == spec(name)


@pytest.mark.parametrize("name", list_networks())
def test_channels_and_classes_can_be_chosen(name):
    with torch.device("meta"):
        net = create(name, in_channels=1, classes=7)
        assert net(torch.empty(2, 1, 224, 224)).shape == (2, 7)


@pytest.mark.parametrize("family", {type(arch): None for arch in REGISTRY.values()})
def test_every_field_of_a_family_is_needed_by_two_networks(family):
    ours = [arch for arch in REGISTRY.values() if type(arch) is family]
    common = {f.name for f in dataclasses.fields(Arch)}
    for field in dataclasses.fields(family):
        if field.name not in common:
            assert len({getattr(arch, field.name) for arch in ours}) > 1, (
                f"{family.__name__}.{field.name} never differs"
            )


def test_no_two_networks_are_the_same():
    values = [dataclasses.replace(arch, name="", use="") for arch in REGISTRY.values()]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", REAL)
def test_every_parameter_gets_a_finite_gradient(name):
    torch.manual_seed(0)
    net, size = small(name)
    loss = nn.functional.cross_entropy(net.train()(torch.randn(2, 3, size, size)), torch.tensor([0, 1]))
    loss.backward()
    for path, p in net.named_parameters():
        assert p.grad is not None, path
        assert p.grad.isfinite().all(), path
        assert p.grad.abs().sum() > 0 or path.endswith("bias"), path


@torch.no_grad()
@pytest.mark.parametrize("name", REAL)
def test_eval_is_deterministic_takes_one_image_and_folds(name):
    torch.manual_seed(0)
    net, size = small(name)
    net = net.double()  # in float32 deep networks differ by rounding alone
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    net.train()(torch.randn(8, 3, size, size).double())  # so that the running statistics are those of the data
    net.eval()
    x = torch.randn(1, 3, size, size).double()
    before = net(x)
    assert torch.equal(net(x), before)
    assert before.shape == (1, 10)
    assert (fold_batch_norm(net)(x) - before).abs().max() <= 1e-9


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet20", "resnet50", "vgg11_lrn", "plain20"])
def test_exports_with_a_dynamic_batch(name):
    torch.manual_seed(0)
    net, size = small(name)
    net.eval()
    batch = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(net, (torch.randn(2, 3, size, size),), dynamic_shapes=batch)
    x = torch.randn(3, 3, size, size)
    assert torch.allclose(program.module()(x), net(x), atol=1e-5)


@torch.no_grad()
def test_compiles():
    torch.manual_seed(0)
    net, size = small("resnet20")
    x = torch.randn(2, 3, size, size)
    compiled = torch.compile(net.eval(), fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), net(x), atol=1e-5)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"called 'resnet51'. Remedy: did you mean resnet5[06]"):
        create("resnet51")
    with pytest.raises(ConfigError, match="see `convatlas list`"):
        create("qqqqqq")


def test_an_unknown_field_is_refused():
    with pytest.raises(ConfigError, match=r"resnet18 has no field 'num_classes'. Remedy: its fields are .*classes"):
        create("resnet18", num_classes=10)


def test_a_small_image_on_a_large_stem_warns_and_names_the_right_networks():
    with pytest.warns(UserWarning, match=r"1x1 map before its head; networks made for small images: resnet20"):
        create("resnet18", size=32)
    create("resnet18", size=64)
    create("resnet20", size=16)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="registered already"):
        register(spec("resnet18"))


def test_a_spec_of_another_version_is_refused():
    record = spec("resnet18").to_dict()
    for bad in ({**record, "dilation": 2}, {**record, "family": "Nope"}, {"family": "ResNet"}):
        with pytest.raises(ConfigError, match="not the spec of a known network"):
            Arch.from_dict(bad)


def test_list_networks_takes_a_pattern():
    assert list_networks("vgg16*") == ["vgg16c", "vgg16", "vgg16c_bn", "vgg16_bn"]
    assert list_networks("nothing") == []
