"""Networks by others, through our rename tables: every tensor finds its place, and the same input the same logits."""

import pytest
import timm
import torch
import torchvision

from convatlas.weights.foreign import convert
from convatlas.weights.rename import SOURCES
from convatlas.zoo import list_networks, spec

RESNETS = {"resnet18": "resnet18.b", "resnet34": "resnet34.b",
           **{f"resnet{depth}": f"resnet{depth}.v1_5" for depth in (50, 101, 152)}}  # fmt: skip
VGGS = {name: name for depth in (11, 13, 16, 19) for name in (f"vgg{depth}", f"vgg{depth}_bn")}
LIBRARIES = {"torchvision": torchvision.models.get_model, "timm": timm.create_model}
CIFAR = [f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)]


def source_of(library, arch):
    return next(s for s in SOURCES if s.name == library and s.has(arch))


def built(library, name, **options):
    """Our network with the weights of theirs, and theirs."""
    theirs = LIBRARIES[library](name, **options)
    arch = spec((RESNETS | VGGS)[name])
    arch, weights, problems = convert(source_of(library, arch), arch, theirs.state_dict())
    assert problems == []
    assert sum(t.numel() for t in weights.values()) == sum(t.numel() for t in theirs.state_dict().values())
    return arch, weights, theirs


@pytest.mark.parametrize("name", RESNETS | VGGS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_tensor_finds_its_place(library, name):
    with torch.device("meta"):
        arch, weights, theirs = built(library, name)
    ours = arch.skeleton()
    ours.load_state_dict(weights, assign=True)  # strict: the same names and shapes, none left over
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
@pytest.mark.parametrize(
    ("library", "name", "size"),
    [(library, name, 96 if depth < 50 else 64) for library in LIBRARIES for name in RESNETS
     if (depth := int(name.removeprefix("resnet")))]
    + [("torchvision", name, 224) for name in ("vgg11", "vgg13_bn", "vgg16")]
    + [("timm", "vgg11_bn", 224)],
)  # fmt: skip
def test_the_logits_are_those_of_the_original(randomised, library, name, size):
    torch.manual_seed(0)
    arch, weights, theirs = built(library, name)
    randomised(theirs)  # in place: the weights are the same memory
    ours = arch.skeleton().to_empty(device="cpu")
    ours.load_state_dict(weights)
    x = torch.randn(1, 3, size, size)
    found, expected = ours.eval()(x), theirs(x)
    assert expected.std() > 1e-3
    if library == "timm" and name.startswith("vgg"):  # its fully connected layers are convolutions: sums in other order
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    else:
        assert torch.equal(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_swap_of_two_tensors_would_be_noticed(randomised, library):
    torch.manual_seed(0)
    arch, weights, theirs = built(library, "resnet18")
    randomised(theirs)
    a, b = "stage1.0.res.body.conv1.norm.bias", "stage1.0.res.body.conv1.norm.running_mean"
    ours = arch.skeleton().to_empty(device="cpu")
    ours.load_state_dict(weights | {a: weights[b], b: weights[a]})
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(ours.eval()(x), theirs(x))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11"])
def test_the_number_of_classes_is_theirs(library, name):
    with torch.device("meta"):
        arch, *_ = built(library, name, num_classes=7)
    assert arch == spec((RESNETS | VGGS)[name], classes=7)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11"])
def test_the_number_of_channels_is_theirs(name):
    with torch.device("meta"):
        arch, *_ = built("timm", name, in_chans=1)
    assert arch == spec((RESNETS | VGGS)[name], in_channels=1)


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


@pytest.mark.parametrize("name", CIFAR)
def test_every_tensor_of_the_cifar_resnets_finds_its_place(name):
    with torch.device("meta"):
        theirs = akamaster(int(name.removeprefix("resnet")))
    source = source_of("akamaster", spec(name))
    arch, weights, problems = convert(source, spec(name), theirs)
    assert (arch, problems, len(weights)) == (spec(name), [], len(theirs))
    assert convert(source, spec(f"{name}.b"), theirs)[2][0].startswith("lacks 'stage2.0.res.skip.conv.weight'")


RELATIVES = [("torchvision", "wide_resnet50_2"), ("torchvision", "resnext50_32x4d"), ("timm", "resnet26"),
             ("timm", "resnet50d"), ("timm", "seresnet50"), ("timm", "resnetv2_50")]  # fmt: skip


@pytest.mark.parametrize(("library", "name"), RELATIVES)
def test_relatives_that_we_do_not_have_fit_nothing(library, name):
    with torch.device("meta"):
        theirs = LIBRARIES[library](name).state_dict()
    for ours in list_networks("resnet*"):
        for source in SOURCES:
            if source.has(spec(ours)):
                assert convert(source, spec(ours), theirs)[2] != [], f"{ours} of {source.name}"


@pytest.mark.parametrize("name", list_networks())
def test_each_table_serves_the_networks_that_its_source_has(name):
    sources = [source.name for source in SOURCES if source.has(spec(name))]
    assert len(sources) == len(set(sources))
    if name in (RESNETS | VGGS).values():
        assert sources == ["torchvision", "timm"]
    if name in CIFAR:
        assert sources == ["akamaster"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_weights_fit_exactly_one_network(library):
    for name, ours in (RESNETS | VGGS).items():
        with torch.device("meta"):
            theirs = LIBRARIES[library](name).state_dict()
        fits = [
            candidate
            for candidate in list_networks()
            for source in SOURCES
            if source.name == library and source.has(spec(candidate))
            if not convert(source, spec(candidate), theirs)[2]
        ]
        assert fits == [ours]
