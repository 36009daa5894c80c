"""The recipes that come with convatlas: their numbers are the papers', their heads say whose and what came of them."""

import csv
import fnmatch
import re
from importlib import resources
from pathlib import Path

import pytest

from convatlas.papers.counts import counted
from convatlas.train.builtin import about, builtin
from convatlas.train.recipe import Recipe
from convatlas.zoo import list_networks, spec

ROOT = Path(__file__).parents[2]
OURS = {"cifar10", "digits", "finetune", "photo", "small"}
PAPERS = Path(str(resources.files("convatlas") / "papers" / "data"))

IMAGENET = "ILSVRC-2012"
N = r"[\d.e+-]*\d"  # a number

# What the papers print, as the audit's tables hold it, and what it means: a named group is a field of the recipe.
SETTINGS = [
    ("alexnet", "alexnet", IMAGENET, "batch", f"(?P<batch>{N})"),
    ("alexnet", "alexnet", IMAGENET, "epochs", f"~(?P<epochs>{N})"),
    ("alexnet", "alexnet", IMAGENET, "weight_decay", f"(?P<weight_decay>{N})"),
    ("alexnet", "alexnet", IMAGENET, "optimizer", f"SGD momentum (?P<momentum>{N}), v := 0.9v - 0.0005\\*lr\\*w .*"),
    ("alexnet", "alexnet", IMAGENET, "lr", f"(?P<lr>{N}), /10 when val error stops improving.*"),
    ("vgg", "vgg", IMAGENET, "batch", f"(?P<batch>{N})"),
    ("vgg", "vgg", IMAGENET, "iterations", f"370K \\((?P<epochs>{N}) epochs\\)"),
    ("vgg", "vgg", IMAGENET, "weight_decay", f"(?P<weight_decay>{N})"),
    ("vgg", "vgg", IMAGENET, "optimizer", f"SGD momentum (?P<momentum>{N})"),
    ("vgg", "vgg", IMAGENET, "lr", f"(?P<lr>{N}), /10 when val accuracy stops improving.*"),
    ("googlenet", "googlenet", IMAGENET, "optimizer", f"asynchronous SGD momentum (?P<momentum>{N}).*"),
    ("googlenet", "googlenet", IMAGENET, "lr", f".*every (?P<every>{N}) epochs \\(x(?P<gamma>{N})\\).*"),
    ("googlenet", "googlenet", IMAGENET, "aux_weight", f"(?P<aux_weight>{N})"),
    ("bn_inception", "bn_inception", IMAGENET, "batch", f"(?P<batch>{N})"),
    ("inception", "inception_v3", IMAGENET, "batch", f"(?P<batch>{N}) per replica, 50 replicas"),
    ("inception", "inception_v3", IMAGENET, "epochs", f"(?P<epochs>{N})"),
    ("inception", "inception_v3", IMAGENET, "grad_clip", f"(?P<clip>{N})"),
    ("inception", "inception_v3", IMAGENET, "label_smoothing", f"(?P<label_smoothing>{N}) .*"),
    ("inception", "inception_v3", IMAGENET, "lr", f"(?P<lr>{N}), x(?P<gamma>{N}) every (?P<every>{N}) epochs"),
    ("inception", "inception_v3", IMAGENET, "optimizer", f"RMSProp decay (?P<rho>{N}), epsilon (?P<eps>{N}) .*"),
    ("resnet", "resnet", IMAGENET, "batch", f"(?P<batch>{N})"),
    ("resnet", "resnet", IMAGENET, "optimizer", f"SGD momentum (?P<momentum>{N})"),
    ("resnet", "resnet", IMAGENET, "lr", f"(?P<lr>{N}), /10 on plateau"),
    ("resnet", "resnet", IMAGENET, "weight_decay", f"(?P<weight_decay>{N})"),
    ("resnet_cifar", "resnet", "CIFAR-10", "batch", f"(?P<batch>{N}) .*"),
    ("resnet_cifar", "resnet", "CIFAR-10", "lr", f"(?P<lr>{N}), /10 at 32k and 48k, stop at 64k; .*"),
    ("resnet_cifar", "resnet", "CIFAR-10", "weight_decay", f"(?P<weight_decay>{N})"),
    ("resnet110_cifar", "resnet", "CIFAR-10", "batch", f"(?P<batch>{N}) .*"),
    ("resnet110_cifar", "resnet", "CIFAR-10", "weight_decay", f"(?P<weight_decay>{N})"),
    ("resnet110_cifar", "resnet", "CIFAR-10", "lr", f"(?P<lr>{N}), .* ResNet-110: (?P<warmup_lr>{N}) warm-up .*400.*"),
    ("preact_resnet_cifar", "preact_resnet", "CIFAR", "batch", f"(?P<batch>{N}) on 2 GPUs .*"),
    ("preact_resnet_cifar", "preact_resnet", "CIFAR", "weight_decay", f"(?P<weight_decay>{N})"),
    ("preact_resnet_cifar", "preact_resnet", "CIFAR", "momentum", f"(?P<momentum>{N})"),
    ("preact_resnet_cifar", "preact_resnet", "CIFAR", "lr", f"(?P<lr>{N}), .*warm-up (?P<warmup_lr>{N}) for 400 .*"),
    ("densenet", "densenet", IMAGENET, "batch", f"(?P<batch>{N})"),
    ("densenet", "densenet", IMAGENET, "epochs", f"(?P<epochs>{N}), lr (?P<lr>{N}), /10 at (?P<every>{N}) and 60"),
    ("densenet", "densenet", "all", "weight_decay", f"(?P<weight_decay>{N})"),
    ("densenet_cifar", "densenet", "CIFAR/SVHN", "batch", f"(?P<batch>{N})"),
    ("densenet_cifar", "densenet", "CIFAR/SVHN", "optimizer", f"SGD Nesterov momentum (?P<momentum>{N}), dampening 0"),
    ("densenet_cifar", "densenet", "CIFAR", "epochs", f"(?P<epochs>{N}), lr (?P<lr>{N}), /10 at 50% and 75%"),
    ("densenet_cifar", "densenet", "all", "weight_decay", f"(?P<weight_decay>{N})"),
    ("senet", "senet", IMAGENET, "batch", f"(?P<batch>{N})"),
    ("senet", "senet", IMAGENET, "optimizer", f"synchronous SGD momentum (?P<momentum>{N})"),
    ("senet", "senet", IMAGENET, "lr", f"(?P<lr>{N}), /10 every (?P<every>{N}) epochs, (?P<epochs>{N}) epochs"),
    ("mobilenet_v2", "mobilenetv2", IMAGENET, "batch", f"(?P<batch>{N}), 16 async GPU workers"),
    ("mobilenet_v2", "mobilenetv2", IMAGENET, "lr", f"(?P<lr>{N}), x(?P<gamma>{N}) per epoch"),
    ("mobilenet_v2", "mobilenetv2", IMAGENET, "weight_decay", f"(?P<weight_decay>{N})"),
    ("mobilenet_v2", "mobilenetv2", IMAGENET, "optimizer", f"RMSProp decay (?P<rho>{N}) momentum (?P<momentum>{N})"),
    ("shufflenet", "shufflenet", IMAGENET, "batch", f"(?P<batch>{N}) .*"),
    ("shufflenet", "shufflenet", IMAGENET, "lr", f"linear decay (?P<lr>{N}) -> 0"),
    ("shufflenet", "shufflenet", IMAGENET, "weight_decay", f"(?P<weight_decay>{N})"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "paper", "data", "quantity", "pattern"), SETTINGS, ids=lambda value: value[:20])
