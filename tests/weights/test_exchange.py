"""Bundles become files for others, and come back; what cannot be is said in one line."""

from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn

from convatlas.cli import main
from convatlas.errors import ConfigError, WeightsError
from convatlas.tree.transform import batch_norm_eps
from convatlas.weights import Bundle, export_weights, import_weights
from convatlas.weights.convert import names, to_ours, to_theirs
from convatlas.weights.peers import Peer
from convatlas.weights.peers.peer import CAFFE, rename
from convatlas.zoo import spec


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("library", "create"), [("torchvision", torchvision.models.get_model),
                                                 ("timm", timm.create_model)])  # fmt: skip
def test_what_we_export_their_own_loader_takes(make_bundle, tmp_path, suffix, library, create):
    bundle = make_bundle("resnet18.b", classes=5)
    path = export_weights(bundle, library, tmp_path / f"theirs{suffix}")
    if library == "timm":
        theirs = timm.create_model("resnet18", num_classes=5, checkpoint_path=str(path))
    else:
        from safetensors.torch import load_file

        theirs = create("resnet18", num_classes=5)
        theirs.load_state_dict(load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(theirs.eval()(x), bundle.build()(x))
    back = import_weights(path)
    assert back.spec == bundle.spec
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in bundle.weights.items())


def test_a_network_of_two_names_is_chosen_by_name(make_bundle, tmp_path):
    bundle = make_bundle("vgg11_bn", classes=3)
    one = torch.load(export_weights(bundle, "pytorchcv:bn_vgg11b", tmp_path / "1.pth"), weights_only=True)
    two = torch.load(export_weights(bundle, "pytorchcv:bn_vgg11", tmp_path / "2.pth"), weights_only=True)
    bias, mean = "features.stage1.unit1.conv.bias", "features.stage1.unit1.bn.running_mean"
    assert bias not in two
    assert torch.equal(two[mean], one[mean] - one[bias])
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        same = import_weights(tmp_path / "2.pth").build()(x)
        assert torch.allclose(same, bundle.build()(x), atol=1e-5)


def test_auxiliary_heads_are_left_out_where_they_have_none(make_bundle, tmp_path):
    bundle = make_bundle("inception_v3", classes=3)
    back = import_weights(export_weights(bundle, "timm", tmp_path / "x.pth"), "inception_v3")
    assert back.spec == replace(bundle.spec, aux=False)
    assert {name for name in bundle.weights if not name.startswith("aux.")} == back.weights.keys()
    whole = import_weights(export_weights(bundle, "torchvision", tmp_path / "y.pth"), "inception_v3")
    assert whole.spec == bundle.spec


@torch.no_grad()
def test_another_eps_is_made_up_for_by_the_variances(make_bundle):
    peer = Peer("nobody", {"resnet20": "x"}, lambda spec: ((r"(.+)", r"\1"),), eps=0.5)
    bundle = make_bundle("resnet20", classes=3)
    theirs = to_theirs(peer, bundle.spec, bundle.weights)
    net = batch_norm_eps(bundle.spec.build(), 0.5).eval()
    net.load_state_dict(theirs)
    x = torch.randn(1, 3, 32, 32)
    assert torch.allclose(net(x), bundle.build()(x), atol=1e-5)
    back = to_ours(peer, bundle.spec, theirs)
    assert all(torch.allclose(back[name], tensor, rtol=0, atol=1e-6) for name, tensor in bundle.weights.items())


@torch.no_grad()
def test_a_gamma_that_others_lack_is_multiplied_into_the_convolution(make_bundle):
    peer = Peer("nobody", {"vgg11_bn": "x"}, lambda spec: ((r"(.+)", r"\1"),), gamma=False)
    bundle = make_bundle("vgg11_bn.cifar", classes=3)
    theirs = to_theirs(peer, bundle.spec, bundle.weights)
    assert not [name for name in theirs if name.endswith("norm.weight")]
    net = replace(bundle, weights=to_ours(peer, bundle.spec, theirs)).build()
    assert all((m.weight == 1).all() for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    x = torch.randn(1, 3, 32, 32)
    assert torch.allclose(net(x), bundle.build()(x), atol=1e-4)


def test_keras_resnets_have_biases_and_blue_first(make_bundle, tmp_path):
    from convatlas.weights import read_foreign

    bundle = make_bundle("resnet50", classes=3)
    path = export_weights(bundle, "keras", tmp_path / "x.h5")
    theirs = read_foreign(path)
    assert not theirs["conv1_conv/bias"].any()
    assert torch.equal(theirs["conv1_conv/kernel"].permute(3, 2, 0, 1), bundle.weights["stem.conv.weight"].flip(1))
    theirs["conv1_conv/bias"] += 1
    from convatlas.weights.keras_file import write_keras

    write_keras(path, theirs, list(dict.fromkeys(name.rpartition("/")[0] for name in theirs)))
    back = import_weights(path)
    mean = "stem.norm.running_mean"
    assert torch.allclose(back.weights[mean], bundle.weights[mean] - 1, atol=1e-6)
    assert back.preprocess == CAFFE


def test_a_classifier_without_bias_takes_none(make_bundle, tmp_path):
    bundle = make_bundle("mobilenet_v2", classes=3)
    bundle.weights["head.fc.bias"].zero_()
    back = import_weights(export_weights(bundle, "pytorchcv", tmp_path / "x.pth"))
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in bundle.weights.items())
    bundle.weights["head.fc.bias"][1] = 1
    with pytest.raises(
        ConfigError, match=r"L2.*'head.fc.bias' of mobilenet_v2 is not zero, and pytorchcv's mobilenetv2b"
    ):
        export_weights(bundle, "pytorchcv", tmp_path / "x.pth")


