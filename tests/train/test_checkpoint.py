"""A state comes back bit by bit, damage is noticed and passed over, and nothing that is not finite is kept."""

import os
import re
import resource

import pytest
import torch

from convatlas.errors import DivergedError, ResourceError, WeightsError
from convatlas.train import checkpoint
from convatlas.train.checkpoint import Saver, State, restore, save, saved
from convatlas.train.loop import begin
from convatlas.train.run import Run
from convatlas.train.step import learn
from convatlas.train.task import Machine
from convatlas.weights import read_tensors, store, write_tensors

from tiny import RECIPE, Tiny, images, same, splits, task

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


# --- C4, C5: damage ---


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
        assert note.endswith("; it is passed over")
        assert other.step == 1
        assert same(everything(other), older)
        assert names(tmp_path) == ["checkpoint-00000001.safetensors", "checkpoint-00000002.damaged"]
        assert newest.with_suffix(".damaged").read_bytes() == damage


def test_if_all_are_damaged_training_begins_again_and_its_states_are_kept(tmp_path):
    s = state()
    for number in (200, 300):
        s.step = number
        save(s, tmp_path)
    for path in saved(tmp_path):
        path.write_bytes(b"")
    other = state(seed=1)
    before = everything(other)
    assert len(restore(other, tmp_path)) == 2
    assert other.step == 0
    assert same(everything(other), before)
    for number in (100, 150):  # below those that were damaged
        other.step = number
        save(other, tmp_path)
    assert [path.stem[-3:] for path in saved(tmp_path)] == ["150", "100"]


def test_one_that_several_processes_pass_over_is_passed_over_by_all(tmp_path):
    s = state()
    step(s, 0)
    save(s, tmp_path)
    damaged = tmp_path / "checkpoint-00000002.safetensors"
    damaged.write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        listed = saved(tmp_path)
        patch.setattr(checkpoint, "saved", lambda folder: listed)
        for seed in (1, 2):
            other = state(seed=seed)
            assert len(restore(other, tmp_path)) == 1
            assert other.step == 1


# --- C8, C10: other networks, formats, machines ---


def test_the_state_of_another_network_is_refused_and_nothing_is_loaded(tmp_path):  # C8
    s = state()
    step(s, 0)
    save(s, tmp_path)
    other = begin(task(RECIPE, Tiny(aux=True, classes=5), data=splits(classes=5)), Machine())
    before = everything(other)
    with pytest.raises(WeightsError, match=r"C8.*checkpoint-00000001.* of another network: .*fc.bias \(3,\) -> \(5,\)"):
        restore(other, tmp_path)
    assert same(everything(other), before)


def test_a_newer_format_is_refused_and_left_where_it_is(tmp_path, monkeypatch):  # C10
    s = state()
    save(s, tmp_path)
    with monkeypatch.context() as newer:
        newer.setattr(store, "FORMAT", store.FORMAT + 1)
        s.step = 1
        save(s, tmp_path)
    with pytest.raises(WeightsError, match=r"C10.*has format 2, newer than 1. Remedy: update convatlas"):
        restore(state(), tmp_path)
    assert len(saved(tmp_path)) == 2


