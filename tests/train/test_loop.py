"""The training loop: its loss, its choice of weights, its edge cases, and that an interruption changes no bit."""

import json
import signal
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from convatlas.errors import ConfigError, DataError, DivergedError, StoppedError
from convatlas.train import checkpoint
from convatlas.train.checkpoint import State
from convatlas.train.evaluate import predict
from convatlas.train.loop import begin, keep, train
from convatlas.train.recipe import Recipe
from convatlas.train.run import Run
from convatlas.train.step import learn, precision
from convatlas.train.task import Machine
from convatlas.weights import Bundle, read_tensors

from tiny import PRE, RECIPE, Notes, Pictures, Tiny, images, same, splits, task

STEPS = 5  # an epoch of RECIPE has, on the 70 images of `splits()`


def fit(folder, recipe=RECIPE, arch=None, data=None, notes=None, seed=0, **machine):
    """A whole training run in `folder`."""
    return train(task(recipe, arch, data, seed=seed), Run(folder), notes or Notes(), Machine(**machine))


def outcome(folder) -> tuple[dict[str, torch.Tensor], dict[str, bytes]]:
    """Network, average and optimizer after the last step, and the files that must not differ."""
    tensors, _ = read_tensors(checkpoint.saved(folder)[0])
    kept = ("model.safetensors", "best.safetensors", "log.csv", "log.jsonl", "test.jsonl")
    return tensors, {name: (folder / name).read_bytes() for name in kept}


# --- loss ---


@pytest.mark.parametrize("aux_weight", [0.3, 0.0])
def test_auxiliary_heads_learn_as_much_as_they_weigh(tmp_path, aux_weight):
    recipe = RECIPE.replaced(aux_weight=aux_weight, weight_decay=0, ema=0)
    before = {name: t.clone() for name, t in begin(task(recipe, Tiny(aux=True)), Machine()).net.state_dict().items()}
    _, _, state = fit(tmp_path, recipe, Tiny(aux=True))
    after = state.net.state_dict()
    heads = [name for name in before if name.startswith("aux.")]
    assert len(heads) == 4
    for name in heads:
        assert torch.equal(before[name], after[name]) == (aux_weight == 0)


def test_auxiliary_heads_have_no_part_in_the_logits(tmp_path):
    bundle, found, _ = fit(tmp_path, arch=Tiny(aux=True))
    net, data = bundle.build(), splits().test
    with torch.no_grad():
        for p in net.aux.parameters():
            p.fill_(float("nan"))
    assert torch.equal(predict(net, PRE, data).logits, found.logits)


# --- learning and measuring ---


def test_training_learns_and_everything_is_left_in_the_folder(tmp_path):
    notes = Notes()
    bundle, found, state = fit(tmp_path, RECIPE.replaced(epochs=8), notes=notes)
    assert found.accuracy > 0.6  # chance is 1/3
    assert state.step == 8 * STEPS
    assert notes.begun == [(0, 8 * STEPS, [])]
    assert notes.steps == [(n + 1, 6 if n % STEPS == STEPS - 1 else 16) for n in range(8 * STEPS)]
    assert [row for row, _ in notes.rows] == state.history
    assert [row["epoch"] for row in state.history] == list(range(1, 9))
    ranks = [(row["val_accuracy"], -row["val_loss"]) for row in state.history]
    assert [best for _, best in notes.rows] == [rank > max(ranks[:n], default=(-1,)) for n, rank in enumerate(ranks)]
    assert {p.name for p in tmp_path.iterdir()} == {
        f"checkpoint-{7 * STEPS:08}.safetensors", f"checkpoint-{8 * STEPS:08}.safetensors", "best.safetensors",
        "model.safetensors", "log.csv", "log.jsonl", "test.jsonl", "mistakes", "samples",
    }  # fmt: skip
    loaded = Bundle.load(tmp_path / "model.safetensors")
    again = predict(loaded.build(), loaded.preprocess, splits().test)
    assert torch.equal(again.logits, found.logits)
    assert loaded.metrics["test"] == found.metrics() == bundle.metrics["test"]
    assert loaded.metrics["val"] == {"which": "last", **state.history[-1]}
    assert loaded.classes == ("a", "b", "c")
    assert loaded.recipe["epochs"] == 8


def test_the_log_holds_what_was_seen_in_training(tmp_path):
    data = splits(train=32)
    recipe = Recipe(epochs=1, batch=32, lr=0.0, warmup=0)
    _, _, state = fit(tmp_path, recipe, Tiny(dropout=0), data)
    net = begin(task(recipe, Tiny(dropout=0)), Machine()).net.train()
    with torch.no_grad():
        logits = net(PRE.normalize(torch.stack([data.train.read(i) for i in range(32)])))
    row = state.history[0]
    assert row["train_loss"] == pytest.approx(F.cross_entropy(logits, data.train.labels).item(), rel=1e-5)
    assert row["train_accuracy"] == (logits.argmax(1) == data.train.labels).float().mean().item()


