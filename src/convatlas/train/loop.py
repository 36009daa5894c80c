"""Training, from top to bottom.

Every random choice is a function of the seed and of the step, so a run that was stopped anywhere goes on as if it had
not been.  The validation images choose the weights; the test images are looked at once, at the end.
"""

import math
import time
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..data import Preprocess
from ..data.decode import shown
from ..data.splits import Splits
from ..errors import ConfigError, DivergedError, StoppedError
from ..weights import Bundle, read_tensors, write_tensors
from ..zoo import Arch
from . import checkpoint
from .augment import build_augment
from .checkpoint import CALMER, State
from .evaluate import Predictions, predict
from .loader import Order, mix, train_batches
from .optim import averaged, build_optimizer, lr_at
from .recipe import Recipe
from .run import Run
from .signals import Stop, stop_on_signal

SAVE_EVERY = 300  # seconds, within an epoch
MOST_BAD_STEPS = 3  # in a row, then training has diverged
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Watcher(Protocol):
    """Who looks on while a network trains."""

    def begin(self, state: State, total: int, notes: list[str]) -> None:
        """Training starts, or goes on, at `state.step` of `total`."""

    def step(self, state: State, total: int, images: int) -> None:
        """A step is done."""

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """An epoch is done and validated."""


class Silent:
    """A watcher that shows nothing."""

    def begin(self, state: State, total: int, notes: list[str]) -> None:
        """Nothing."""

    def step(self, state: State, total: int, images: int) -> None:
        """Nothing."""

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Nothing."""


def train(
    arch: Arch,
    splits: Splits,
    pre: Preprocess,
    recipe: Recipe,
    run: Run,
    watcher: Watcher,
    *,
    seed: int = 0,
    device: str = "cpu",
    workers: int = 0,
) -> tuple[Bundle, Predictions, State]:
    """Train `arch` on the splits, keep what was best on validation, measure it once on test.

    Raises DivergedError if loss or gradient stay non-finite or the weights become it, StoppedError after a signal
    (with the state saved), ConfigError if network and batch do not go together.
    """
    order = Order(len(splits.train), recipe.batch, seed, start=0, stop=0)
    steps_per_epoch = order.steps_per_epoch
    total = recipe.epochs * steps_per_epoch

    # The network, what updates it, and what it was when it was stopped.
    state = begin(arch, recipe, seed, device)
    notes = checkpoint.restore(state, run.folder)
    watcher.begin(state, total, notes)

    # The training steps.
    order = replace(order, start=state.step, stop=total)
    batches = train_batches(splits.train, build_augment(recipe.augment, pre), order, workers)
    bad, saved = 0, time.monotonic()
    with stop_on_signal() as stop, closing(batches):
        for pixels, labels, indices in batches:
            started = time.monotonic()
            lr = lr_at(recipe, state.step, steps_per_epoch)
            torch.manual_seed(mix(seed, state.step, 1))  # dropout
            learned = learn(state, recipe, pre, pixels.to(device), labels.to(device), lr)
            bad = 0 if learned else bad + 1
            if bad == MOST_BAD_STEPS:
                raise diverged(state.step, lr, [splits.train.names[i] for i in indices.tolist()])
            state.step += 1
            state.seconds += time.monotonic() - started
            watcher.step(state, total, len(labels))

            # At the end of an epoch: validate, keep the best, log.
            if state.step % steps_per_epoch == 0:
                checkpoint.tensors_of(state)  # so that what is kept is finite
                row, better = validate(state, splits, pre, device, state.step // steps_per_epoch, lr)
                if better:
                    write_tensors(run.path("best.safetensors"), state.evaluated.state_dict(), row)
                run.write_log(state.history)
                watcher.epoch(row, better)
            due = state.step % steps_per_epoch == 0 or time.monotonic() - saved > SAVE_EVERY
            if due or stop.signal is not None:
                checkpoint.save(state, run.folder)
                saved = time.monotonic()
            if stop.signal is not None and state.step < total:
                raise stopped(stop, state.step, run)

    bundle, predictions = finish(state, arch, splits, pre, recipe, run, seed, device)
    return bundle, predictions, state


def finish(
    state: State, arch: Arch, splits: Splits, pre: Preprocess, recipe: Recipe, run: Run, seed: int, device: str
) -> tuple[Bundle, Predictions]:
    """The weights to keep, and the one look at the test images; both are written to the run's folder."""
    which, row = keep(state, len(splits.val))
    net = arch.build()
    kept = state.evaluated.state_dict() if which == "last" else read_tensors(run.path("best.safetensors"))[0]
    net.load_state_dict(kept)
    predictions = predict(net.to(device), pre, splits.test, device=device)
    bundle = Bundle(
        spec=arch,
        weights=net.cpu().state_dict(),
        classes=splits.classes,
        preprocess=pre,
        metrics={"val": {"which": which, **row}, "test": predictions.metrics()},
        recipe=asdict(recipe),
        source=f"trained by convatlas on {splits.name}, seed {seed}",
    )
    bundle.save(run.path("model.safetensors"))
    run.write_test(predictions, splits.test)
    return bundle, predictions


