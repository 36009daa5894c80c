"""A state comes back bit by bit, damage is noticed and passed over, and nothing that is not finite is kept."""

import os

import pytest
import torch

from convatlas.errors import DivergedError, ResourceError
from convatlas.train import checkpoint
from convatlas.train.checkpoint import State, restore, save, saved
from convatlas.train.loop import begin
from convatlas.train.step import learn
from convatlas.train.task import Machine

from tiny import RECIPE, Tiny, images, same, task

OPTIMIZERS = ("sgd", "adamw", "rmsprop_tf")


def state(seed=0, **recipe) -> State:
    return begin(task(RECIPE.replaced(**recipe), Tiny(aux=True), seed=seed), Machine())


def step(s: State, seed: int, **recipe) -> None:
    data = images(8, seed)
    pixels = torch.stack([data.read(i) for i in range(8)])
    torch.manual_seed(seed)
    assert learn(s, task(RECIPE.replaced(**recipe), Tiny(aux=True)), Machine(), pixels, data.labels, 0.05, 8)
    s.step += 1


def everything(s: State) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in checkpoint.tensors_of(s).items()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_everything_comes_back_and_goes_on_bitwise_alike(tmp_path, optimizer, ema):
    recipe = {"optimizer": optimizer, "ema": ema, "clip": 1.0}
    s = state(**recipe)
    for seed in range(3):
        step(s, seed, **recipe)
    s.history, s.best, s.seconds = [{"epoch": 1, "val_loss": 0.1}], {"epoch": 1, "val_loss": 0.1}, 1.5
    save(s, tmp_path)
    other = state(seed=1, **recipe)
    assert not same(everything(other), everything(s))
    assert restore(other, tmp_path) == []
    assert same(everything(other), everything(s))
    for name in ("step", "sums", "history", "best", "seconds"):
        assert getattr(other, name) == getattr(s, name)
    assert other.sums["seen"] == 24
    before = everything(s)
    for both in (s, other):
        step(both, 7, **recipe)
    assert same(everything(other), everything(s))
    assert not same(everything(s), before)
    kinds = {name.split(".")[0] for name in before}
    assert kinds == {"net", "optimizer"} | ({"average"} if ema else set())


def test_sgd_without_momentum_and_a_state_before_the_first_step_come_back_too(tmp_path):
    s = state(momentum=0)
    save(s, tmp_path)
    other = state(seed=1, momentum=0)
    restore(other, tmp_path)
    assert same(everything(other), everything(s))


def test_the_scaler_comes_back(tmp_path):
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**k) for k in (10, 3)]
    s, other = state(), state()
    s.scaler, other.scaler = scalers
    step(s, 0)
    save(s, tmp_path)
    restore(other, tmp_path)
    assert other.scaler.get_scale() == s.scaler.get_scale() == 2.0**10


def test_an_empty_or_missing_folder_restores_nothing(tmp_path):
    s = state()
    before = everything(s)
    assert restore(s, tmp_path) == restore(s, tmp_path / "none") == []
    assert s.step == 0
    assert same(everything(s), before)


def test_only_the_newest_two_are_kept_by_step_not_by_time(tmp_path):
    s = state()
    for number in (9, 10, 100, 99_999_999):
        s.step = number
        save(s, tmp_path)
    assert names(tmp_path) == ["checkpoint-00000100.safetensors", "checkpoint-99999999.safetensors"]
    os.utime(saved(tmp_path)[0], (0, 0))
    other = state()
    restore(other, tmp_path)
    assert other.step == 99_999_999


def test_a_damaged_newest_one_is_passed_over_with_a_note(tmp_path):
    s = state()
    step(s, 0)
    save(s, tmp_path)
    older = everything(s)
    step(s, 1)
    newest = save(s, tmp_path)
    content = newest.read_bytes()
    for damage in (content[:-100], b"", bytes(len(content)), content[:-1] + bytes([content[-1] ^ 1])):
        newest.write_bytes(damage)
        other = state(seed=1)
        (note,) = restore(other, tmp_path)
        assert str(newest) in note
        assert other.step == 1
        assert same(everything(other), older)


def test_if_all_are_damaged_training_begins_again(tmp_path):
    s = state()
    for seed in range(2):
        step(s, seed)
        save(s, tmp_path)
    for path in saved(tmp_path):
        path.write_bytes(b"")
    other = state(seed=1)
    before = everything(other)
    assert len(restore(other, tmp_path)) == 2
    assert other.step == 0
    assert same(everything(other), before)


@pytest.mark.parametrize("where", ["net", "average", "optimizer"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_by_name(tmp_path, where, value):
    s = state(optimizer="adamw")
    step(s, 0, optimizer="adamw")
    save(s, tmp_path)
    s.step = 5
    name, tensor = next((n, t) for n, t in checkpoint.tensors_of(s).items() if n.startswith(where) and t.dim() == 4)
    tensor[0, 0, 0, 0] = value
    with pytest.raises(DivergedError) as caught:
        save(s, tmp_path)
    assert caught.value.exit_code == 5
    assert f"{name} is no longer finite at step 5" in caught.value.what
    assert names(tmp_path) == ["checkpoint-00000001.safetensors"]


def test_a_folder_that_cannot_be_written_leaves_the_older_ones(tmp_path):
    s = state()
    save(s, tmp_path)
    (tmp_path / "checkpoint-00000001.safetensors").mkdir()
    s.step = 1
    with pytest.raises(ResourceError, match="cannot write"):
        save(s, tmp_path)
    assert (tmp_path / "checkpoint-00000000.safetensors").is_file()
