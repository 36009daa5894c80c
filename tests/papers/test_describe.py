"""What `describe` tells of a network."""

import json

import pytest
import torch

from convatlas.errors import ConfigError
from convatlas.papers import describe
from convatlas.papers.built import built
from convatlas.zoo import list_networks, spec


@pytest.mark.parametrize("name", list_networks())
def test_every_network_has_a_paper_and_a_remark(name):
    description = describe(name)
    assert description.spec == spec(name)
    assert description.paper.link.startswith("https://")
    assert description.remarks
    assert {finding.arch for finding in description.findings} <= {name}


def test_to_dict_is_json_and_adds_up():
    record = json.loads(json.dumps(describe("resnet50").to_dict()))
    assert {"name", "paper", "params", "macs", "input_size", "receptive_field", "layers"} <= record.keys()
    assert record["paper"]["link"] == "https://arxiv.org/abs/1512.03385"
    assert (record["name"], record["params"], record["input_size"]) == ("resnet50", 25_557_032, 224)
    assert sum(row["macs"] for row in record["layers"]) == record["macs"] == 3_857_973_248
    assert sum(row["params"] for row in record["layers"]) == record["params"]


@pytest.mark.parametrize(("name", "pixels"), [("resnet50", 483), ("resnet50.v1_5", 427), ("vgg16", 212)])
def test_receptive_field_of_the_last_map(name, pixels):
    assert describe(name).receptive_field == (pixels, pixels)


def test_published_errors_and_settings_are_told():
    description = describe("resnet34")
    errors = {(f.quantity, f.printed) for f in description.findings if f.verdict == "reported"}
    assert ("top1_error", "25.03") in errors
    assert ("hparam:batch", "256") in {(f.quantity, f.printed) for f in description.settings}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("vgg16", "variance"),
        ("resnet50", "first 1x1"),
        ("resnet50.v1_5", "3x3"),
        ("resnet20", "zero channels"),
        ("resnet34", "shortcut B round to 3.7"),
    ],
)
def test_disagreements_are_told(name, word):
    assert any(word in remark.text for remark in describe(name).remarks)


def test_an_unknown_network_is_an_error_that_names_the_nearest():
    with pytest.raises(ConfigError, match="resnet50"):
        describe("resnet51")


def test_building_for_the_audit_allocates_nothing_and_leaves_the_random_state():
    before = torch.get_rng_state()
    net = built(spec("vgg19")).net
    assert {p.device.type for p in net.parameters()} == {"meta"}
    assert torch.equal(before, torch.get_rng_state())
    assert torch.nn.Linear(8, 8).weight.std() > 0  # initialisation works again
