"""From images on disk to a measured network: what is chosen, what is refused, and measuring it again."""

import json

import pytest
import torch
from PIL import Image

from convatlas.deploy import of_bundle, predict_files
from convatlas.errors import ConfigError
from convatlas.train.fit import fit, pick_device, plan
from convatlas.train.measure import measure
from convatlas.train.run import Run, png
from convatlas.weights import Bundle

from tiny import Notes, images

QUICK = {"epochs": 1, "batch": 32, "warmup": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, pictures = tmp_path_factory.mktemp("pictures"), images(60, 0)
    for index in range(len(pictures)):
        pixels, label = pictures[index]
        path = root / pictures.classes[label] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(pixels))
    return root


def test_what_is_not_given_is_chosen(folder):
    chosen = plan(folder)
    arch = chosen.task.arch
    assert (arch.name, arch.size, arch.classes) == ("resnet20", 16, 3)
    assert chosen.recipe_name == "small"
    assert chosen.source == str(folder.resolve())
    given = plan(folder, network="resnet32", size=20, recipe="digits", overrides={"lr": 0.5}, seed=3).task
    assert (given.arch.name, given.arch.size, given.recipe.lr, given.seed) == ("resnet32", 20, 0.5, 3)
    assert given.recipe.batch == 64


@pytest.mark.parametrize(
    ("given", "id"),
    [({"network": "resnet21"}, "L2"), ({"recipe": "none"}, "L7"), ({"overrides": {"lr": -1}}, "L2"),
     ({"network": "vgg16", "size": 8}, "L2")],
    ids=["network", "recipe", "override", "size"],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(folder, given, id):
    with pytest.raises(ConfigError) as caught:
        plan(folder, **given)
    assert caught.value.id == id


@pytest.mark.parametrize(("size", "side"), [(None, 550), (300, 1100)])
def test_large_photos_keep_what_the_input_needs_in_training_measuring_and_prediction(tmp_path, size, side):
    for number in range(20):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((1200, 1100), 90).save(path)
    planned = plan(tmp_path / "photos", network="resnet18", size=size)
    splits, pre = planned.task.splits, planned.task.pre
    assert {splits.train.read(i).shape[1] for i in range(3)} == {side}
    bundle = Bundle(planned.task.arch, planned.task.arch.build().state_dict(), classes=splits.classes, preprocess=pre)
    bundle, found, _ = measure(bundle.save(tmp_path / "a.safetensors"), tmp_path / "photos")
    paths = [tmp_path / "photos" / name for name in found.names]
    predicted = [dict(row.top)["a"] for row in predict_files(of_bundle(bundle), paths)]
    assert predicted == pytest.approx(found.logits.softmax(1)[:, 0].tolist(), abs=1e-5)  # folded norms round otherwise


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"error\[L5\]: there is no device 'cuda'"):
        pick_device("cuda")
    assert pick_device(None) == "cpu"


def test_a_run_is_trained_once_measured_and_measured_again(tmp_path, folder):
    planned, notes = plan(folder, overrides=QUICK), Notes()
    result = fit(planned, Run(tmp_path), notes, command="train")
    assert len(notes.steps) == 2
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["images"] == {"train": 42, "val": 9, "test": 9}
    again = Notes()
    assert fit(planned, Run(tmp_path), again) == result
    assert again.begun == []
    _, predictions, how = measure(tmp_path, device="cpu")
    assert predictions.metrics() == result["test"]
    assert predictions.names == tuple(json.loads((tmp_path / "split.json").read_text())["test"])
    assert how == result["how"]
    _, predictions, _ = measure(tmp_path / "model.safetensors", part="train", device="cpu")
    assert len(predictions.labels) == 42


def test_the_same_folder_for_another_run_is_refused(tmp_path, folder):
    fit(plan(folder, overrides=QUICK), Run(tmp_path), Notes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(ConfigError, match=r"error\[L4\].*recipe.lr 0.0125 -> 0.3"):
        fit(plan(folder, overrides=QUICK | {"lr": 0.3}), Run(tmp_path), Notes())
    with pytest.raises(ConfigError, match=r"error\[L4\].*seed 0 -> 1.*"):
        fit(plan(folder, overrides=QUICK, seed=1), Run(tmp_path), Notes())
    with pytest.raises(ConfigError, match=r"error\[L4\].*split "):
        fit(plan(folder, overrides=QUICK, split_seed=1), Run(tmp_path), Notes())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"} == before


def test_a_bundle_alone_has_nothing_to_be_measured_on(tmp_path, folder):
    fit(plan(folder, overrides=QUICK), Run(tmp_path / "run"), Notes())
    alone = (tmp_path / "run/model.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(ConfigError, match="--data"):
        measure(alone)
    _, predictions, _ = measure(alone, folder, device="cpu")
    assert len(predictions.labels) == 9
