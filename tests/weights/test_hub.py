"""Names of weights elsewhere: what is fetched, and what becomes of it.  The hubs are a server on this machine."""

import hashlib
import io
import json

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save

from convatlas.data import Preprocess
from convatlas.errors import ConfigError, ResourceError, WeightsError
from convatlas.weights import Bundle, hub, import_weights
from convatlas.zoo import spec

TORCHVISION = "/models/resnet18-f37072fd.pth"
TIMM = "/timm/resnet18.a1_in1k/resolve/main"


@pytest.fixture
def state(randomised):
    torch.manual_seed(0)
    return randomised(torchvision.models.resnet18()).state_dict()


@pytest.fixture
def hubs(server, state, monkeypatch):
    """The server in the place of download.pytorch.org and huggingface.co."""
    really = hub.fetch

    def fetch(url, *args):
        return really(url.replace("https://download.pytorch.org", server.url("")), *args)

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.setattr(hub, "HUGGING_FACE", server.url(""))
    content = io.BytesIO()
    torch.save(state, content)
    server.files[TORCHVISION] = content.getvalue()
    config = timm.models.get_pretrained_cfg("resnet18.a1_in1k").to_dict()
    described = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": config}
    server.files[f"{TIMM}/config.json"] = json.dumps(described).encode()
    server.files[f"{TIMM}/model.safetensors"] = save(state)
    return server


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:resnet18.IMAGENET1K_V1"])
def test_torchvision(hubs, state, name, tmp_path):
    bundle = import_weights(name, sha256=sha256(hubs.files[TORCHVISION]))
    assert bundle.spec == spec("resnet18.b")
    assert bundle.preprocess == Preprocess()
    assert bundle.classes[:2] == ("tench", "goldfish")
    assert bundle.source == "torchvision: https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert torch.equal(bundle.weights["stem.conv.weight"], state["conv1.weight"])
    assert Bundle.load(bundle.save(tmp_path / "b.safetensors")).classes == bundle.classes


def test_the_checksum_in_torchvisions_name_counts(hubs):
    with pytest.raises(WeightsError, match=r"C4.*resnet18-f37072fd.pth: its sha256 begins with \w{8}, not f37072fd"):
        import_weights("torchvision:resnet18")


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [("resnet50.IMAGENET1K_V1", 224, 256), ("resnet50.IMAGENET1K_V2", 224, 232), ("resnet50", 224, 232)],
)
def test_each_of_torchvisions_weights_has_its_own_preprocessing(monkeypatch, tmp_path, name, size, resize):
    monkeypatch.setattr(hub, "fetch", lambda url, *_: tmp_path / url.rpartition("/")[2])
    found = hub.find(f"torchvision:{name}")
    assert (found.preprocess.size, found.preprocess.resize) == (size, resize)
    assert found.network == "resnet50.v1_5"


@pytest.mark.parametrize(("name", "network", "size"), [("googlenet", "googlenet.torchvision", 224),
                                                       ("inception_v3", "inception_v3", 299)])  # fmt: skip
def test_networks_that_torchvision_makes_change_their_input(monkeypatch, tmp_path, name, network, size):
    """`transform_input` is true with the released weights: from ImageNet's mean and deviation to -1..1."""
    monkeypatch.setattr(hub, "fetch", lambda url, *_: tmp_path / url.rpartition("/")[2])
    found = hub.find(f"torchvision:{name}")
    assert (found.network, found.preprocess.size) == (network, size)
    net = torchvision.models.GoogLeNet(transform_input=True, init_weights=False)
    image = torch.rand(1, 3, 8, 8)
    theirs = net._transform_input(Preprocess().normalize((image * 255).byte()))
    assert torch.allclose(found.preprocess.normalize((image * 255).byte()), theirs, atol=1e-6)


def test_timm(hubs, state):
    bundle = import_weights("timm:resnet18.a1_in1k")
    assert bundle.spec == spec("resnet18.b")
    assert bundle.preprocess == Preprocess(size=224, resize=235, interpolation="bicubic")
    assert bundle.classes[:2] == ("tench", "goldfish")
    assert bundle.licence == "apache-2.0"
    assert bundle.source == f"timm: {hubs.url(TIMM)}/model.safetensors"
    assert torch.equal(bundle.weights["head.fc.bias"], state["fc.bias"])
    assert [path for path, _ in hubs.requests] == [f"{TIMM}/config.json", f"{TIMM}/model.safetensors"]
    import_weights("timm:resnet18.a1_in1k")
    assert len(hubs.requests) == 2


NOTHING = [b"", b"[]", b"{}", b'{"pretrained_cfg": {}}', b'{"pretrained_cfg": 3}', b"\xff",
           b'{"pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0}}']  # fmt: skip


@pytest.mark.parametrize("described", NOTHING)
def test_a_description_that_says_nothing_is_refused(hubs, described):
    hubs.files[f"{TIMM}/config.json"] = described
    with pytest.raises(WeightsError, match=r"error\[X4\]: .*config.json does not say how resnet18 wants its images"):
        import_weights("timm:resnet18.a1_in1k")


def test_hugging_face(hubs, state):
    hubs.files["/me/nets/resolve/main/sub/r.safetensors"] = save(state)
    hubs.files["/me/nets/resolve/v2/r.safetensors"] = save(state)
    assert import_weights("hf://me/nets/sub/r.safetensors").spec == spec("resnet18.b")
    assert import_weights("hf://me/nets/r.safetensors@v2", "resnet18.b").spec == spec("resnet18.b")
    for name in ("hf://me", "hf://me/nets", "hf://me/nets/", "hf:///a/b"):
        with pytest.raises(ConfigError, match=r"is no file of Hugging Face. Remedy: write hf://owner/name/file"):
            import_weights(name)


def test_an_address(hubs, state):
    content = save(state)
    hubs.files["/r.safetensors"] = content
    hubs.files[f"/r-{sha256(content)[:8]}.safetensors"] = content
    hubs.files["/r-01234567.safetensors"] = content
    assert import_weights(hubs.url("/r.safetensors")).source.endswith(hubs.url("/r.safetensors"))
    assert import_weights(hubs.url(f"/r-{sha256(content)[:8]}.safetensors"))
    with pytest.raises(WeightsError, match="C4"):
        import_weights(hubs.url("/r-01234567.safetensors"))
    with pytest.raises(ResourceError, match="404"):
        import_weights(hubs.url("/none.safetensors"))


def test_a_file_has_a_checksum_too(state, tmp_path):
    path = tmp_path / "r.safetensors"
    path.write_bytes(save(state))
    assert import_weights(path, sha256=sha256(path.read_bytes()).upper())
    with pytest.raises(WeightsError, match=r"C4.*r.safetensors: its sha256 does not begin with 01234567"):
        import_weights(path, sha256="01234567")
    for wrong in ("012", "x" * 64, "0" * 65):
        with pytest.raises(ConfigError, match="is no sha256"):
            import_weights(path, sha256=wrong)


@pytest.mark.parametrize("name", ["torchvision:resnet19", "torchvision:vit_b_16", "timm:resnet18d.ra2_in1k", "timm:"])
def test_a_network_that_we_do_not_have_is_refused_with_those_we_have(name):
    with pytest.raises(
        ConfigError, match=r"L2.*no network of ours is the .* there are .*resnet101, resnet152, resnet18"
    ):
        import_weights(name)


def test_weights_that_torchvision_does_not_have():
    with pytest.raises(ConfigError, match=r"no weights 'V3' of resnet50. Remedy: it has IMAGENET1K_V1, IMAGENET1K_V2"):
        import_weights("torchvision:resnet50.V3")