def begin(arch: Arch, recipe: Recipe, seed: int, device: str) -> State:
    """A freshly initialised network and its optimizer."""
    torch.manual_seed(mix(seed))
    net = arch.build().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.batch == 1 and any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
        raise ConfigError("T8", f"{arch.name} normalises over the batch, which a batch of 1 has not", "use --batch 2")
    return State(
        net=net,
        average=averaged(net, recipe.ema) if recipe.ema else None,
        optimizer=build_optimizer(net, recipe),
        scaler=torch.amp.GradScaler(torch.device(device).type, enabled=precision(recipe, device) == torch.float16),
    )


def precision(recipe: Recipe, device: str) -> torch.dtype:
    """In which type convolutions compute; `auto` is float32 on a CPU."""
    if recipe.precision != "auto":
        return DTYPES[recipe.precision]
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def learn(state: State, recipe: Recipe, pre: Preprocess, pixels: Tensor, labels: Tensor, lr: float) -> bool:
    """One step on uint8 images (N, 3, H, W).  False if loss or gradient is not finite: then nothing has changed."""
    net, optimizer, scaler = state.net.train(), state.optimizer, state.scaler
    for group in optimizer.param_groups:
        group["lr"] = lr
    statistics = [b.clone() for b in net.buffers()]
    dtype = precision(recipe, pixels.device.type)
    with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
        images = pre.normalize(pixels).contiguous(memory_format=torch.channels_last)
        logits, side = net(images, aux=True)
        loss = total_loss(logits, side, labels, recipe)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    norm = get_total_norm(gradients)
    if not (loss.isfinite() and norm.isfinite()):
        for buffer, before in zip(net.buffers(), statistics, strict=True):
            buffer.copy_(before)
        scaler.update() if scaler.is_enabled() else None
        return scaler.is_enabled() and scaler.get_scale() >= 1  # the scale of fp16 is still being found
    if recipe.clip:
        clip_grads_with_norm_([p for p in net.parameters() if p.grad is not None], recipe.clip, norm)
    scaler.step(optimizer)
    scaler.update()
    if state.average is not None:
        state.average.update_parameters(net)
    state.sums["loss"] += loss.item() * len(labels)
    state.sums["right"] += int((logits.argmax(1) == labels).sum())
    state.sums["seen"] += len(labels)
    return True


def total_loss(logits: Tensor, side: dict[str, Tensor], labels: Tensor, recipe: Recipe) -> Tensor:
    """Real loss + `aux_weight` x the loss of each auxiliary head [arXiv:1409.4842, Sec. 5]."""
    real, *aux = (
        F.cross_entropy(scores.float(), labels, label_smoothing=recipe.label_smoothing)
        for scores in (logits, *side.values())
    )
    return real + recipe.aux_weight * sum(aux)


def validate(
    state: State, splits: Splits, pre: Preprocess, device: str, epoch: int, lr: float
) -> tuple[dict[str, Any], bool]:
    """The epoch's row for the log, and whether it is the best so far: highest accuracy, then lowest loss.

    Raises DivergedError if the loss is not finite.
    """
    val = predict(state.evaluated, pre, splits.val, device=device)
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


def keep(state: State, images: int) -> tuple[str, dict[str, Any]]:
    """Which weights to keep, and their row: the last ones, unless earlier ones were better by more than chance.

    Chance is one standard error of the last accuracy on the validation images (with one right and one wrong image
    added): to pick the maximum of many noisy figures would be to pick noise.
    """
    last, best = state.history[-1], state.best
    p = (last["val_accuracy"] * images + 1) / (images + 2)
    by_chance = math.sqrt(p * (1 - p) / images)
    return ("best", best) if best["val_accuracy"] - last["val_accuracy"] > by_chance else ("last", last)


def diverged(step: int, lr: float, names: list[str]) -> DivergedError:
    """The error T1."""
    batch = ", ".join(map(shown, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    what = f"loss or gradient not finite in {MOST_BAD_STEPS} steps up to {step} at lr {lr:g} (batch: {batch})"
    return DivergedError("T1", what, CALMER)


def stopped(stop: Stop, step: int, run: Run) -> StoppedError:
    """The error T2."""
    assert stop.signal is not None
    what = f"stopped by signal {stop.signal}; the state at step {step} is in {run.folder}"
    return StoppedError(stop.signal, what, "the same command goes on from there")
