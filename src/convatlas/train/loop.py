"""Training, from top to bottom.

Every random choice is a function of the seed and of the step, so a run that was stopped anywhere goes on as if it had
not been.  The validation images choose the weights; the test images are looked at once, at the end.
"""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from ..data.decode import shown
from ..errors import ConfigError, DivergedError, StoppedError
from ..tree.recompute import recompute
from ..weights import Bundle, read_tensors
from . import checkpoint
from .augment import build_augment
from .checkpoint import CALMER, State
from .distributed import whole
from .evaluate import Predictions, predict
from .loader import train_batches
from .onednn import spare_narrow_strides
from .optim import average_of, build_optimizer, lr_at
from .order import Order, mix
from .pretrained import start
from .run import Run
from .signals import Stop, stop_on_signal
from .step import learn, precision
from .task import Machine, Task
from .watcher import Watcher


def train(
    task: Task,
    run: Run,
    watcher: Watcher,
    machine: Machine = Machine(),  # noqa: B008 - a frozen value
) -> tuple[Bundle, Predictions, State]:
    """Train the task's network, keep what was best on validation, measure it once on test.

    Raises DivergedError if loss or gradient stay non-finite or the weights become it, StoppedError after a signal
    (with the state saved), ConfigError if network and batch do not go together.
    """
    recipe, splits, world = task.recipe, task.splits, machine.world
    order = every_step(task, machine)
    steps_per_epoch, total = order.steps_per_epoch, order.stop

    # The network, what updates it, and what it was when it was stopped.
    state = begin(task, machine)
    notes, saver = checkpoint.restore(state, run.folder), checkpoint.Saver(run)
    world.agree({"checkpoint": state.step})
    watcher.begin(state, total, notes)

    def close_epoch(stop: Stop) -> None:
        """Validate, keep the best, log; if a signal comes meanwhile, the epoch stays open."""
        checkpoint.tensors_of(state)  # so that what is kept is finite
        lr = lr_at(recipe, state.step - 1, steps_per_epoch, past)
        try:
            row, better = validate(state, task, machine, stop, lr)
        except InterruptedError:
            return
        if better:
            saver.keep(whole(state.evaluated.state_dict()), row)
        watcher.epoch(row, better)

    def save_if_due(stop: Stop, due: bool) -> None:
        """Save the state from time to time, and before a stop.  Raises StoppedError after a signal."""
        nonlocal saved
        signal, saving = world.most(stop.signal or 0, due or time.monotonic() - saved > machine.save_every)
        ended = len(past) == recipe.epochs
        if signal or saving:
            if world.leads:
                saver.save(state, last=bool(signal) or ended)
            else:
                checkpoint.tensors_of(state)  # the parts that this process has
            saved = time.monotonic()
        if signal and not ended:
            what = f"stopped by signal {signal}; the state at step {state.step} is in {run.folder}"
            raise StoppedError(signal, what, "the same command goes on from there")

    # The training steps.
    order = replace(order, start=state.step)
    augment, size = build_augment(recipe, task.pre), task.pre.size
    batches = train_batches(splits.train, augment, size, order, machine.workers, machine.read_timeout)
    past, bad, saved = state.history, 0, time.monotonic()
    with stop_on_signal() as stop, closing(batches):
        if state.step // steps_per_epoch > len(past):  # it was stopped while validating
            close_epoch(stop)
            save_if_due(stop, True)
        for pixels, labels, indices in batches:
            started = time.monotonic()
            lr = lr_at(recipe, state.step, steps_per_epoch, past)
            torch.manual_seed(mix(task.seed, state.step, 1, world.rank))  # mixing of images, dropout
            pixels, labels, count = pixels.to(machine.device), labels.to(machine.device), order.images_in(state.step)
            learned = learn(state, task, machine, pixels, labels, lr, count)
            bad = 0 if learned else bad + 1
            if bad == machine.max_bad_steps:
                raise diverged(bad, state.step, lr, [str(splits.train.names[i]) for i in indices.tolist()])
            state.step = world.step = state.step + 1
            state.seconds += time.monotonic() - started
            watcher.step(state, total, count)
            epoch_ends = state.step % steps_per_epoch == 0
            if epoch_ends:
                close_epoch(stop)
            save_if_due(stop, epoch_ends)

    bundle, predictions = finish(state, task, run, machine)
    return bundle, predictions, state


def every_step(task: Task, machine: Machine) -> Order:
    """What this process reads from the first step to the last."""
    world, images = machine.world, task.splits.train
    order = Order(
        len(images), task.recipe.batch, task.seed, 0, 0, rank=world.rank, size=world.size, blocks=images.blocks
    )
    return replace(order, stop=task.recipe.epochs * order.steps_per_epoch)


