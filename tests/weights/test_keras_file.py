"""Files of Keras: read in every form, nothing in them executed or followed, and written so that Keras reads them."""

import io
import json
import random
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import parity
import pytest
import torch

from convatlas.errors import ResourceError, WeightsError
from convatlas.weights import Bundle, export_weights, import_weights, keras_file, read_foreign
from convatlas.weights.keras_file import by_depth, write_keras
from convatlas.zoo import spec

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras itself

TENSORS = {
    "conv/kernel": torch.arange(24.0).reshape(2, 2, 3, 2),
    "conv/bias": torch.tensor([1.0, 2.0]),
    "bn/gamma": torch.tensor([3.0]),
    "bn/beta": torch.tensor([4.0]),
    "bn/moving_mean": torch.tensor([5.0]),
    "bn/moving_variance": torch.tensor([6.0]),
    "plain/beta": torch.tensor([7.0]),
    "plain/moving_mean": torch.tensor([8.0]),
    "plain/moving_variance": torch.tensor([9.0]),
    "fc/kernel": torch.ones(2, 3),
}
LAYERS = ["conv", "bn", "plain", "fc"]


@pytest.fixture
def path(tmp_path):
    return write_keras(tmp_path / "x.h5", TENSORS, LAYERS)


def same(found, expected=TENSORS):
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# --- forms ---


def test_a_file_of_ours(path):
    same(read_foreign(path))


def test_a_whole_model_in_hdf5(tmp_path, path):
    with h5py.File(path) as old, h5py.File(tmp_path / "model.h5", "w") as new:
        new.attrs["model_config"] = json.dumps({"class_name": "Lambda"})
        group = new.create_group("model_weights")
        group.attrs["layer_names"] = old.attrs["layer_names"]
        for name in old:
            old.copy(name, group)
        new.create_group("optimizer_weights")["junk"] = np.ones(3)
    same(read_foreign(tmp_path / "model.h5"))


def keras3(target, attributes=True):
    """The layout of `.weights.h5`."""
    with h5py.File(target, "w") as file:
        for layer in (*LAYERS, "relu"):
            group = file.create_group(f"layers/{layer}_container/vars")
            if attributes:
                group.attrs["name"] = layer
            for i, name in enumerate(n for n in TENSORS if n.startswith(f"{layer}/")):
                group[str(i)] = TENSORS[name].numpy()
        file.create_group("optimizer/vars")["0"] = np.ones(3)


def test_weights_of_keras_3(tmp_path):
    keras3(tmp_path / "x.weights.h5")
    found = read_foreign(tmp_path / "x.weights.h5")
    same({name: found[name] for name in TENSORS})
    assert len(found) == len(TENSORS)


def archive(path, content, **others):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", json.dumps({"class_name": "Lambda", "config": {"function": "os.system"}}))
        file.writestr("model.weights.h5", content, **others)


def test_a_keras_archive(tmp_path):
    content = io.BytesIO()
    keras3(content)
    archive(tmp_path / "x.keras", content.getvalue())
    found = read_foreign(tmp_path / "x.keras")
    same({name: found[name] for name in TENSORS})


