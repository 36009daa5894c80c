"""Starting from trained weights: what is kept, what is new, what stays fixed, and what is refused."""

from dataclasses import replace

import pytest
import torch
import torchvision

from convatlas.errors import ConfigError, WeightsError
from convatlas.train.fit import described, fit, plan
from convatlas.train.loop import train
from convatlas.train.pretrained import open_pretrained, start
from convatlas.train.run import Run, png
from convatlas.train.task import Machine

from tiny import PRE, RECIPE, Notes, Tiny, images, same, splits, task

TUNE = RECIPE.replaced(epochs=1, backbone_lr=0.1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bundle of Tiny with two auxiliary heads, trained on classes a, b and c, and its file."""
    folder = tmp_path_factory.mktemp("trained")
    bundle, _, _ = train(task(arch=Tiny(aux=True)), Run(folder), Notes())
    return bundle, folder / "model.safetensors"


def renamed(*classes: str):
    """The usual images under other class names."""
    data = splits()
    parts = {part: replace(getattr(data, part), classes=classes) for part in ("train", "val", "test")}
    return replace(data, **parts)


def started(bundle, data, **recipe):
    arch = replace(bundle.spec, classes=len(data.classes))
    return start(task(TUNE.replaced(**recipe), arch, data, pretrained=bundle))


def test_other_classes_get_a_new_head_and_nothing_else_changes(trained):
    bundle, _ = trained
    net = started(bundle, renamed("x", "y", "z")).state_dict()
    new = {name for name in net if not torch.equal(net[name], bundle.weights[name])}
    assert new == {f"{head}.fc.{p}" for head in ("head", "aux.stem", "aux.body") for p in ("weight", "bias")}


def test_known_classes_keep_their_outputs_by_name(trained):
    bundle, _ = trained
    pixels = torch.randn(4, 3, 12, 12)
    before, side = bundle.build()(pixels, aux=True)
    after, turned = started(bundle, renamed("c", "a", "b")).eval()(pixels, aux=True)
    assert torch.equal(after, before[:, [2, 0, 1]])
    assert all(torch.equal(turned[part], side[part][:, [2, 0, 1]]) for part in side)
    fewer = started(bundle, renamed("b", "a")).eval()(pixels)
    assert torch.equal(fewer, before[:, [1, 0]])


def test_what_is_frozen_stays_to_the_last_bit_and_the_rest_learns(tmp_path, trained):
    bundle, _ = trained
    recipe = TUNE.replaced(freeze="stem", weight_decay=0.1)
    job = task(recipe, bundle.spec, pretrained=bundle)
    tuned, _, _ = train(job, Run(tmp_path), Notes())
    moved = {name: not torch.equal(t, bundle.weights[name]) for name, t in tuned.weights.items()}
    assert any(name.startswith("stem.") and "running_mean" in name for name in moved)
    assert {name for name in moved if not moved[name]} >= {name for name in moved if name.startswith("stem.")}
    assert all(moved[name] for name in moved if name.startswith(("body.", "head.fc", "aux.stem.fc")))


def test_layers_behind_the_head_learn_at_a_fraction_of_its_rate(tmp_path, trained):
    bundle, _ = trained
    job = task(TUNE.replaced(backbone_lr=0.0, ema=0, weight_decay=0), bundle.spec, pretrained=bundle)
    _, _, state = train(job, Run(tmp_path), Notes())
    net = dict(state.net.named_parameters())
    moved = {name for name in net if not torch.equal(net[name].cpu(), bundle.weights[name])}
    assert moved == {name for name in net if name.startswith(("head.", "aux."))}


def test_a_stopped_run_goes_on_alike(tmp_path, trained):
    bundle, _ = trained
    job = task(TUNE.replaced(freeze="stem"), bundle.spec, pretrained=bundle)
    whole, _, _ = train(job, Run(tmp_path / "whole"), Notes())

    class StoppedError(Exception):
        pass

    def stop(state):
        if state.step == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(job, Run(tmp_path / "parts"), Notes(stop), Machine(save_every=0))
    notes = Notes()
    parts, _, _ = train(job, Run(tmp_path / "parts"), notes, Machine(save_every=0))
    assert notes.begun[0][0] == 2
    assert same(whole.weights, parts.weights)


def test_nothing_untrained_is_frozen():
    with pytest.raises(ConfigError, match=r"error\[L4\].*freezes stem.*--pretrained"):
        start(task(RECIPE.replaced(freeze="stem")))


def test_a_module_that_is_not_there_is_refused_with_the_nearest(trained):
    with pytest.raises(ConfigError, match=r"stage1.*names look like"):
        started(trained[0], splits(), freeze="stage1")


def test_the_run_is_another_if_the_weights_are(trained):
    bundle, _ = trained
    spoilt = {name: t.clone() for name, t in bundle.weights.items()}
    spoilt["head.fc.bias"][0] += 1e-7
    same_one, other = (task(pretrained=b) for b in (bundle, replace(bundle, weights=spoilt)))
    assert described(task(pretrained=bundle), {}) == described(same_one, {})
    assert described(same_one, {}) != described(other, {}) != described(task(), {})


# --- where they come from ---


def test_a_bundle_is_opened_by_its_file_or_its_runs_folder(trained):
    bundle, file = trained
    for source in (file, file.parent):
        assert same(open_pretrained(str(source)).weights, bundle.weights)
    with pytest.raises(WeightsError, match="holds tiny, not resnet20"):
        open_pretrained(str(file), "resnet20")


def test_a_damaged_bundle_is_not_taken_for_weights_by_others(tmp_path, trained):
    content = bytearray(trained[1].read_bytes())
    content[-5] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"error\[C4\].*checksum"):
        open_pretrained(str(tmp_path / "model.safetensors"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root, found = tmp_path_factory.mktemp("pictures"), images(18, 0)
    for index in range(len(found)):
        path = root / found.classes[int(found.labels[index])] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(found.read(index)))
    return root


def test_torchvisions_weights_are_tuned_on_a_folder(tmp_path, pictures):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().state_dict()
    torch.save(theirs, tmp_path / "resnet18.pth")
    planned = plan(pictures, pretrained=str(tmp_path / "resnet18.pth"), network="resnet18.b", size=64,
                   overrides={"epochs": 1, "batch": 6, "lr": 0.01, "freeze": "stem stage*"})  # fmt: skip
    assert planned.recipe_name == "finetune"
    assert (planned.task.arch.name, planned.task.arch.classes, planned.task.pre.size) == ("resnet18.b", 3, 64)
    assert planned.task.pre.mean == (0.485, 0.456, 0.406)
    assert "its head is new" in planned.why
    result = fit(planned, Run(tmp_path / "run"))
    assert result["test"]["top5"] == 1.0  # of three classes
    tuned = open_pretrained(str(tmp_path / "run"))
    kept = sum(any(torch.equal(t, other) for other in theirs.values()) for t in tuned.weights.values())
    assert kept >= len(tuned.weights) - 2  # all but the head's weight and bias


def test_pretrained_preprocessing_keeps_its_crop():
    pre = replace(PRE, size=224, resize=256)
    assert (pre.for_size(96).size, pre.for_size(96).resize) == (96, 110)
