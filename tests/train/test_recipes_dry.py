"""Every recipe trains: two steps with the beginning of a network that it is for, and alike if stopped between them."""

import copy
import functools
import signal
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from convatlas.data import Preprocess
from convatlas.errors import StoppedError
from convatlas.train import checkpoint
from convatlas.train.builtin import about, builtin
from convatlas.train.loop import train
from convatlas.train.recipe import Recipe, scaled
from convatlas.train.run import Run
from convatlas.train.task import Task
from convatlas.tree import Net, classifier, cost
from convatlas.weights import read_tensors
from convatlas.zoo import Arch, list_networks, spec
from convatlas.zoo.spec import family

from tiny import RECIPE, Notes, same, splits, task

PRE = Preprocess(size=40, resize=40)


@functools.cache
def beginning(network: str) -> tuple[dict[str, nn.Module], int]:
    """The first two parts of a network, without memory, and the channels that they give."""
    arch = spec(network)
    whole = arch.skeleton()
    kept = {name: whole.get_submodule(name) for name in whole.parts[:2]}
    return kept, cost(whole, arch.size).inputs[whole.parts[2]].c


@family
@dataclass(frozen=True, kw_only=True)
class Stump(Arch):
    """The first two parts of a network and a classifier, with weights of noise: small, and still of its family."""

    name: str = "stump"
    paper: str = "none"
    use: str = "tests"
    of: str

    def build(self) -> Net:
        """BatchNorm begins as always."""
        parts, channels = copy.deepcopy(beginning(self.of))
        net = Net({**parts, "head": classifier(channels, self.classes)}).to_empty(device="cpu")
        with torch.no_grad():
            for name, t in net.state_dict().items():
                t.normal_(0, 0.1) if t.dim() > 1 else t.fill_(name.endswith(("weight", "var")))
        return net


def job(name: str) -> Task:
    """A task of two steps."""
    recipe, _ = scaled(Recipe.load(name), {"epochs": 1, "batch": 4})
    network = list_networks(about(name)["Networks"].split(", ")[0])[0]
    arch = Stump(of=network, classes=3, size=PRE.size)
    return Task(arch=arch, splits=splits(8, 3, 3, side=50), pre=PRE, recipe=recipe)


def outcome(folder) -> dict[str, torch.Tensor]:
    """Network, average and optimizer at the end."""
    return read_tensors(checkpoint.saved(folder)[0])[0]


@pytest.mark.parametrize("name", builtin())
def test_two_steps_and_the_same_when_stopped_between(tmp_path, name):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steps = Notes()
    train(job(name), Run(whole), steps)
    assert [step for step, _ in steps.steps] == [1, 2]
    wanted = outcome(whole)
    assert all(t.isfinite().all() for t in wanted.values())

    with pytest.raises(StoppedError):
        train(job(name), Run(parts), Notes(lambda state: signal.raise_signal(signal.SIGINT)))
    half = outcome(parts)
    train(job(name), Run(parts), Notes())
    assert same(outcome(parts), wanted)
    moved = [key for key, t in half.items() if key.startswith("net.") and not torch.equal(t, wanted[key])]
    assert moved  # the second step has learnt something


def test_what_a_plateau_has_done_to_the_rate_is_known_after_a_stop(tmp_path):
    slow = task(RECIPE.replaced(schedule="plateau", patience=1, gamma=0.5, epochs=4, lr=1e-4, warmup=0))
    rates = {}
    for name, stops in (("whole", []), ("parts", [7, 13])):
        for stop in stops:
            at = Notes(lambda state, stop=stop: state.step == stop and signal.raise_signal(signal.SIGINT))
            with pytest.raises(StoppedError):
                train(slow, Run(tmp_path / name), at)
        *_, state = train(slow, Run(tmp_path / name), Notes())
        rates[name] = [row["lr"] for row in state.history]
    assert rates["whole"] == rates["parts"]
    assert rates["whole"][0] == 1e-4 > rates["whole"][-1]
    assert same(outcome(tmp_path / "whole"), outcome(tmp_path / "parts"))