def test_a_resume_elsewhere_says_that_it_is_not_bitwise_and_remembers_it(tmp_path, monkeypatch):  # C10
    s = state()
    s.step = 7
    save(s, tmp_path)
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    monkeypatch.setattr(checkpoint.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(checkpoint.distributed, "get_world_size", lambda: 4)
    other = state()
    (note,) = restore(other, tmp_path)
    assert note.startswith("resume is not bitwise: ")
    assert f"torch {store.torch.version.__version__!r} -> '9.9.0'" in note
    assert "processes 1 -> 4" in note
    assert note.endswith(" at step 7")
    assert other.notes == [note]
    save(other, tmp_path)
    again = state()
    assert restore(again, tmp_path) == []  # nothing has changed since
    assert again.notes == [note]


def test_a_checkpoint_that_does_not_say_where_it_was_made_is_loaded_with_a_note(tmp_path):
    s = state()
    step(s, 0)
    tensors, record = read_tensors(save(s, tmp_path))
    del record["platform"], record["notes"]
    write_tensors(saved(tmp_path)[0], tensors, record)
    other = state(seed=1)
    assert restore(other, tmp_path)[0].startswith("resume is not bitwise: ")
    assert same(everything(other), everything(s))


# --- T1 ---


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


# --- C2: Saver ---


def saver_at(step: int, folder) -> tuple[Saver, State]:
    """A saver that has saved the state at that step, and the state."""
    saver, s = Saver(Run(folder)), state()
    s.step = step
    saver.save(s)
    return saver, s


def test_a_save_writes_best_weights_log_and_state(tmp_path):
    saver, s = saver_at(1, tmp_path)
    assert names(tmp_path) == ["checkpoint-00000001.safetensors", "log.csv", "log.jsonl"]
    kept = {name: t.clone() for name, t in s.evaluated.state_dict().items()}
    saver.keep(s.evaluated.state_dict(), {"epoch": 1})
    assert not (tmp_path / "best.safetensors").exists()
    step(s, 0)
    saver.save(s)
    tensors, record = read_tensors(tmp_path / "best.safetensors")
    assert same(tensors, kept)
    assert not same(tensors, s.evaluated.state_dict())
    assert record["epoch"] == 1
    before = (tmp_path / "best.safetensors").stat().st_mtime_ns
    saver.save(s)
    assert (tmp_path / "best.safetensors").stat().st_mtime_ns == before


def test_one_failure_is_a_warning_and_nothing_is_lost(tmp_path, fault):
    saver, s = saver_at(1, tmp_path)
    kept = {name: t.clone() for name, t in s.evaluated.state_dict().items()}
    saver.keep(kept, {"epoch": 1})
    for number in (2, 3, 4):  # failures that are not in a row
        fault("ENOSPC@write:1")
        s.step = number
        with pytest.warns(RuntimeWarning) as caught:
            saver.save(s)
        (warning,) = caught
        newest = tmp_path / f"checkpoint-{number - 1:08}.safetensors"
        assert "No space left on device (needs " in str(warning.message)
        assert f"Training state up to step {number - 1} is in {newest}; training goes on" in str(warning.message)
        saver.save(s)
        assert saved(tmp_path)[0].name == f"checkpoint-{number:08}.safetensors"
    assert same(read_tensors(tmp_path / "best.safetensors")[0], kept)


@pytest.mark.parametrize("write", [1, 2, 3])
def test_the_second_failure_in_a_row_names_the_newest_state(tmp_path, fault, write):
    saver, s = saver_at(1, tmp_path)
    fault(f"ENOSPC@fsync:{write}+")
    s.step = 2
    with pytest.warns(RuntimeWarning, match="training goes on"):
        saver.save(s)
    s.step = 3
    with pytest.raises(ResourceError) as caught:
        saver.save(s)
    assert caught.value.exit_code == 6
    assert re.fullmatch(
        rf"error\[C2\]: cannot write {tmp_path}/\S+: No space left on device \(needs \S+ MB, free \S+ MB\)\. "
        rf"Training state up to step 1 is in {tmp_path}/checkpoint-00000001\.safetensors\. "
        r"Remedy: free space, then run the same command again",
        str(caught.value),
    )
    other = state(seed=1)
    assert restore(other, tmp_path) == []
    assert other.step == 1


def test_the_last_save_may_not_fail_and_without_a_state_it_says_so(tmp_path, fault):
    fault("EACCES@open:1+")
    with pytest.raises(ResourceError, match=r"log.csv: Permission denied. No state of training is saved. Remedy"):
        Saver(Run(tmp_path)).save(state(), last=True)


def test_what_is_not_finite_is_no_failure_to_write(tmp_path):
    saver, s = saver_at(1, tmp_path)
    next(s.net.parameters()).data[:] = float("nan")
    with pytest.raises(DivergedError):
        saver.save(s)


def test_a_file_size_limit_is_a_full_disk(tmp_path):
    saver, s = saver_at(1, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        s.step = 2
        with pytest.warns(RuntimeWarning, match=r"File too large.* up to step 1"):
            saver.save(s)
        with pytest.raises(ResourceError, match=r"File too large.* up to step 1"):
            saver.save(s)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["checkpoint-00000001.safetensors", "log.csv", "log.jsonl"]
    assert restore(s, tmp_path) == []
