"""Files by others: nothing in them is executed, and they become a network only if every tensor has its place."""

import io
import os
import pickle
import random
import subprocess
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from convatlas.data import Preprocess
from convatlas.errors import ConfigError, ConvatlasError, WeightsError
from convatlas.weights import Bundle, import_weights, read_foreign
from convatlas.zoo import spec

# --- code in files (C6) ---


class Evil:
    """Pickles as a call that would touch the canary."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def payloads(canary):
    return {
        "os.system": Evil(os.system, f"touch {canary}"),
        "exec": Evil(exec, f"open({str(canary)!r}, 'w')"),
        "open": Evil(open, str(canary), "w"),
        "Popen": Evil(subprocess.Popen, ["touch", str(canary)]),
        "torch.hub": Evil(torch.hub.download_url_to_file, "file:///etc/hostname", str(canary)),
        "numpy.save": Evil(np.save, str(canary), 3),
    }


def torch_zip(evil, path):
    torch.save({"state_dict": {"a": torch.zeros(2), "b": evil}}, path)


def torch_legacy(evil, path):
    torch.save({"a": torch.zeros(2), "b": evil}, path, _use_new_zipfile_serialization=False)


def torch_zip_protocol_4(evil, path):
    torch.save(evil, path, pickle_protocol=4)


def plain_pickle(evil, path):
    path.write_bytes(pickle.dumps(evil))


def text_pickle(evil, path):
    path.write_bytes(pickle.dumps({"a": evil}, 0))


def torch_tar(evil, path):  # torch.save before 0.1.10
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(evil)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def numpy_object(evil, path):
    with path.open("wb") as file:
        np.save(file, np.array([evil], dtype=object))


def numpy_archive(evil, path):
    with path.open("wb") as file:
        np.savez(file, a=np.array([evil], dtype=object))


def joblib_dump(evil, path):
    pytest.importorskip("joblib").dump({"a": evil}, path)


def joblib_compressed(evil, path):
    pytest.importorskip("joblib").dump({"a": evil}, path, compress=3)


SHAPES = [torch_zip, torch_legacy, torch_zip_protocol_4, plain_pickle, text_pickle, torch_tar, numpy_object,
          numpy_archive, joblib_dump, joblib_compressed]  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("payload", payloads(""))
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_code_in_a_file_is_refused_and_never_runs(tmp_path, effects, shape, payload, suffix):
    canary, path = tmp_path / "canary", tmp_path / f"evil{suffix}"
    shape(payloads(canary)[payload], path)
    effects.clear()
    with pytest.raises(WeightsError) as caught:
        import_weights(path, "resnet20")
    assert effects == []
    assert not canary.exists()
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
    if suffix == ".pth":
        assert caught.value.id == ("C5" if shape is numpy_archive else "C6")
        assert "get a .safetensors file" in caught.value.remedy or shape is numpy_archive


def test_the_canary_would_sing(tmp_path, effects):
    path = tmp_path / "evil.pth"
    torch_zip(payloads(tmp_path / "canary")["os.system"], path)
    effects.clear()
    torch.load(path, weights_only=False)
    assert (tmp_path / "canary").exists()
    assert any(effect.startswith("os.system") for effect in effects)


@pytest.mark.parametrize("shape", [torch_zip, torch_legacy])
def test_the_code_is_named(tmp_path, shape):
    path = tmp_path / "evil.pth"
    shape(payloads("x")["os.system"], path)
    with pytest.raises(WeightsError, match=r"error\[C6\]: .*evil.pth holds code \(posix.system\), not only tensors"):
        read_foreign(path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(WeightsError, match=r"holds code \(torch.nn.modules.linear.Linear\)"):
        read_foreign(path)


def test_torchscript_is_refused_as_code(tmp_path):
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the files it wrote are still around
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))
    with pytest.raises(WeightsError, match=r"error\[C6\]: .*script.pt holds code \(TorchScript\)"):
        read_foreign(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, world\n", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"<!DOCTYPE html><html>",
     b"\x1f\x8b" + bytes(100), bytes(5000), b"\x80", b"[" * 100_000],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_what_is_no_weights_file_at_all_is_refused(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=rf"C6.*x.pth is no file of safetensors, torch or Keras \({len(content):,} bytes\)"
    ):
        read_foreign(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_cut_anywhere_is_refused(tmp_path, legacy):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.randn(100), "b": torch.randn(3)}, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 11):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"error\[C[56]\]: .*x.pth") as caught:
            read_foreign(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_torch_file_never_gives_a_traceback(tmp_path, seed, legacy):
    path = tmp_path / "x.pth"
    torch.save(
        {"conv.weight": torch.randn(2, 3), "n": torch.tensor(3)}, path, _use_new_zipfile_serialization=not legacy
    )
    content, messages = path.read_bytes(), []
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(len(content))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            read_foreign(path)  # torch's files have no checksum that is read: it may well load
        except WeightsError as error:
            messages.append(str(error))
    assert messages
    assert all(message.isprintable() for message in messages), f"seed {seed}"


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"a": torch.zeros(1_000_000)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert (tmp_path / "small.pth").stat().st_size < 10_000
    with pytest.raises(WeightsError, match=r"C6.*small.pth unpacks to more than its [\d,]+ bytes"):
        read_foreign(tmp_path / "small.pth")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"fc.bias": torch.zeros(1).expand(10**12)}, path)
    with pytest.raises(WeightsError, match=r"C8.*does not hold a state dict"):
        read_foreign(path)


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [torch.zeros(3)], {}, {"epoch": 3}, {"state_dict": {}}, {3: torch.zeros(3)}, {"a": {"b": 3}},
     {"a": torch.zeros(3).to_sparse()}, {"a": torch.zeros(3, device="meta")}, {"a": None}],
    ids=str,
)  # fmt: skip
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"C8.*x.pth does not hold a state dict, names with tensors"):
        read_foreign(tmp_path / "x.pth")


# --- files that are read ---


WRAPS = [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w, "args": {}},
         lambda w: {"state_dict": {"net": w}}]  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_are_found_where_scripts_put_them(tmp_path, wrap, legacy):
    expected = {"a": torch.randn(3, 4), "b": nn.Parameter(torch.randn(2)), "c": torch.tensor(3)}
    torch.save(wrap(expected), tmp_path / "x.th", _use_new_zipfile_serialization=not legacy)
    found = read_foreign(tmp_path / "x.th")
    assert list(found) == list(expected)
    assert all(torch.equal(found[k], expected[k]) for k in expected)
    assert not any(t.requires_grad for t in found.values())


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "x.pth"])
def test_safetensors_is_read_whatever_it_is_called(tmp_path, name):
    save_file({"a": torch.arange(3)}, tmp_path / name)
    assert torch.equal(read_foreign(tmp_path / name)["a"], torch.arange(3))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_imported_network_becomes_a_bundle(tmp_path, randomised, suffix):
    theirs = randomised(torchvision.models.resnet18(num_classes=7))
    path = tmp_path / f"theirs{suffix}"
    torch.save(theirs.state_dict(), path) if suffix == ".pth" else save_file(theirs.state_dict(), path)
    bundle = import_weights(path, "resnet18.b", licence="BSD-3-Clause")
    assert bundle.spec == spec("resnet18.b", classes=7)
    assert bundle.classes == ("0", "1", "2", "3", "4", "5", "6")
    assert bundle.preprocess == Preprocess()
    assert bundle.source == f"torchvision or timm: theirs{suffix}"
    assert bundle.licence == "BSD-3-Clause"
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(Bundle.load(bundle.save(tmp_path / "ours")).build()(x), theirs(x))


def test_source_classes_and_preprocessing_can_be_given(tmp_path, randomised):
    torch.save(randomised(torchvision.models.resnet18(num_classes=2)).state_dict(), tmp_path / "x.pth")
    mine = Preprocess(size=64, resize=70)
    bundle = import_weights(tmp_path / "x.pth", "resnet18.b", library="timm", preprocess=mine, classes=("no", "yes"))
    assert (bundle.source, bundle.preprocess, bundle.classes) == ("timm: x.pth", mine, ("no", "yes"))
    with pytest.raises(WeightsError, match=r"C8.*names 1 classes for 2 outputs"):
        import_weights(tmp_path / "x.pth", "resnet18.b", classes=("no",))


def test_the_number_of_channels_is_the_files(tmp_path, randomised):
    theirs = torchvision.models.resnet18(num_classes=2)
    theirs.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    torch.save(randomised(theirs).state_dict(), tmp_path / "grey.pth")
    grey = Preprocess(mean=(0.5,), std=(0.2,), channels=1)
    bundle = import_weights(tmp_path / "grey.pth", "resnet18.b", preprocess=grey)
    assert bundle.spec.in_channels == 1
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(bundle.build()(x), theirs(x))
    assert import_weights(tmp_path / "grey.pth", "resnet18.b").preprocess == Preprocess().for_channels(1)
    with pytest.raises(WeightsError, match=r"C8.*grey.pth: the network takes 1 channels, not the 3"):
        import_weights(tmp_path / "grey.pth", "resnet18.b", preprocess=Preprocess())


def test_files_from_before_num_batches_tracked_are_read(tmp_path, randomised):
    theirs = randomised(torchvision.models.resnet18())
    old = {k: t for k, t in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(import_weights(tmp_path / "old.pth", "resnet18.b").build()(x), theirs(x))


def test_a_value_that_is_not_finite_is_named(tmp_path):
    theirs = torchvision.models.resnet18(num_classes=2).state_dict()
    theirs["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(theirs, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"C9.*nan.pth: tensor 'stage2.0.res.body.conv1.conv.weight' holds NaN"):
        import_weights(tmp_path / "nan.pth", "resnet18.b")


# --- other networks (C8) ---


@pytest.fixture
def resnet34(tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(torchvision.models.resnet34(num_classes=5).state_dict(), path)
    return path


@pytest.mark.parametrize("network", ["resnet18.b", "resnet18", "resnet50.v1_5", "resnet34.c", "vgg16", "resnet20"])
def test_weights_of_another_network_name_the_one_that_fits(resnet34, network):
    with pytest.raises(
        ConvatlasError, match=rf"error\[(C8|L2)\]: (.*theirs.pth is not a|no table for) {network} "
    ) as caught:
        import_weights(resnet34, network)
    assert caught.value.remedy == "it fits resnet34.b of torchvision, resnet34.b of timm"


def test_what_fits_nothing_says_where_to_look(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"C8.*has an unknown 'a'; .* Remedy: see `convatlas list`"):
        import_weights(tmp_path / "x.pth", "resnet18.b")


@pytest.mark.parametrize("network", ["resnet50", "resnet50.c"])
def test_strides_that_theirs_do_not_have_are_refused_though_the_shapes_fit(tmp_path, network):
    with torch.device("meta"):
        theirs = torchvision.models.resnet50(num_classes=2).to_empty(device="cpu")
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    with pytest.raises(ConvatlasError, match=rf"{network} .*fits resnet50.v1_5 of torchvision, resnet50.v1_5 of timm$"):
        import_weights(tmp_path / "x.pth", network)


def test_an_unknown_source_or_network_is_refused(resnet34):
    with pytest.raises(ConfigError, match=r"no table for resnet34.b from keras. Remedy: it fits resnet34.b"):
        import_weights(resnet34, "resnet34.b", library="keras")
    with pytest.raises(ConfigError, match="no network is called 'resnet35'"):
        import_weights(resnet34, "resnet35")


@pytest.mark.parametrize("name", ["extra", "layer1.9.conv1.weight", "layer1.0.conv1.weight\n\x1b[2J", "", "ÿ"])
def test_a_tensor_too_many_is_named_on_one_line(tmp_path, name):
    theirs = torchvision.models.resnet18(num_classes=2).state_dict()
    torch.save(theirs | {name: torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"error\[C8\]: .*x.pth is not a resnet18.b") as caught:
        import_weights(tmp_path / "x.pth", "resnet18.b")
    assert str(caught.value).isprintable()
    assert "has an unknown '" in str(caught.value)


def test_a_tensor_too_few_and_one_of_another_shape_are_named(tmp_path):
    theirs = torchvision.models.resnet18(num_classes=2).state_dict()
    del theirs["layer3.1.bn2.bias"]
    theirs["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    torch.save(theirs, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"lacks 'layer3.1.bn2.bias'") as caught:
        import_weights(tmp_path / "x.pth", "resnet18.b")
    assert "'layer1.0.conv1.weight' is (64, 64, 1, 1), not (64, 64, 3, 3)" in str(caught.value)


@pytest.mark.parametrize(
    "bias", [torch.zeros(()), torch.zeros(0), torch.zeros(3, 1)], ids=["scalar", "empty", "matrix"]
)
def test_a_head_of_an_odd_shape_is_refused(tmp_path, bias):
    theirs = torchvision.models.resnet18(num_classes=2).state_dict()
    torch.save(theirs | {"fc.bias": bias, "conv1.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"C8.*'conv1.weight' is \(3,\).*'fc.bias' is"):
        import_weights(tmp_path / "x.pth", "resnet18.b")


# --- real weights ---


def test_the_public_cifar_resnet20_scores_what_was_measured_elsewhere(shared):
    weights = shared / "weights/cifar10_resnet20/resnet20-12fca82f.th"
    test = shared / "data/cifar10/test.parquet"
    if not weights.exists() or not test.exists():
        pytest.skip("no ../shared/weights/cifar10_resnet20 or ../shared/data/cifar10 beside the project")
    from convatlas.data.parquet import read_parquet

    bundle = import_weights(weights, "resnet20", licence="BSD-2-Clause")
    images = read_parquet(test).images
    assert images.classes == bundle.classes
    net, right = bundle.build(), 0
    with torch.inference_mode():
        for start in range(0, len(images), 500):
            indices = range(start, min(start + 500, len(images)))
            batch = torch.stack([bundle.preprocess(images.read(i)) for i in indices])
            right += (net(batch).argmax(1) == images.labels[indices.start : indices.stop]).sum().item()
    assert (right, len(images)) == (8103, 10_000)