def test_the_average_is_what_is_measured_and_kept(tmp_path):
    bundle, _, state = fit(tmp_path)
    assert state.average is not None
    assert same(bundle.weights, {n: t.contiguous() for n, t in state.average.module.state_dict().items()})
    assert not same(bundle.weights, dict(state.net.state_dict()))


def test_test_images_are_looked_at_once_after_training(tmp_path):
    data, early = splits(), []
    notes = Notes(lambda state: early.append(len(data.test.read.reads)))
    _, found, _ = fit(tmp_path, data=data, notes=notes)
    assert early == [0] * 3 * STEPS
    reads, mistakes = data.test.read.reads, sum(found.logits.argmax(1) != found.labels)
    assert reads[:30] == list(range(30))
    assert len(reads) == 30 + 8 + min(24, int(mistakes))  # for the pictures in samples and mistakes


# --- which weights are kept ---


def ended(best: float, last: float, images: int) -> str:
    rows = [{"epoch": n, "val_accuracy": a, "val_loss": 1.0} for n, a in enumerate((best, last), 1)]
    state = State(net=Tiny().build(), model=None, average=None, optimizer=None, scaler=None, history=rows, best=rows[0])
    which, row = keep(state, images)
    assert row is rows[0 if which == "best" else 1]
    return which


def test_the_last_weights_are_kept_unless_worse_by_more_than_chance():
    assert ended(0.91, 0.90, 100) == "last"  # one standard error is 0.03
    assert ended(0.925, 0.90, 100) == "last"
    assert ended(0.94, 0.90, 100) == "best"
    assert ended(0.91, 0.90, 10_000) == "best"
    assert ended(1.0, 0.99, 100) == "last"
    assert ended(1.0, 1.0, 3) == "last"
    assert ended(1.0, 0.0, 3) == "best"


def test_weights_that_were_clearly_better_come_back(tmp_path):
    def spoil(state):
        if state.step == 6 * STEPS:
            with torch.no_grad():
                state.average.module.get_parameter("head.fc.weight").neg_()

    bundle, found, state = fit(tmp_path, RECIPE.replaced(epochs=6), notes=Notes(spoil))
    assert bundle.metrics["val"]["which"] == "best"
    assert bundle.metrics["val"]["epoch"] == state.best["epoch"] < 6
    assert same(bundle.weights, read_tensors(tmp_path / "best.safetensors")[0])
    assert found.accuracy > 0.5
    assert state.history[-1]["val_accuracy"] < 0.2


# --- an interruption changes no bit (C1, T2) ---


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    fit(folder)
    return outcome(folder)


def interrupted(folder, stops, workers=(0,), number=signal.SIGTERM, **more) -> None:
    """Run, stopped by a signal after each of the steps, and go on with the next count of workers."""
    stops = list(stops)

    def stop(state):
        if stops and state.step == stops[0]:
            stops.pop(0)
            signal.raise_signal(number)

    for attempt in range(len(stops)):
        with pytest.raises(StoppedError) as caught:
            fit(folder, notes=Notes(stop), workers=workers[attempt % len(workers)], **more)
        assert caught.value.exit_code == 128 + number
        assert str(folder) in caught.value.what
    fit(folder, workers=workers[-1], **more)


@pytest.mark.parametrize(
    ("stops", "workers"),
    [([1], [0]), ([7], [0, 2]), ([STEPS], [2, 1]), ([3, 4, 2 * STEPS, 14], [0, 1, 2]), ([3 * STEPS], [0])],
    ids=["first step", "mid-epoch", "end of epoch", "four times", "last step"],
)
def test_a_run_that_was_stopped_ends_bitwise_alike(tmp_path, undisturbed, stops, workers):
    interrupted(tmp_path, stops, workers)
    tensors, files = outcome(tmp_path)
    assert {name.split(".")[0] for name in tensors} == {"net", "average", "optimizer"}
    assert same(tensors, undisturbed[0])
    assert files == undisturbed[1]


def test_computing_again_instead_of_keeping_changes_no_bit(tmp_path, undisturbed):
    fit(tmp_path, recompute="stem")
    tensors, files = outcome(tmp_path)
    assert same(tensors, undisturbed[0])
    assert files == undisturbed[1]


