"""A training step against the same network of other libraries: images per second, and the losses of 20 steps.

    python benchmarks/train_speed.py [--network 'resnet*'] [--rounds 5] [--threads 1] [--out results/train_speed.json]

Each library runs in a process of its own, as its users run it.  Ours makes the step of `convatlas train` from uint8
images on: normalisation, loss, backward pass, check that all is finite, update.  Theirs make that of their training
scripts, with contiguous float32 images that are normalised already.  All use SGD with momentum 0.9, float32, and begin
with the same weights.  The processes take turns, a step each; a ratio is that of the seconds of neighbouring steps.

With one thread, seconds are those that the processor worked for the process, so that neighbours do not count; with
more, those of the clock.  Losses are compared in smaller batches, new images in every step, without dropout.
"""

import argparse
import fnmatch
import json
import multiprocessing
import statistics
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.data import Images, Preprocess, Splits
from convatlas.train.loop import begin
from convatlas.train.memory import keep_freed_memory
from convatlas.train.recipe import Recipe
from convatlas.train.run import environment
from convatlas.train.step import learn
from convatlas.train.task import Machine, Task
from convatlas.weights.convert import to_theirs
from convatlas.weights.peers import PEERS
from convatlas.zoo import spec

from parity import BUILDERS

NETWORKS = ("resnet18.b", "resnet50.v1_5", "vgg11_bn", "inception_v3", "densenet121", "mobilenet_v2",
            "se_resnet50.v1_5.bias", "shufflenet.g3")  # fmt: skip
UNLIKE = {("pytorchcv", "shufflenet.g3"): "shufflenet_g3_w1"}  # joins branches the other way round: as dear, but other
LIBRARIES = ("torchvision", "timm", "pytorchcv")
LR, AUX_WEIGHT = 0.01, 0.4  # as torchvision's script weights the auxiliary head
STEPS = 20  # whose losses are compared


class Ours:
    """The step of `convatlas train`."""

    def __init__(self, network: str, size: int, batch: int):
        keep_freed_memory()
        torch.manual_seed(0)
        arch = spec(network)
        classes = tuple(map(str, range(arch.classes)))
        images = Images(classes, torch.zeros(batch, dtype=torch.int64), tuple(map(str, range(batch))), lambda i: i)
        recipe = Recipe(batch=batch, lr=LR, nesterov=False, weight_decay=0.0, aux_weight=AUX_WEIGHT)
        pre, splits = Preprocess(size, size), Splits("noise", images, images, images, "", 0)
        self.task, self.machine = Task(arch=arch, splits=splits, pre=pre, recipe=recipe), Machine()
        self.state = begin(self.task, self.machine)
        self.net = self.state.net
        self.net.load_state_dict(initial(network))

    def __call__(self, pixels: Tensor, labels: Tensor) -> float:
        """One step on uint8 (N, 3, H, W) -> its loss."""
        self.state.sums = dict.fromkeys(self.state.sums, 0)
        assert learn(self.state, self.task, self.machine, pixels, labels, LR, len(labels))
        return self.state.sums["loss"] / len(labels)