def begin(task: Task, machine: Machine) -> State:
    """The network, freshly initialised or pretrained, and its optimizer."""
    recipe, device = task.recipe, machine.device
    torch.manual_seed(mix(task.seed))
    net = start(task).to(device).to(memory_format=torch.channels_last)
    if torch.device(device).type == "cpu":
        spare_narrow_strides(net)
    if machine.recompute:
        recompute(net, machine.recompute)
    if recipe.batch == 1 and any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
        what = f"{task.arch.name} normalises over the batch, which a batch of 1 has not"
        raise ConfigError("T8", what, "use --batch 2")
    head = {name for name, _ in net.named_parameters() if name.startswith(("head.", "aux."))}
    return State(
        net=net,
        model=machine.world.wrap(net),
        average=average_of(net, recipe, every_step(task, machine).stop),
        optimizer=build_optimizer(net, recipe, head),
        scaler=torch.amp.GradScaler(torch.device(device).type, enabled=precision(recipe, device) == torch.float16),
    )


def validate(state: State, task: Task, machine: Machine, stop: Stop, lr: float) -> tuple[dict[str, Any], bool]:
    """The epoch's row for the log, and whether it is the best so far: highest accuracy, then lowest loss.

    Raises DivergedError if the loss is not finite, InterruptedError if a signal asks a single process for a stop.
    """

    def look(done: int, images: int) -> None:
        if stop.signal and machine.world.size == 1:
            raise InterruptedError

    epoch = len(state.history) + 1
    machine.world.share_statistics(state.net, state.evaluated)
    evaluated = machine.world.in_one_piece(state.evaluated)
    val = predict(evaluated, task.pre, task.splits.val, device=machine.device, world=machine.world, progress=look)
    if not math.isfinite(val.loss):
        raise DivergedError("T1", f"validation loss not finite after epoch {epoch} at lr {lr:g}", CALMER)
    seen = max(1, state.sums["seen"])
    row = {
        "epoch": epoch,
        "lr": lr,
        "train_loss": state.sums["loss"] / seen,
        "train_accuracy": state.sums["right"] / seen,
        "val_loss": val.loss,
        "val_accuracy": val.accuracy,
    }
    state.sums = dict.fromkeys(state.sums, 0)
    state.history.append(row)
    rank = (row["val_accuracy"], -row["val_loss"])
    better = not state.best or rank > (state.best["val_accuracy"], -state.best["val_loss"])
    if better:
        state.best = row
    return row, better


def finish(state: State, task: Task, run: Run, machine: Machine) -> tuple[Bundle, Predictions]:
    """The weights to keep, and the one look at the test images; both are written to the run's folder."""
    which, row = keep(state, len(task.splits.val))
    machine.world.wait()  # until the best weights are written
    kept = whole(state.evaluated.state_dict())
    if which == "best":
        kept, record = read_tensors(run.path("best.safetensors"))
        row = {name: record[name] for name in row}
    net = task.arch.build()
    net.load_state_dict(kept)
    predictions = predict(
        net.to(machine.device), task.pre, task.splits.test, device=machine.device, world=machine.world
    )
    origin = f", from {task.pretrained.source}" if task.pretrained else ""
    bundle = Bundle(
        spec=task.arch,
        weights=net.cpu().state_dict(),
        classes=task.splits.classes,
        preprocess=task.pre,
        metrics={"val": {"which": which, **row}, "test": predictions.metrics()},
        recipe=asdict(task.recipe),
        source=f"trained by convatlas on {task.splits.name}, seed {task.seed}{origin}",
    )
    if machine.world.leads:
        bundle.save(run.path("model.safetensors"))
        run.write_test(predictions, task.splits.test)
    return bundle, predictions


def keep(state: State, images: int) -> tuple[str, dict[str, Any]]:
    """Which weights to keep, and their row: the last ones, unless earlier ones were better by more than chance.

    Chance is one standard error of the last accuracy on the validation images (with one right and one wrong image
    added): to pick the maximum of many noisy figures would be to pick noise.
    """
    last, best = state.history[-1], state.best
    p = (last["val_accuracy"] * images + 1) / (images + 2)
    by_chance = math.sqrt(p * (1 - p) / images)
    return ("best", best) if best["val_accuracy"] - last["val_accuracy"] > by_chance else ("last", last)


def diverged(bad: int, step: int, lr: float, names: Sequence[str]) -> DivergedError:
    """The error T1."""
    batch = ", ".join(map(shown, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    what = f"loss or gradient not finite in {bad} steps up to {step} at lr {lr:g} (batch: {batch})"
    return DivergedError("T1", what, CALMER)