def test_old_names_are_read_by_their_order(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = [b"block1_conv1", b"bn2a"]
        group = file.create_group("block1_conv1")
        group.attrs["weight_names"] = [b"block1_conv1_W_1:0", b"block1_conv1_b_1:0"]
        group["block1_conv1_W_1:0"], group["block1_conv1_b_1:0"] = np.ones((3, 3, 1, 2)), np.zeros(2)
        group = file.create_group("bn2a")
        group.attrs["weight_names"] = ["bn2a/gamma:0", "bn2a/beta:0", "bn2a/mean:0", "bn2a/std:0"]
        for i, name in enumerate(group.attrs["weight_names"]):
            group[name] = np.full(2, float(i))
    found = read_foreign(tmp_path / "old.h5")
    assert list(found) == ["block1_conv1/kernel", "block1_conv1/bias", "bn2a/gamma", "bn2a/beta", "bn2a/moving_mean",
                           "bn2a/moving_variance"]  # fmt: skip
    assert found["bn2a/moving_variance"].tolist() == [3, 3]


def test_numbers_of_unnamed_layers_begin_anew(tmp_path):
    tensors = {f"conv2d_{n}/kernel": torch.full((1, 1, 1, 1), float(n)) for n in (94, 95, 104)}
    found = read_foreign(write_keras(tmp_path / "x.h5", tensors, [name.partition("/")[0] for name in tensors]))
    same(
        found,
        {f"{new}/kernel": t for new, t in zip(("conv2d", "conv2d_1", "conv2d_10"), tensors.values(), strict=True)},
    )


def test_layers_without_names_and_models_within_are_refused(tmp_path):
    keras3(tmp_path / "x.h5", attributes=False)
    with pytest.raises(WeightsError, match=r"C8.*x.h5 does not name its layers. Remedy: save the model as .h5"):
        read_foreign(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.attrs["layer_names"] = ["resnet50"]
        group = file.create_group("resnet50")
        group.attrs["weight_names"] = [f"w{i}" for i in range(9)]
        for i in range(9):
            group[f"w{i}"] = np.ones((3, 3))
    with pytest.raises(WeightsError, match=r"C8.*layer 'resnet50' holds 9 arrays.*save the network alone"):
        read_foreign(tmp_path / "y.h5")


def test_without_h5py_it_says_so(path, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ResourceError, match=r"L5.*h5py is not installed.*pip install 'convatlas\[keras\]'"):
        read_foreign(path)
    with pytest.raises(ResourceError, match="h5py is not installed"):
        write_keras(tmp_path / "y.h5", TENSORS, LAYERS)


# --- attacks ---


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.ones((2, 2))
    return path


def links(secret, tmp_path):
    """What may stand in the place of an array, and lead elsewhere."""
    (tmp_path / "raw").write_bytes(bytes(32))
    layout = h5py.VirtualLayout((2, 2), "f8")
    layout[...] = h5py.VirtualSource(str(secret), "x", (2, 2))
    return {
        "external link": lambda group: group.__setitem__("w", h5py.ExternalLink(str(secret), "x")),
        "soft link": lambda group: group.__setitem__("w", h5py.SoftLink("/layer")),
        "dangling": lambda group: None,
        "virtual": lambda group: group.create_virtual_dataset("w", layout),
        "external storage": lambda group: group.create_dataset("w", (2, 2), "f8", external=str(tmp_path / "raw")),
    }


@pytest.mark.parametrize("kind", ["external link", "soft link", "dangling", "virtual", "external storage"])
@pytest.mark.parametrize("form", [2, 3])
def test_nothing_outside_the_file_is_read(tmp_path, secret, kind, form):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layer") if form == 2 else file.create_group("layers/layer/vars")
        links(secret, tmp_path)[kind](group)
        if form == 2:
            file.attrs["layer_names"], group.attrs["weight_names"] = ["layer"], ["w"]
        else:
            group.attrs["name"] = "layer"
            if "w" in group:
                group.move("w", "0")
            else:
                group["1"] = np.ones(2)
    with pytest.raises(WeightsError, match=r"error\[C[56]\]: .*x.h5") as caught:
        read_foreign(path)
    assert "leads elsewhere" in str(caught.value) or "in another file" in str(caught.value)


def test_a_path_through_a_link_is_refused(tmp_path, secret):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = ["layer"]
        group = file.create_group("layer")
        group["door"] = h5py.ExternalLink(str(secret), "/")
        group.attrs["weight_names"] = ["door/x"]
    with pytest.raises(WeightsError, match=r"C6.*'door/x' is missing or leads elsewhere"):
        read_foreign(tmp_path / "x.h5")


def test_code_in_the_description_is_not_even_looked_at(tmp_path, effects):
    keras = pytest.importorskip("keras")
    canary = tmp_path / "canary"
    layer = keras.layers.Lambda(eval(f"lambda x: __import__('os').system('touch {canary}') or x"), output_shape=(2,))
    model = keras.Sequential([keras.Input((2,)), layer, keras.layers.Dense(3, name="fc")])
    canary.unlink(missing_ok=True)
    model.save(tmp_path / "evil.keras")
    canary.unlink(missing_ok=True)
    effects.clear()
    found = read_foreign(tmp_path / "evil.keras")
    assert list(found) == ["fc/kernel", "fc/bias"]
    assert effects == []
    assert not canary.exists()


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = ["layer"]
        group = file.create_group("layer")
        group.attrs["weight_names"] = ["w"]
        group.create_dataset("w", (100_000, 10_000), "f4", chunks=(1000, 1000), compression="gzip")
    with pytest.raises(WeightsError, match=r"C6.*x.h5 unpacks to more than its [\d,]+ bytes"):
        read_foreign(tmp_path / "x.h5")
    archive(tmp_path / "x.keras", bytes(10_000_000), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=r"C6.*x.keras unpacks to more than its [\d,]+ bytes"):
        read_foreign(tmp_path / "x.keras")


@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n" + bytes(2000), b"\x89HDF\r\n\x1a\n"])
def test_what_only_begins_like_hdf5_is_refused(tmp_path, content):
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(WeightsError, match=r"C5.*x.h5 is not a whole Keras file"):
        read_foreign(tmp_path / "x.h5")


def test_an_hdf5_file_by_others_is_refused(tmp_path, secret):
    with pytest.raises(WeightsError, match=r"C[56].*secret.h5"):
        read_foreign(secret)


def test_a_file_cut_anywhere_is_refused(path):
    content = path.read_bytes()
    for length in range(9, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError) as caught:
            read_foreign(path)
        assert str(caught.value).isprintable()


def test_a_damaged_file_never_gives_a_traceback(path, seed):
    content, messages = path.read_bytes(), []
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 8)):
            damaged[random.randrange(len(content))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            read_foreign(path)  # HDF5 has no checksum of its arrays: it may well load
        except WeightsError as error:
            messages.append(str(error))
    assert messages
    assert all(message.isprintable() for message in messages), f"seed {seed}"


# --- with Keras itself ---


@pytest.fixture(scope="module")
def applications():
    return pytest.importorskip("keras.applications")


CASES = [
    ("mobilenet_v2.keras", "MobileNetV2"),
    ("mobilenet_v1.keras", "MobileNet"),
    pytest.param("resnet50", "ResNet50", marks=pytest.mark.slow),
    pytest.param("densenet121", "DenseNet121", marks=pytest.mark.slow),
    pytest.param("inception_v3.keras", "InceptionV3", marks=pytest.mark.slow),
    pytest.param("vgg16", "VGG16", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "theirs"), CASES)
def test_keras_loads_what_we_export_and_we_what_it_saves(applications, make_bundle, tmp_path, name, theirs):
    """By the order of the layers, as `load_weights` does; then in each of its formats, back to the same weights."""
    bundle = replace(make_bundle(name), weights=parity.random_weights(spec(name), 0, spec(name).size))
    path = export_weights(bundle, "keras", tmp_path / "x.h5")
    net = getattr(applications, theirs)(weights=str(path), classifier_activation=None)
    net.save(tmp_path / "x.keras")
    net.save_weights(tmp_path / "x.weights.h5")
    for form in ("x.h5", "x.keras", "x.weights.h5"):
        back = import_weights(tmp_path / form, name)
        assert back.spec == bundle.spec
        x = torch.randn(1, 3, bundle.spec.size, bundle.spec.size)
        with torch.inference_mode():
            assert torch.allclose(back.build()(x), bundle.build()(x), atol=1e-4)
    exact = name not in ("resnet50", "densenet121", "inception_v3.keras")
    assert not exact or all(torch.equal(back.weights[k], t) for k, t in bundle.weights.items() if "batches" not in k)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "ResNet101", "DenseNet169", "InceptionV3", "MobileNetV2", "VGG19"])