def test_a_signal_during_validation_stops_it_and_it_is_done_again(tmp_path, undisturbed):
    data = splits()
    read = data.val.read

    def signalling(index):
        if index == 20 and len(list(tmp_path.glob("checkpoint-*"))) == 1:
            signal.raise_signal(signal.SIGTERM)
        return read(index)

    notes = Notes()
    with pytest.raises(StoppedError, match=f"the state at step {2 * STEPS} is in"):
        fit(tmp_path, data=replace(data, val=replace(data.val, read=signalling)), notes=notes)
    assert len(notes.rows) == 1
    notes = Notes()
    fit(tmp_path, notes=notes)
    assert [row["epoch"] for row, _ in notes.rows] == [2, 3]
    tensors, files = outcome(tmp_path)
    assert same(tensors, undisturbed[0])
    assert files == undisturbed[1]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"recipe": RECIPE.replaced(augment="none")},
        {"recipe": RECIPE.replaced(lr=0.051)},
        {"arch": Tiny(dropout=0.3)},
    ],
    ids=["seed", "augment", "lr", "dropout"],
)
def test_another_seed_recipe_or_network_does_not(tmp_path, undisturbed, change):
    fit(tmp_path, **change)
    tensors, files = outcome(tmp_path)
    assert not same(tensors, undisturbed[0])
    assert all(content != undisturbed[1][name] for name, content in files.items())


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop_tf"])
def test_other_optimizers_go_on_alike(tmp_path, optimizer):
    recipe = RECIPE.replaced(optimizer=optimizer, lr=0.01, clip=0.5, epochs=2)
    fit(tmp_path / "whole", recipe)
    interrupted(tmp_path / "parts", [3, 8], recipe=recipe, number=signal.SIGINT)
    whole, parts = outcome(tmp_path / "whole"), outcome(tmp_path / "parts")
    assert same(whole[0], parts[0])
    assert whole[1] == parts[1]


