"""Others' networks and ours with the same weights: every tensor finds its place, and the logits are the same."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import parity
import pytest
import torch

from convatlas.papers.counts import counts
from convatlas.weights.convert import differences, expected, names, to_ours, to_theirs
from convatlas.weights.exchange import fits
from convatlas.weights.peers import PEERS, UNLIKE, Peer
from convatlas.zoo import list_networks, spec

RESULTS = Path(__file__).parents[2] / "results" / "parity.json"


def known() -> Iterator[tuple[Peer, str]]:
    return ((peer, name) for peer in PEERS for name in peer.networks)


def label(value) -> str:
    return value.library if isinstance(value, Peer) else str(value)


def smallest(peer: Peer) -> str:
    return min(peer.networks, key=lambda name: counts(spec(name)))


def logits_cases() -> Iterator:
    for peer in PEERS:
        if peer.library != "akamaster":
            name = smallest(peer)
            slow = counts(spec(name))[1] > 7e9 or peer.library == "keras"
            yield pytest.param(peer, name, marks=[pytest.mark.slow] if slow else [], id=f"{peer.library}-{name}")


@pytest.mark.parametrize(("peer", "name"), [(p, n) for p, n in known() if p.library in parity.BUILDERS], ids=label)
def test_every_tensor_finds_its_place(peer, name):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = parity.BUILDERS[peer.library](peer.networks[name]).state_dict()
    arch = peer.fitted(spec(name))
    assert differences(peer, arch, theirs) == []
    assert to_theirs(peer, arch, arch.skeleton().state_dict()).keys() == theirs.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "name"), [(p, n) for p, n in known() if p.library == "keras"], ids=label)
def test_every_array_of_keras_finds_its_place(peer, name):
    theirs = parity.theirs("keras", peer.networks[name]).state()
    arch = peer.fitted(spec(name))
    assert differences(peer, arch, theirs) == []
    assert expected(peer, arch).keys() == theirs.keys()


def akamaster(depth):
    """The networks of github.com/akamaster/pytorch_resnet_cifar10 with shortcut A: names and shapes."""

    def norm(name, c):
        vectors = {f"{name}.{key}": torch.empty(c) for key in ("weight", "bias", "running_mean", "running_var")}
        return vectors | {f"{name}.num_batches_tracked": torch.empty((), dtype=torch.long)}

    tensors, cin = {"conv1.weight": torch.empty(16, 3, 3, 3)} | norm("bn1", 16), 16
    for stage, c in enumerate((16, 32, 64), 1):
        for unit in range((depth - 2) // 6):
            name = f"layer{stage}.{unit}"
            tensors |= {f"{name}.conv1.weight": torch.empty(c, cin, 3, 3)} | norm(f"{name}.bn1", c)
            tensors |= {f"{name}.conv2.weight": torch.empty(c, c, 3, 3)} | norm(f"{name}.bn2", c)
            cin = c
    tensors |= {"linear.weight": torch.empty(10, 64), "linear.bias": torch.empty(10)}
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(("peer", "name"), [(p, n) for p, n in known() if p.library == "akamaster"], ids=label)
def test_every_tensor_of_the_cifar_resnets_finds_its_place(peer, name):
    theirs = akamaster(int(name.removeprefix("resnet")))
    assert differences(peer, spec(name), theirs) == []
    assert differences(peer, spec(f"{name}.b"), theirs)[0] == "lacks 'module.layer2.0.downsample.0.weight'"


@pytest.mark.parametrize(("peer", "name"), list(logits_cases()))
def test_the_logits_are_those_of_the_original(peer, name):
    rows = list(parity.compare(peer, name))
    assert [row["direction"] for row in rows] == ["ours to theirs", "theirs to ours"]
    for row in rows:
        if row["reason"]:
            assert (peer.lacks, row["direction"]) == (("head.fc.bias",), "ours to theirs")
            continue
        assert row["logit_std"] > 0.1
        if peer.library in ("torchvision", "timm") and not peer.layouts:
            assert row["max_abs_diff"] == 0
        else:  # sums in another order
            assert row["max_abs_diff"] < 1e-4


@torch.no_grad()
def test_a_swap_of_two_tensors_would_be_noticed():
    peer = next(p for p in PEERS if p.library == "torchvision" and "resnet18.b" in p.networks)
    arch = spec("resnet18.b")
    weights = parity.random_weights(arch, 0, 64)
    a, b = "stage1.0.res.body.conv1.norm.bias", "stage1.0.res.body.conv1.norm.running_mean"
    other = parity.theirs("torchvision", "resnet18")
    other.load(to_theirs(peer, arch, weights | {a: weights[b], b: weights[a]}))
    ours = arch.skeleton().to_empty(device="cpu").eval()
    ours.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 64)
    assert (ours(x) - other(x)).abs().max() > 0.05


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: f"{p.library}-{next(iter(p.networks))}")
def test_there_and_back_again(peer):
    """Every number, but where something had to be made up for."""
    name = smallest(peer)
    arch = peer.fitted(spec(name, classes=7))
    torch.manual_seed(0)
    weights = {
        key: torch.rand(t.shape) + 0.5 if t.is_floating_point() else torch.zeros_like(t, device="cpu")
        for key, t in arch.skeleton().state_dict().items()
    }
    for key in peer.lacks:
        weights[key].zero_()
    theirs = to_theirs(peer, arch, weights)
    assert differences(peer, arch, theirs) == []
    back = to_ours(peer, arch, theirs)
    assert back.keys() == weights.keys()
    assert all(back[key].shape == t.shape for key, t in weights.items())
    if peer.gamma and peer.conv_bias is not False:
        changed = {key for key, t in weights.items() if not torch.equal(back[key], t)}
        assert all(key.endswith("running_var") for key in changed)
        assert not changed or peer.eps
        assert all(torch.allclose(back[key], weights[key], rtol=0, atol=1e-6) for key in changed)


@pytest.mark.parametrize(("library", "name"), [("torchvision", "resnet50"), ("torchvision", "vgg11"),
                                               ("torchvision", "googlenet"), ("timm", "vgg11"),
                                               ("timm", "mobilenetv2_050")])  # fmt: skip
def test_the_numbers_of_classes_and_channels_are_theirs(library, name):
    from convatlas.weights.convert import fitted

    ours, peer = next((o, p) for p in PEERS if p.library == library for o, t in p.networks.items() if t == name)
    for options in ({"classes": 7}, {"classes": 1, "in_channels": 1}, {"in_channels": 5}):
        arch = spec(ours, **options)
        assert fitted(peer, spec(ours), expected(peer, arch)) == arch


# What is near to ours but not it: none of our networks may take it for its own.
RELATIVES = [("torchvision", "wide_resnet50_2"), ("torchvision", "resnext101_32x8d"), ("timm", "resnet26"),
             ("timm", "resnet50d"), ("timm", "densenetblur121d"), ("timm", "seresnet18"), ("timm", "mobilenetv2_110d"),
             ("timm", "densenet264d"), ("timm", "resnetv2_50d"), ("pytorchcv", "preresnet18"),
             ("pytorchcv", "mobilenetv2_w1"), ("pytorchcv", "densenet40_k12_cifar10"), ("pytorchcv", "mobilenetb_w1"),
             ("pytorchcv", "shufflenet_g3_w1"), ("pytorchcv", "mobilenetv2b_wd2")]  # fmt: skip


@pytest.mark.parametrize(("library", "name"), RELATIVES)
def test_relatives_that_we_do_not_have_fit_nothing(library, name):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = parity.BUILDERS[library](name).state_dict()
    assert fits(theirs) == []


@pytest.mark.parametrize(
    ("library", "theirs", "ours"),
    [
        ("torchvision", "resnet34", {"resnet34.b"}),
        ("torchvision", "resnet101", {"resnet101.v1_5"}),
        ("torchvision", "vgg13", {"vgg13"}),
        ("torchvision", "googlenet", {"googlenet.torchvision"}),
        ("torchvision", "densenet121", {"densenet121"}),
        ("torchvision", "inception_v3", {"inception_v3"}),
        ("timm", "inception_v3", {"inception_v3"}),
        ("timm", "seresnet50", {"se_resnet50.v1_5.bias"}),
        ("timm", "mobilenetv2_100", {"mobilenet_v2"}),
        ("timm", "resnetv2_50", {"preact_resnet50.timm"}),
        ("pytorchcv", "bninception", {"bn_inception.608"}),
        ("pytorchcv", "mobilenet_wd2", {"mobilenet_v1.x0_5"}),
        ("pytorchcv", "resnet50", {"resnet50", "resnet50.v1_5"}),  # only strides differ
    ],
)
def test_the_weights_fit_the_network_that_computes_the_same(library, theirs, ours):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = parity.BUILDERS[library](theirs).state_dict()
    assert {name for name, _ in fits(state)} == ours


def test_the_tables_name_registered_networks_once():
    registered = list_networks()
    for peer, name in known():
        assert name in registered, (peer.library, name)
        assert names(peer, peer.fitted(spec(name)))
    for unlike in UNLIKE:
        assert unlike.network in registered, unlike
        assert unlike.reason.endswith("."), unlike
        assert unlike.reason[0].isupper(), unlike
        for other in [word.rstrip(".:,") for word in unlike.reason.split(": see ")[1:]]:
            assert other in registered, unlike
    assert len(set(UNLIKE)) == len(UNLIKE)


def test_the_networks_that_are_unlike_exist():
    import timm
    import torchvision
    from pytorchcv.model_provider import _models

    existing = {"torchvision": torchvision.models.list_models(), "timm": timm.list_models(), "pytorchcv": list(_models)}
    for unlike in UNLIKE:
        assert unlike.library == "keras" or unlike.theirs in existing[unlike.library], unlike


def test_the_recorded_results_are_those_of_the_tables():
    rows = json.loads(RESULTS.read_text())
    measured = {(r["peer"], r["network"], r["peer_network"]) for r in rows if r["direction"]}
    assert measured == {(p.library, n, t) for p in PEERS if p.library != "akamaster" for n, t in p.networks.items()}
    assert {(u.library, u.network, u.theirs, u.reason) for u in UNLIKE} == {
        (r["peer"], r["network"], r["peer_network"], r["reason"])
        for r in rows
        if r["peer_network"] and not r["direction"]
    }
    for row in rows:
        assert (row["max_abs_diff"] is None) == (row["reason"] is not None), row
        if row["max_abs_diff"] is not None:
            assert row["max_abs_diff"] < 2e-4, row
            assert row["logit_std"] > 0.1, row
