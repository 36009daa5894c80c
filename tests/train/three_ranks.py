"""What three processes do together, compared with one; prints JSON.  Run by `test_distributed.py`."""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from convatlas.errors import DistributedError
from convatlas.train.distributed import World
from convatlas.train.evaluate import predict
from convatlas.train.fit import Plan, fit
from convatlas.train.job import join
from convatlas.train.launch import launch
from convatlas.train.loop import train
from convatlas.train.recipe import Recipe
from convatlas.train.run import Run
from convatlas.train.task import Machine, Task
from convatlas.train.watcher import Silent

from tiny import PRE, SIDE, Tiny, images, splits

COUNTS = (1, 2, 3, 11, 12, 13)  # fewer than processes, and 4k - 1, 4k, 4k + 1
PLAIN = Tiny(norm=False, dropout=0, aux=True)
TASK = Task(
    arch=PLAIN,
    splits=splits(train=70, val=23, test=13),
    pre=PRE,
    recipe=Recipe(epochs=2, batch=12, lr=0.1, accumulate=2, ema=0.9, clip=1.0, nesterov=False),
)


def gathered(world: World, count: int) -> list[int]:
    return [int(t) for t in world.gather([torch.tensor(piece) for piece in world.deal(range(count))])]


def predictions_equal(world: World, count: int) -> bool:
    torch.manual_seed(0)
    net, pictures = Tiny().build(), images(count, 5)
    together, alone = predict(net, PRE, pictures, batch=4, world=world), predict(net, PRE, pictures, batch=4)
    return torch.equal(together.logits, alone.logits) and together.metrics() == alone.metrics()


def statistics(world: World) -> list[int]:
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(world.rank + 1)
    world.share_statistics(norm, nn.Sequential(norm))
    return world.most(*norm.running_mean.int().tolist())


def disagreement(world: World) -> str:
    world.agree({"same": [1, {"a": 2}]})
    try:
        world.agree({"same": 1, "recipe": {"lr": 0.1 * (1 + world.rank // 2)}})
    except DistributedError as error:
        return str(error)
    return "none"


def misled(world: World, folder: str) -> str:
    """What becomes of a job whose processes were given different seeds."""
    plan = Plan(replace(TASK, seed=world.rank // 2), "pictures", "none", "made up", None)
    try:
        fit(plan, Run(folder), machine=Machine(world=world))
    except DistributedError as error:
        return str(error)
    return "none"


def trained(world: World, folder: str) -> tuple[dict[str, torch.Tensor], dict]:
    machine = Machine(world=world)
    run = Run(Path(folder))
    bundle, predictions, state = train(TASK, run, Silent(), machine)
    return bundle.weights, {**state.history[-1], "test": predictions.accuracy}


def check(folder: str) -> int:
    torch.set_num_threads(1)
    with join("cpu", timeout=30) as world:
        found = {
            "sum": world.sum(0.1, world.rank),
            "most": world.most(world.rank, -world.rank),
            "gathered": [gathered(world, count) for count in COUNTS],
            "predictions equal": [predictions_equal(world, count) for count in COUNTS],
            "statistics": statistics(world),
            "disagreement": disagreement(world),
            "misled": [misled(world, f"{folder}/misled"), Path(f"{folder}/misled").exists()],
        }
        together, row = trained(world, f"{folder}/together")
        if world.leads:
            alone, row_alone = trained(World(), f"{folder}/alone")
            start = PLAIN.build().state_dict()
            found["moved"] = min((alone[name] - start[name]).abs().max().item() for name in alone)
            found["apart"] = max((alone[name] - together[name]).abs().max().item() for name in alone)
            found["rows"] = [row, row_alone]
            print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    assert SIDE < 32  # px: seconds, not minutes
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(launch(check, temporary, 3, fork=sys.argv[1] == "fork"))
