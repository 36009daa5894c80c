"""Properties that every registered network has."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convatlas.data import Preprocess
from convatlas.errors import ConfigError
from convatlas.papers.built import built
from convatlas.tree import cost
from convatlas.weights import Bundle
from convatlas.zoo import Arch, create, list_networks, spec
from convatlas.zoo.spec import REGISTRY, register

from forms import but_the_deep, every_form
from golden import quick_size

every_network = pytest.mark.parametrize("name", list_networks())


def image(arch, batch, size, device="meta"):
    return torch.randn(batch, arch.in_channels, size, size, device=device)


def different(shape, offset):
    """Values that differ within a tensor, and between tensors of one shape."""
    return torch.arange(shape.numel(), dtype=torch.float32).remainder_(1009).add_(offset).reshape(shape)


@every_form
def test_builds_on_meta_and_takes_other_sizes(name):
    arch = spec(name)
    net = arch.skeleton()
    assert all(p.is_meta for p in net.parameters())
    for size in (arch.size, arch.size + 32, arch.size * 2):
        logits, aux = net(image(arch, 2, size), aux=True)
        assert {out.shape for out in (logits, *aux.values())} == {(2, arch.classes)}
        cost(net, size, aux=True)
    assert arch.use


@but_the_deep
def test_the_fold_is_a_real_run(name):
    """Shapes as hooks see them, multiply-accumulates as torch's own counter counts them."""
    arch, net, folded = spec(name), spec(name).skeleton().eval(), built(spec(name)).cost
    shapes = {}
    for path, m in net.named_modules():
        m.register_forward_hook(lambda m, args, out, path=path: shapes.update({path: tuple(out.shape[1:])}))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image(arch, 1, arch.size))
    assert counter.get_total_flops() == 2 * folded.macs
    assert shapes.keys() == folded.outputs.keys()
    assert all(shape in (folded.outputs[p].shape, folded.outputs[p].shape[:1]) for p, shape in shapes.items())
    assert folded.params + sum(p.numel() for p in net.aux.parameters()) == sum(p.numel() for p in net.parameters())


@every_form
def test_every_parameter_gets_a_finite_gradient(name):
    """In one start of five: the few ReLUs of an SE gate may all begin off.  Networks without gates need one."""
    without = {path for path, _ in spec(name).skeleton().named_parameters() if not path.endswith("bias")}
    for seed in range(5 if spec(name).se else 1):
        torch.manual_seed(seed)
        net = create(name, classes=10).train()
        logits, aux = net(image(spec(name), 4, quick_size(name), "cpu"), aux=True)
        total = sum(nn.functional.cross_entropy(out, torch.arange(4)) for out in (logits, *aux.values()))
        total.backward()
        for path, p in net.named_parameters():
            assert p.grad is not None, path
            assert p.grad.isfinite().all(), path
        without -= {path for path, p in net.named_parameters() if p.grad.abs().sum() > 0}
        if not without:
            break
    assert not without


@torch.no_grad()
@every_form
def test_exports_with_a_dynamic_batch_and_without_auxiliary_heads(name):
    arch, net = spec(name), spec(name).skeleton().eval()
    batch = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(net, (image(arch, 2, arch.size),), dynamic_shapes=batch)
    used = {str(node.target) for node in program.graph.nodes if node.op == "get_attr" or node.users}
    assert program.module()(image(arch, 3, arch.size)).shape == (3, arch.classes)
    assert not any("aux" in name for name in used if name.startswith("p_")), used


@every_form
def test_weights_go_through_a_bundle(name, tmp_path):
    arch = spec(name, classes=2)
    layout = arch.skeleton().state_dict()
    weights = {key: different(t.shape, i).to(t.dtype) for i, (key, t) in enumerate(layout.items())}
    Bundle(arch, weights, ("a", "b"), Preprocess(size=arch.size, resize=arch.size)).save(tmp_path / "model.safetensors")
    again = Bundle.load(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    assert again.spec == arch
    assert again.weights.keys() == weights.keys()
    assert all(torch.equal(again.weights[key], weights[key]) for key in weights)


@every_network
def test_spec_goes_to_json_and_back(name):
    assert Arch.from_dict(json.loads(json.dumps(spec(name).to_dict()))) == spec(name)


@every_form
def test_channels_and_classes_can_be_chosen(name):
    net = spec(name, in_channels=1, classes=7).skeleton()
    assert net(torch.empty(2, 1, spec(name).size, spec(name).size, device="meta")).shape == (2, 7)


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


@torch.no_grad()
def test_an_exported_program_computes_the_same():
    torch.manual_seed(0)
    net, x = create("resnet20").eval(), torch.randn(3, 3, 32, 32)
    program = torch.export.export(net, (x[:2],), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    assert torch.allclose(program.module()(x), net(x), atol=1e-5)


@torch.no_grad()
def test_compiles():
    torch.manual_seed(0)
    net, x = create("resnet20"), torch.randn(2, 3, 32, 32)
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
    assert list_networks("vgg16*") == ["vgg16c", "vgg16", "vgg16c_bn", "vgg16_bn", "vgg16_bn.cifar"]
    assert list_networks("nothing") == []