def test_with_a_damaged_checkpoint_it_goes_on_from_the_one_before(tmp_path, undisturbed):
    with pytest.raises(StoppedError):
        fit(tmp_path, notes=Notes(lambda state: state.step == 8 and signal.raise_signal(signal.SIGINT)))
    newest = checkpoint.saved(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    notes = Notes()
    fit(tmp_path, notes=notes)
    ((step, _, passed),) = notes.begun
    assert step == STEPS
    assert str(newest) in passed[0]
    tensors, files = outcome(tmp_path)
    assert same(tensors, undisturbed[0])
    assert files == undisturbed[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_is_gone_is_named_also_from_a_worker(tmp_path, workers):
    def read(index):
        raise DataError("D15", f"picture {index}: no such file", "restore it")

    data = splits()
    with pytest.raises(DataError, match=r"error\[D15\]: picture \d+: no such file. Remedy: restore it"):
        fit(tmp_path, data=replace(data, train=replace(data.train, read=read)), workers=workers)


def test_signals_are_the_callers_again_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupted(tmp_path, [2])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# --- numbers that are not finite (T1) ---


def floats(count: int, bad: set[int]):
    """Images as floats, of which some hold a NaN, as no real image can."""
    given = images(count, 0)
    pixels = given.read.pixels.float() / 255
    for index in bad:
        pixels[index, 1, 2, 3] = float("nan")
    return replace(given, read=Pictures(pixels))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop_tf"])
def test_a_step_that_is_not_finite_changes_nothing(optimizer):
    recipe = RECIPE.replaced(optimizer=optimizer)
    job, data = task(recipe, Tiny(aux=True)), floats(16, {5})
    state = begin(job, Machine())

    def step(pixels, labels):
        return learn(state, job, Machine(), pixels, labels, 0.1, len(labels))

    good = torch.stack([data.read(i) for i in range(16) if i != 5]), data.labels[:15]
    assert step(*good)
    before = {name: t.clone() for name, t in checkpoint.tensors_of(state).items()}
    sums = dict(state.sums)
    bad = torch.stack([data.read(i) for i in range(16)]), data.labels
    assert not step(*bad)
    assert same(checkpoint.tensors_of(state), before)
    assert state.sums == sums
    assert step(*good)
    assert not same(checkpoint.tensors_of(state), before)


class Spoilt(Notes):
    """Makes the network's answers NaN in some steps of training."""

    def __init__(self, *steps):
        super().__init__()
        self.spoilt = steps

    def begin(self, state, total, notes):
        def spoil(net, images, answer):
            return (answer[0] * float("nan"), answer[1]) if state.step in self.spoilt else None

        state.net.register_forward_hook(spoil)


def test_a_bad_step_now_and_then_costs_itself_only(tmp_path):
    _, _, state = fit(tmp_path, notes=Spoilt(2, 3, 5, 9))
    assert state.step == 3 * STEPS
    assert state.average.n_averaged == 3 * STEPS - 4
    assert len(state.history) == 3


def test_three_bad_steps_in_a_row_end_it_and_name_step_rate_and_images(tmp_path):
    with pytest.raises(DivergedError) as caught:
        fit(tmp_path, notes=Spoilt(0, 1, 4, 5, 6, 7))
    error = caught.value
    assert (error.id, error.exit_code) == ("T1", 5)
    assert "3 steps up to 6 at lr " in error.what
    assert ".png, 0/" in error.what
    assert "and 13 more" in error.what
    assert "--lr" in error.remedy


def test_how_many_bad_steps_are_borne_can_be_said(tmp_path):
    with pytest.raises(DivergedError, match="not finite in 1 steps up to 4 at"):
        fit(tmp_path / "one", notes=Spoilt(4), max_bad_steps=1)
    _, _, state = fit(tmp_path / "five", notes=Spoilt(4, 5, 6, 7), max_bad_steps=5)
    assert state.step == 3 * STEPS


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop_tf"])
@pytest.mark.parametrize("batch", [8, 64, 256])
def test_a_monstrous_rate_diverges_and_leaves_only_finite_files(tmp_path, optimizer, batch):
    recipe = RECIPE.replaced(optimizer=optimizer, lr=1e30, batch=batch, warmup=0, epochs=4)
    with pytest.raises(DivergedError) as caught:
        fit(tmp_path, recipe)
    assert caught.value.exit_code == 5
    for file in tmp_path.glob("*.safetensors"):
        tensors, record = read_tensors(file)
        assert all(t.isfinite().all() for t in tensors.values()), file
        assert "NaN" not in json.dumps(record)
    assert not (tmp_path / "model.safetensors").exists()


# --- batches at the edge (T8) ---


def test_a_batch_larger_than_the_data_is_all_of_it(tmp_path):
    notes = Notes()
    fit(tmp_path, RECIPE.replaced(batch=1000), notes=notes)
    assert notes.steps == [(1, 70), (2, 70), (3, 70)]


def test_a_last_batch_of_one_is_left_out(tmp_path):
    notes = Notes()
    fit(tmp_path, RECIPE.replaced(epochs=1), data=splits(train=33), notes=notes)
    assert notes.steps == [(1, 16), (2, 16)]


def test_the_smallest_data_works(tmp_path):
    fit(tmp_path, RECIPE.replaced(epochs=1), data=splits(3, 1, 1))


def test_batches_of_one_are_refused_where_the_network_normalises_over_them(tmp_path):
    with pytest.raises(ConfigError) as caught:
        fit(tmp_path, RECIPE.replaced(batch=1))
    assert (caught.value.id, caught.value.exit_code) == ("T8", 2)
    assert "--batch 2" in caught.value.remedy


def test_batches_of_one_work_without_normalisation(tmp_path):
    notes = Notes()
    fit(tmp_path, RECIPE.replaced(batch=1, epochs=1), Tiny(norm=False), splits(train=6), notes=notes)
    assert notes.steps == [(n, 1) for n in range(1, 7)]


# --- precision and clipping ---


def test_auto_is_float32_on_a_cpu():
    assert precision(Recipe(), "cpu") == torch.float32
    assert precision(Recipe(precision="bf16"), "cpu") == torch.bfloat16


def test_bf16_trains_on_a_cpu_and_keeps_float32_weights(tmp_path):
    bundle, _, state = fit(tmp_path, RECIPE.replaced(precision="bf16"))
    assert {t.dtype for t in bundle.weights.values()} == {torch.float32, torch.int64}
    assert state.history[-1]["train_loss"] < state.history[0]["train_loss"]


@pytest.mark.parametrize(("count", "sizes"), [(16, [4, 3, 3, 3, 3]), (6, [2, 2, 2]), (3, [3])])
def test_parts_of_a_batch_are_alike_and_never_of_one_image(count, sizes):
    job, data, seen = task(RECIPE.replaced(accumulate=5)), images(count, 0), []
    state = begin(job, Machine())
    state.net.register_forward_pre_hook(lambda net, inputs: seen.append(len(inputs[0])))
    pixels = torch.stack([data.read(i) for i in range(count)])
    assert learn(state, job, Machine(), pixels, data.labels, 0.1, count)
    assert seen == sizes
    assert state.sums["seen"] == count


def test_clipping_limits_the_norm_of_the_step():
    recipe = Recipe(optimizer="sgd", momentum=0, weight_decay=0, clip=1e-3)
    state, data = begin(task(recipe), Machine()), images(16, 0)
    before = [p.detach().clone() for p in state.net.parameters()]
    pixels = torch.stack([data.read(i) for i in range(16)])
    assert learn(state, task(recipe), Machine(), pixels, data.labels, 1.0, 16)
    moved = sum(((p - q) ** 2).sum() for p, q in zip(state.net.parameters(), before, strict=True)).sqrt()
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)
