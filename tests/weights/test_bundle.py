"""A bundle comes back whole, and refuses to be what it is not."""

import json
from dataclasses import replace

import pytest
import torch

from convatlas.data import Preprocess
from convatlas.errors import WeightsError
from convatlas.weights import Bundle, read_tensors, write_tensors
from convatlas.zoo import spec

NETWORKS = [("resnet20", {}), ("resnet20.b", {"classes": 3, "in_channels": 1}), ("resnet18.b", {"classes": 7}),
            ("resnet50.v1_5", {"classes": 2}), ("plain20", {})]  # fmt: skip


@pytest.fixture
def bundle(make_bundle):
    return make_bundle("resnet20", classes=3)


@pytest.fixture
def path(bundle, tmp_path):
    return bundle.save(tmp_path / "model.safetensors")


def rewritten(path, **changes):
    """The file with other fields in its record, and the checksums right; a field that is None is left out."""
    tensors, record = read_tensors(path)
    record = {key: value for key, value in (record | changes).items() if value is not None}
    return write_tensors(path, tensors, record)


@torch.no_grad()
@pytest.mark.parametrize(("name", "overrides"), NETWORKS, ids=[name for name, _ in NETWORKS])
def test_everything_comes_back_and_the_logits_are_bit_equal(make_bundle, tmp_path, name, overrides):
    bundle = make_bundle(name, **overrides)
    if bundle.spec.in_channels == 1:
        bundle = replace(bundle, preprocess=Preprocess(size=32, resize=32, mean=(0.1,), std=(0.3,), channels=1))
    loaded = Bundle.load(bundle.save(tmp_path / "model.safetensors"))
    for field in ("spec", "classes", "preprocess", "metrics", "recipe", "source", "licence"):
        assert getattr(loaded, field) == getattr(bundle, field), field
    net = bundle.spec.build().eval()
    net.load_state_dict(bundle.weights)
    x = torch.randn(2, bundle.spec.in_channels, 64, 64)
    assert torch.equal(loaded.build()(x), net(x))


def test_building_leaves_the_random_numbers_alone_and_copies_the_weights(bundle):
    state = torch.get_rng_state()
    one, two = bundle.build(), bundle.build()
    assert torch.equal(torch.get_rng_state(), state)
    assert not one.training
    with torch.no_grad():
        one.head.fc.weight.zero_()
    assert two.head.fc.weight.any()
    assert bundle.weights["head.fc.weight"].any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("resnet32", r"does not hold resnet32: lacks 'stage1.3.res.body.conv1.conv.weight'; .*; and \d+ more"),
        ("resnet20.b", r"does not hold resnet20.b: lacks 'stage2.0.res.skip.conv.weight'"),
        ("plain20", r"does not hold plain20: has an unknown 'stage1.0.res.body"),
    ],
)
def test_the_spec_of_another_network_is_refused(bundle, path, wrong, message):
    wrong = spec(wrong, classes=3)
    with pytest.raises(WeightsError, match=rf"error\[C8\]: .*{message}"):
        replace(bundle, spec=wrong).save(path)
    with pytest.raises(WeightsError, match=rf"error\[C8\]: .*model.safetensors {message}"):
        Bundle.load(rewritten(path, spec=wrong.to_dict()))


def test_a_refused_save_leaves_the_old_file(bundle, path):
    old = path.read_bytes()
    with pytest.raises(WeightsError, match="C8"):
        replace(bundle, classes=()).save(path)
    assert path.read_bytes() == old


def test_another_number_of_classes_is_refused(bundle, path):
    for classes in (bundle.classes[:2], (*bundle.classes, "another")):
        with pytest.raises(WeightsError, match=rf"C8.*names {len(classes)} classes for 3 outputs"):
            Bundle.load(rewritten(path, classes=list(classes)))
    with pytest.raises(WeightsError, match=r"C8.*'head.fc.weight' is \(3, 64\), not \(4, 64\)"):
        Bundle.load(rewritten(path, spec=replace(bundle.spec, classes=4).to_dict()))


def test_preprocessing_for_other_channels_is_refused(bundle, path):
    grey = Preprocess(size=32, resize=32, mean=(0.5,), std=(0.5,), channels=1)
    with pytest.raises(WeightsError, match=r"C8.*takes 3 channels, not the 1 of its preprocessing"):
        Bundle.load(rewritten(path, preprocess=grey.to_dict()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["head.fc.bias", "stem.norm.running_var"])
def test_a_value_that_is_not_finite_is_refused_and_named(bundle, path, name, value):  # C9
    tensors, record = read_tensors(path)
    tensors[name].view(-1)[1] = value
    write_tensors(path, tensors, record)
    with pytest.raises(WeightsError, match=rf"error\[C9\]: .*tensor '{name}' holds NaN or infinity"):
        Bundle.load(path)
    loaded = Bundle.load(path, allow_nonfinite=True)
    assert not loaded.weights[name].isfinite().all()
    with pytest.raises(WeightsError, match="C9"):
        loaded.save(path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn], ids=str)
def test_weights_of_a_type_that_is_none_of_weights_are_refused(bundle, path, dtype):
    name = "head.fc.weight"
    with pytest.raises(WeightsError, match=rf"C8.*'{name}' holds {dtype}"):
        replace(bundle, weights=bundle.weights | {name: bundle.weights[name].to(dtype)}).save(path)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_kept_in_the_file_and_computes_in_float32(bundle, path, dtype):
    half = {k: t.to(dtype) if t.is_floating_point() else t for k, t in bundle.weights.items()}
    loaded = Bundle.load(replace(bundle, weights=half).save(path))
    assert loaded.weights["head.fc.weight"].dtype == dtype
    net = loaded.build()
    assert torch.equal(net.head.fc.weight, half["head.fc.weight"].float())
    assert net(torch.randn(1, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("field", ["spec", "classes", "preprocess", "metrics", "recipe", "source", "licence"])
def test_a_missing_field_is_named(path, field):
    with pytest.raises(WeightsError, match=rf"error\[X4\]: .*model.safetensors says nothing of '{field}'"):
        Bundle.load(rewritten(path, **{field: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": 3},
        {"spec": {"family": "AlexNet"}},
        {"spec": {"family": ["ResNet"]}},
        {"spec": spec("resnet20").to_dict() | {"depths": 3}},
        {"spec": spec("resnet20").to_dict() | {"depths": [{}]}},
        {"spec": spec("resnet20").to_dict() | {"width": -16}},
        {"spec": spec("resnet20").to_dict() | {"width": "16"}},
        {"classes": 3},
        {"preprocess": 3},
        {"preprocess": {"size": 32}},
        {"preprocess": Preprocess().to_dict() | {"std": [0, 0, 0]}},
    ],
    ids=lambda changes: json.dumps(changes)[:60],
)
def test_a_record_with_impossible_values_is_refused_on_one_line_that_names_the_file(path, changes):
    with pytest.raises(WeightsError, match=r"error\[X4\]: .*model.safetensors does not describe a network") as caught:
        Bundle.load(rewritten(path, **changes))
    assert str(caught.value).isprintable()


def test_a_changed_bit_is_refused_by_the_name_of_its_tensor(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"C4.*tensor '.*' fails its checksum"):
        Bundle.load(path)