class Theirs:
    """The step of the reference scripts: vision/references/classification/train.py, pytorch-image-models/train.py."""

    def __init__(self, library: str, network: str):
        peer = next((p for p in PEERS if p.library == library and network in p.networks), None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net: nn.Module = BUILDERS[library](peer.networks[network] if peer else UNLIKE[library, network])
        if peer:
            weights = to_theirs(peer, spec(network), initial(network))
            self.net.load_state_dict(weights, strict=library != "timm")  # its Inception v3 trains without the side head
        self.optimizer = torch.optim.SGD(self.net.train().parameters(), LR, momentum=0.9)

    def __call__(self, images: Tensor, labels: Tensor) -> float:
        """One step on float32 (N, 3, H, W) -> its loss."""
        out = self.net(images)
        if isinstance(out, Tensor):
            loss = F.cross_entropy(out, labels)
        else:
            logits, side = out
            loss = F.cross_entropy(logits, labels) + AUX_WEIGHT * F.cross_entropy(side, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def initial(network: str) -> dict[str, Tensor]:
    """The weights that all begin with."""
    torch.manual_seed(0)
    return spec(network).build().state_dict()


def work(
    pipe: Connection, library: str, network: str, size: int, batch: int, threads: int, dropout: bool = True
) -> None:
    """A process that makes a step, on the images of a seed, whenever it is told to, and tells its seconds and loss."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    step = Ours(network, size, batch) if library == "ours" else Theirs(library, network)
    for layer in step.net.modules():
        if isinstance(layer, nn.Dropout) and not dropout:
            layer.p = 0.0
    while (seed := pipe.recv()) is not None:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
        labels = torch.randint(spec(network).classes, (batch,), generator=generator)
        images = images if library == "ours" else Preprocess(size, size).normalize(images)
        torch.manual_seed(seed)
        started = clock()
        loss = step(images, labels)
        pipe.send((clock() - started, loss))


class Turns:
    """A process for each library; called with a seed, each makes a step."""

    def __init__(self, libraries: list[str], *case: Any):
        context = multiprocessing.get_context("spawn")
        self.libraries, self.pipes, self.processes = libraries, [], []
        for library in libraries:
            pipe, its_end = context.Pipe()
            self.processes.append(context.Process(target=work, args=(its_end, library, *case), daemon=True))
            self.processes[-1].start()
            self.pipes.append(pipe)

    def __call__(self, seed: int) -> dict[str, tuple[float, float]]:
        """(seconds, loss) of the step of each library."""
        found = {}
        for library, pipe in zip(self.libraries, self.pipes, strict=True):
            pipe.send(seed)
            found[library] = pipe.recv()
        return found

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *error: object) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None) if error[0] is None else process.kill()
            process.join()


def measure(network: str, size: int, batch: int, rounds: int, threads: int) -> dict[str, Any]:
    """The row of one case."""
    peers = [library for library in LIBRARIES
             if (library, network) in UNLIKE or any(p.library == library and network in p.networks for p in PEERS)]
    peers = [p for p in peers if p != "pytorchcv" or len(peers) == 1]  # where the two of the issue have none
    with Turns(["ours", *peers], network, size, batch, threads) as turns:
        steps = [turns(seed) for seed in range(rounds + 2)][2:]
    seconds = {library: [step[library][0] for step in steps] for library in ("ours", *peers)}
    speed = {library: batch / statistics.median(s) for library, s in seconds.items()}
    rival = max(peers, key=speed.__getitem__)
    ratios = sorted(theirs / ours for ours, theirs in zip(seconds["ours"], seconds[rival], strict=True))
    row: dict[str, Any] = {"network": network, "input": size, "batch": batch}
    row |= {library: round(speed[library], 2) if library in speed else None for library in ("ours", *LIBRARIES)}
    row |= {"best_peer": rival, "ratio_best_peer": round(statistics.median(ratios), 3),
            "spread": [round(ratios[0], 3), round(ratios[-1], 3)]}  # fmt: skip
    same = [p for p in peers if (p, network) not in UNLIKE and not (p == "timm" and network == "inception_v3")]
    return row | (compare_losses(network, size, same, threads) if same else {"loss_difference": None})


def compare_losses(network: str, size: int, peers: list[str], threads: int) -> dict[str, Any]:
    """The largest difference between our loss and that of a peer in `STEPS` steps, of losses of about this size."""
    with Turns(["ours", *peers], network, size, 32 if size < 100 else 8, threads, False) as turns:
        steps = [{library: loss for library, (_, loss) in turns(seed).items()} for seed in range(STEPS)]
    differences = [abs(losses["ours"] - losses[p]) for losses in steps for p in peers]
    first = max(abs(steps[0]["ours"] - steps[0][p]) for p in peers)
    return {"loss_difference": max(differences), "loss_difference_first_step": first,
            "loss": [steps[0]["ours"], steps[-1]["ours"]]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="*", help="a shell pattern")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    rows = []
    for network in fnmatch.filter(NETWORKS, o.network):
        inputs = [(299, 32)] if network == "inception_v3" else [(224, 32), (32, 128)]
        for size, batch in inputs:
            rows.append(measure(network, size, batch, o.rounds, o.threads))
            print(json.dumps(rows[-1]), flush=True)
    ratios = [row["ratio_best_peer"] for row in rows]
    summary = {"geometric_mean": round(statistics.geometric_mean(ratios), 3), "smallest": min(ratios)}
    print(json.dumps(summary))
    if o.out:
        what = {"command": f"python benchmarks/train_speed.py --rounds {o.rounds} --threads {o.threads}",
                "clock": "processor time of the process" if o.threads == 1 else "wall clock",
                "environment": environment()}  # fmt: skip
        o.out.write_text(json.dumps(what | summary | {"rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
