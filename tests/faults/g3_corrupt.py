"""Bundles and checkpoints with random damage: each is refused by name, and training goes on from the one before."""

import random
from collections.abc import Callable
from pathlib import Path

import torch

from convatlas.errors import WeightsError
from convatlas.train import checkpoint
from convatlas.train.checkpoint import State
from convatlas.train.loop import begin
from convatlas.train.task import Machine
from convatlas.weights import Bundle

from tiny import PRE, Tiny, same, task

GOAL = "G3: random corruptions of bundles and checkpoints, all refused by name"
FULL, SHORT = 10_000, 300


def run(trials: int, seed: int, folder: Path) -> list[str]:
    """A line for each corruption that got through or cost more than the newest checkpoint."""
    bundle = folder / "model.safetensors"
    Bundle(Tiny(), Tiny().build().state_dict(), ("a", "b", "c"), PRE).save(bundle)
    older, newest = two_states(folder / "run")
    state = begin(task(arch=Tiny(aux=True), seed=1), Machine())
    failures = []
    for trial in range(trials):
        draw = random.Random(f"{seed} {trial}")
        name, corrupt = draw.choice(list(CORRUPTIONS.items()))
        path = draw.choice([bundle, newest])
        whole = path.read_bytes()
        damaged = whole
        while damaged == whole:
            damaged = corrupt(whole, draw)
        path.write_bytes(damaged)
        wrong = let_through(bundle) if path == bundle else not_passed_over(state, newest, older)
        failures += [f"seed {seed}, trial {trial}, {name} of {path.name}: {what}" for what in wrong]
        path.write_bytes(whole)
    Bundle.load(bundle)  # or they were refused for another reason
    assert checkpoint.restore(state, newest.parent) == []
    assert state.step == 2
    return failures


def two_states(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """The tensors of the older of two checkpoints, and the newer one's file."""
    state = begin(task(arch=Tiny(aux=True)), Machine())
    for number in (1, 2):
        state.step = number
        for parameter in state.net.parameters():
            parameter.grad = torch.full_like(parameter, number)
        state.optimizer.step()
        newest = checkpoint.save(state, folder)
        if number == 1:
            older = {name: t.clone() for name, t in checkpoint.tensors_of(state).items()}
    return older, newest


def let_through(bundle: Path) -> list[str]:
    """What is wrong with how a damaged bundle is taken."""
    try:
        Bundle.load(bundle)
    except WeightsError as error:
        return [] if str(bundle) in error.what else [f"not named: {error}"]
    except Exception as error:
        return [f"{error!r}"]
    return ["loaded"]


def not_passed_over(state: State, newest: Path, older: dict[str, torch.Tensor]) -> list[str]:
    """What is wrong with how training goes on beside a damaged checkpoint."""
    state.step = 0
    for tensor in state.net.state_dict().values():
        tensor.zero_()
    try:
        notes = checkpoint.restore(state, newest.parent)
    except Exception as error:
        return [f"{error!r}"]
    if len(notes) != 1 or str(newest) not in notes[0]:
        return [f"not named: {notes}"]
    return [] if state.step == 1 and same(checkpoint.tensors_of(state), older) else [f"not the older one: {state.step}"]


def flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def span(content: bytes, draw: random.Random) -> slice:
    """A stretch of 1 to 4096 bytes."""
    length = min(draw.choice((1, 16, 512, 4096)), len(content) // 3)
    start = draw.randrange(len(content) - length)
    return slice(start, start + length)


def zero(content: bytes, draw: random.Random) -> bytes:
    hole = span(content, draw)
    return content[: hole.start] + bytes(hole.stop - hole.start) + content[hole.stop :]


def zero_tail(content: bytes, draw: random.Random) -> bytes:
    kept = draw.randrange(len(content))
    return content[:kept] + bytes(len(content) - kept)


def scramble(content: bytes, draw: random.Random) -> bytes:
    place = span(content, draw)
    return content[: place.start] + draw.randbytes(place.stop - place.start) + content[place.stop :]


def swap(content: bytes, draw: random.Random) -> bytes:
    first = span(content, draw)
    length = first.stop - first.start
    second = draw.randrange(len(content) - length)
    changed = bytearray(content)
    changed[first], changed[second : second + length] = (
        content[second : second + length],
        content[first],
    )
    return bytes(changed)


def append(content: bytes, draw: random.Random) -> bytes:
    return content + draw.choice((bytes, draw.randbytes))(draw.choice((1, 8, 512)))


def duplicate(content: bytes, draw: random.Random) -> bytes:
    twice = span(content, draw)
    return content[: twice.stop] + content[twice.start :]


def drop(content: bytes, draw: random.Random) -> bytes:
    gone = span(content, draw)
    return content[: gone.start] + content[gone.stop :]


CORRUPTIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    f.__name__: f for f in (flip, truncate, zero, zero_tail, scramble, swap, append, duplicate, drop)
}
