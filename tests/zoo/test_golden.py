"""Every network is what its golden file says, and what else its fixed weights show."""

import json

import pytest
import torch

from convatlas.tree import fold_batch_norm
from convatlas.zoo import list_networks

from forms import every_form
from golden import FOLDER, card, fixed, logits, path

REGENERATE = "if that is meant: make golden"


def golden_of(name: str) -> dict:
    assert path(name).exists(), f"{name} has no golden file; {REGENERATE}"
    return json.loads(path(name).read_text())


@pytest.mark.parametrize("name", list_networks())
def test_network_is_as_its_golden_file(name):
    golden, now = golden_of(name), json.loads(json.dumps(card(name, {})))
    del golden["logits"], now["logits"]
    assert changes(golden, now) == [], REGENERATE


@torch.no_grad()
@every_form
def test_computes_what_its_golden_file_says_twice_alike_and_folds(name):
    net, batch = fixed(name)
    found, expected = logits(net, batch), golden_of(name)["logits"]
    assert found.keys() == expected.keys()
    for head, values in found.items():
        assert values == pytest.approx(expected[head], rel=1e-6, abs=1e-6), f"{head} computes otherwise; {REGENERATE}"
    before = net(batch[:1])  # of one image, in eval mode
    assert torch.equal(net(batch[:1]), before)
    tolerance = min(1e-4, 1e-6 * before.abs().max())  # in double precision; plain110 makes 1e-8 of its 1e-16
    assert (fold_batch_norm(net)(batch[:1]) - before).abs().max() <= tolerance


def changes(golden: dict, now: dict) -> list[str]:
    """One line for each entry that differs."""
    lines = []
    for section in golden | now:
        before, after = golden.get(section, {}), now.get(section, {})
        lines += [
            f"{section}: {key} was {before.get(key, 'absent')}, is {after.get(key, 'absent')}"
            for key in before | after
            if before.get(key) != after.get(key)
        ]
    return lines


def test_changes_are_named():
    golden = {"counts": {"macs": 1}, "tensors": {"a": "(3,)", "b": "(4,)"}}
    now = {"counts": {"macs": 2}, "tensors": {"a": "(3,)", "c": "(4,)"}}
    assert changes(golden, golden) == []
    assert changes(golden, now) == [
        "counts: macs was 1, is 2",
        "tensors: b was (4,), is absent",
        "tensors: c was absent, is (4,)",
    ]


def test_no_golden_file_is_left_over():
    assert {file.stem for file in FOLDER.glob("*.json")} == set(list_networks())