def test_numbers_are_those_that_the_paper_prints(name, paper, data, quantity, pattern):
    with (PAPERS / paper / "figures.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["convention"] == "setting" and row["dataset"] == data]
    found = [re.fullmatch(pattern, row["printed"]) for row in rows if row["quantity"] == f"hparam:{quantity}"]
    (match,) = filter(None, found)
    recipe = Recipe.load(name)
    for field, number in match.groupdict().items():
        assert getattr(recipe, field) == float(number), field


def test_every_recipe_of_a_paper_is_held_against_it():
    by_others = {"mobilenet_v1"}  # whose paper prints no number
    assert {name for name, *_ in SETTINGS} == set(builtin()) - OURS - by_others


def test_bn_inceptions_rate_is_that_of_its_best_network():
    with (PAPERS / "bn_inception" / "figures.csv").open(newline="") as file:
        rates = {row["network"]: row["printed"] for row in csv.DictReader(file) if row["quantity"] == "hparam:lr"}
    assert Recipe.load("bn_inception").lr == float(rates["BN-x30"])


def test_what_is_no_number():
    """The form of the update, what is decayed, and how the rate falls."""
    recipes = {name: Recipe.load(name) for name in builtin()}
    assert recipes["alexnet"].optimizer == "sgd_caffe"
    assert {n for n, r in recipes.items() if r.optimizer == "rmsprop_tf"} == {
        "inception",
        "mobilenet_v1",
        "mobilenet_v2",
    }
    assert {n for n, r in recipes.items() if not r.decay_depthwise} == {"mobilenet_v1"}
    assert {n for n, r in recipes.items() if r.schedule == "plateau"} == {"alexnet", "vgg", "resnet"}
    assert {n for n, r in recipes.items() if r.warmup_lr} == {"resnet110_cifar", "preact_resnet_cifar"}
    assert {n for n, r in recipes.items() if r.polyak} == {"googlenet"}
    assert all(recipes[name].warmup == 0 for name in recipes if name not in OURS and not recipes[name].warmup_lr)
    assert recipes["mobilenet_v1"].label_smoothing == 0


@pytest.mark.parametrize("name", builtin())
def test_heads_say_what_it_is_for_and_where_it_is_from(name):
    head = about(name)
    patterns = head["Networks"].split(", ")
    matched = [[network for network in list_networks() if fnmatch.fnmatch(network, p)] for p in patterns]
    assert all(matched), [p for p, found in zip(patterns, matched, strict=True) if not found]
    if name in OURS:
        assert head["Source"] == "ours"
    else:
        assert head["Source"].split(",")[0] == spec(matched[0][0]).paper
        assert list(head) == ["Title", "Networks", "Source", "Result", "Open", "Differs", "Evidence"]
    recorded = re.match(r"results/\w+\.json", head["Evidence"])
    assert head["Evidence"].startswith("none yet") or (ROOT / recorded[0]).exists()


@pytest.mark.parametrize("name", [name for name in builtin() if "GPU days" in about(name)["Evidence"]])
def test_the_time_it_needs_is_computed(name):
    """6 x MACs operations an image, forward and backward, of the first network at 50 TFLOP/s, on ImageNet."""
    head = about(name)
    _, macs = counted(spec(head["Networks"].split(", ")[0]))
    days = 6 * macs * 1_281_167 * Recipe.load(name).epochs / 50e12 / 86_400
    assert re.search(r"about (\S+) GPU days", head["Evidence"])[1] == f"{days:.1g}"


def test_every_family_has_one():
    given = [pattern for name in set(builtin()) - OURS for pattern in about(name)["Networks"].split(", ")]
    named = {type(spec(network)) for p in given for network in list_networks() if fnmatch.fnmatch(network, p)}
    assert named == {type(spec(network)) for network in list_networks()}