def test_old_densenet_files_of_torchvision_are_read(tmp_path, randomised):
    theirs = randomised(torchvision.models.densenet121(num_classes=2)).state_dict()
    old = {}
    for name, tensor in theirs.items():
        for layer in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in name:
                name = name.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.")
        old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    bundle = import_weights(tmp_path / "old.pth")
    assert torch.equal(bundle.weights["block1.0.new.conv1.norm.weight"],
                       theirs["features.denseblock1.denselayer1.norm1.weight"])  # fmt: skip


def test_two_networks_of_the_same_tensors_must_be_told_apart(make_bundle, tmp_path):
    path = export_weights(make_bundle("resnet50", classes=3), "pytorchcv", tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=r"L2.*x.pth fits resnet50, resnet50.v1_5. Remedy: name one"):
        import_weights(path)
    assert import_weights(path, "resnet50").spec == spec("resnet50", classes=3)


def test_an_unknown_library_is_refused_with_those_there_are(tmp_path):
    from convatlas.cli.using import LIBRARIES as SHOWN
    from convatlas.weights.peers import LIBRARIES

    with pytest.raises(ConfigError, match=r"L2.*no library is called 'tensorflow'. Remedy: there are torchvision, "):
        import_weights(tmp_path / "x.pth", library="tensorflow")
    assert all(name in SHOWN for name in LIBRARIES)


def test_what_fits_nothing_says_so(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=r"L2.*x.pth fits no network. Remedy: see `convatlas list`"):
        import_weights(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("name", "to", "path", "message"),
    [
        ("resnet20", "tensorflow", "x.pth", r"tensorflow has no network that is our resnet20. .*akamaster:resnet20"),
        ("resnet20", "timm", "x.pth", r"timm has no network that is our resnet20"),
        ("plain20", "timm", "x.pth", r"no library has this network, see docs/weights.md"),
        ("resnet20", "akamaster:resnet32", "x.pth", r"akamaster:resnet32 has no network that is our resnet20"),
        (
            "resnet20",
            "akamaster",
            "x.h5",
            r"x.h5 is no name for weights of akamaster. .*end it in .safetensors or .pth",
        ),
        ("mobilenet_v2.keras", "keras", "x.pth", r"x.pth is no name for weights of keras. Remedy: end it in .h5"),
    ],
)
def test_exports_that_cannot_be(make_bundle, tmp_path, name, to, path, message):
    with pytest.raises(ConfigError, match=message):
        export_weights(make_bundle(name), to, tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_a_changed_network_is_no_network_of_theirs(make_bundle, tmp_path):
    bundle = make_bundle("resnet20", width=8)
    with pytest.raises(ConfigError, match="no library has this network"):
        export_weights(bundle, "akamaster", tmp_path / "x.pth")


def test_the_commands(make_bundle, tmp_path, capsys):
    bundle = make_bundle("resnet18.b", classes=3)
    ours = bundle.save(tmp_path / "ours.safetensors")
    assert main(["export", str(ours), "--to", "torchvision", "--out", str(tmp_path / "theirs.pth")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/theirs.pth: resnet18.b for torchvision\n"
    back = tmp_path / "back.safetensors"
    assert main(["import", str(tmp_path / "theirs.pth"), "--out", str(back), "--from", "torchvision"]) == 0
    assert "back.safetensors: resnet18.b with 3 classes, from torchvision: theirs.pth" in capsys.readouterr().out
    assert all(torch.equal(Bundle.load(back).weights[name], t) for name, t in bundle.weights.items())
    assert main(["export", str(ours), "--to", "keras", "--out", str(tmp_path / "x.h5")]) == 2
    assert "error[L2]: keras has no network that is our resnet18.b" in capsys.readouterr().err


def test_a_download_shows_no_bar_in_a_pipe(server, make_bundle, tmp_path, capsys):
    path = export_weights(make_bundle("resnet18.b", classes=3), "timm", tmp_path / "x.safetensors")
    server.files["/x.safetensors"] = path.read_bytes()
    command = ["import", server.url("/x.safetensors"), "--out", str(tmp_path / "b.safetensors"), "--sha256", "0" * 64]
    assert main(command) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error[C4]: ")
    assert main(command[:-2]) == 0


# --- the tables ---


@pytest.mark.parametrize(("rules", "hits"), [((), 0), (((r"a\.b", "x"), (r"a\.\w", "y")), 2), (((r"a\.", "x"),), 0)])
def test_a_module_has_exactly_one_rule(rules, hits):
    with pytest.raises(ValueError, match=f"'a.b' matches {hits} rules"):
        rename(rules, "a.b")


def test_two_tensors_never_get_the_same_name():
    with pytest.raises(ValueError, match=r"the rules of nobody for resnet20 give 'x.weight' twice"):
        names(Peer("nobody", {"resnet20": "x"}, lambda spec: ((r".+", "x"),)), spec("resnet20"))


def test_a_file_of_another_type_of_numbers_is_refused(tmp_path):
    theirs = torchvision.models.resnet18(num_classes=2).state_dict()
    torch.save(theirs | {"bn1.weight": torch.ones(64, dtype=torch.long)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"C8.*'bn1.weight' holds torch.int64"):
        import_weights(tmp_path / "x.pth", "resnet18.b")