def test_the_order_of_layers_is_keras(name):
    from convatlas.weights.exchange import _layers
    from convatlas.weights.peers import PEERS

    ours, peer = next((n, p) for p in PEERS if p.library == "keras" for n, t in p.networks.items() if t == name)
    layers = [layer.name for layer in parity.theirs("keras", name).net.layers if layer.weights]
    assert _layers(peer, spec(ours)) == layers


def test_depth_is_counted_from_the_end():
    order = by_depth(spec("resnet50").skeleton())
    unit = [path for path in order if path.startswith("stage1.0.")]
    assert unit == [
        *(f"stage1.0.res.body.conv{n}.{leaf}" for n in (1, 2) for leaf in ("conv", "norm", "act")),
        "stage1.0.res.skip.conv", "stage1.0.res.body.conv3.conv",
        "stage1.0.res.skip.norm", "stage1.0.res.body.conv3.norm",
        "stage1.0.act",
    ]  # fmt: skip


def test_bundles_of_keras_networks_know_their_preprocessing(make_bundle, tmp_path):
    path = export_weights(make_bundle("mobilenet_v2.keras"), "keras", tmp_path / "x.h5")
    bundle = Bundle.load(import_weights(path).save(tmp_path / "b.safetensors"))
    image = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 2, 2)
    assert torch.allclose(bundle.preprocess.normalize(image)[:, 0], torch.tensor([-1.0, 1.0]))
    assert path.read_bytes()[:8] == keras_file.HDF5
