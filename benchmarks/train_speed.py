"""A training step against the same network of other libraries: images per second, and the losses of 20 steps.

    python benchmarks/train_speed.py [--network 'resnet*'] [--rounds 5] [--threads 1] [--out results/train_speed.json]

Each library runs in a process of its own, as its users run it.  Ours makes the step of `convatlas train` from uint8
images on: normalisation, loss, backward pass, check that all is finite, update.  Theirs make that of their training
scripts, with contiguous float32 images that are normalised already.  All use SGD with momentum 0.9, float32, and begin
with the same weights.  The processes take turns, a step each; a ratio is that of the seconds of neighbouring steps.

With one thread, seconds are those that the processor worked for the process, so that neighbours do not count; with
more, those of the clock.  Losses are compared in double precision, on the same few images in every step and without
dropout: most networks with BatchNorm multiply any difference, the rounding of the first step too, from step to step.
"""

import argparse
import fnmatch
import json
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from parity import BUILDERS
from torch import Tensor, nn

from convatlas.data import Images, Preprocess, Splits
from convatlas.train.loop import begin
from convatlas.train.memory import keep_freed_memory
from convatlas.train.recipe import Recipe
from convatlas.train.run import environment
from convatlas.train.step import learn
from convatlas.train.task import Machine, Task
from convatlas.tree import Net
from convatlas.weights.convert import to_theirs
from convatlas.weights.peers import PEERS
from convatlas.zoo import spec

NETWORKS = ("resnet18.b", "resnet50.v1_5", "vgg11_bn", "inception_v3", "densenet121", "mobilenet_v2",
            "se_resnet50.v1_5.bias", "shufflenet.g3")  # fmt: skip
UNLIKE = {("pytorchcv", "shufflenet.g3"): "shufflenet_g3_w1"}  # joins branches the other way round: as dear, but other
INPUTS = {"inception_v3": [(299, 32)], "shufflenet.g3": [(224, 32)]}  # others take no 32 px there
LIBRARIES = ("torchvision", "timm", "pytorchcv")
LR, AUX_WEIGHT = 1e-5, 0.4  # as torchvision's script weights the auxiliary head
STEPS = 20  # whose losses are compared


class Ours:
    """The step of `convatlas train`."""

    def __init__(self, network: str, size: int, batch: int):
        keep_freed_memory()
        arch = spec(network)
        classes = tuple(map(str, range(arch.classes)))
        images = Images(classes, torch.zeros(batch, dtype=torch.int64), tuple(map(str, range(batch))), torch.tensor)
        recipe = Recipe(batch=batch, lr=LR, nesterov=False, weight_decay=0.0, aux_weight=AUX_WEIGHT)
        pre, splits = Preprocess(size, size), Splits("noise", images, images, images, "", 0)
        self.task, self.machine = Task(arch=arch, splits=splits, pre=pre, recipe=recipe), Machine()
        self.state = begin(self.task, self.machine)
        self.state.net.load_state_dict(network_of("ours", network).state_dict())

    def __call__(self, pixels: Tensor, labels: Tensor) -> None:
        """One step on uint8 (N, 3, H, W)."""
        assert learn(self.state, self.task, self.machine, pixels, labels, LR, len(labels))


class Plain:
    """The step of the reference scripts: vision/references/classification/train.py, pytorch-image-models/train.py."""

    def __init__(self, net: nn.Module):
        self.net = net.train()
        self.optimizer = torch.optim.SGD(net.parameters(), LR, momentum=0.9)

    def __call__(self, images: Tensor, labels: Tensor) -> float:
        """One step on float (N, 3, H, W) -> its loss."""
        out = self.net(images, aux=True) if isinstance(self.net, Net) else self.net(images)
        if isinstance(out, Tensor):
            loss = F.cross_entropy(out, labels)
        else:
            logits, side = out
            sides = side.values() if isinstance(side, dict) else [side]
            loss = F.cross_entropy(logits, labels) + AUX_WEIGHT * sum(F.cross_entropy(s, labels) for s in sides)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def network_of(library: str, network: str) -> nn.Module:
    """The network as that library builds it, with the weights that all begin with."""
    torch.manual_seed(0)
    ours = spec(network).build()
    if library == "ours":
        return ours
    peer = next((p for p in PEERS if p.library == library and network in p.networks), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net: nn.Module = BUILDERS[library](peer.networks[network] if peer else UNLIKE[library, network])
    if peer:
        weights = to_theirs(peer, spec(network), ours.state_dict())
        net.load_state_dict(weights, strict=library != "timm")  # its Inception v3 trains without the auxiliary head
    return net


def timed(pipe: Connection, library: str, network: str, size: int, batch: int, threads: int) -> None:
    """A process that makes a step, on the images of a seed, whenever it is told to, and answers with its seconds."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    step = Ours(network, size, batch) if library == "ours" else Plain(network_of(library, network))
    while (seed := pipe.recv()) is not None:
        images, labels = batch_of(seed, network, size, batch)
        images = images if library == "ours" else Preprocess(size, size).normalize(images)
        started = clock()
        step(images, labels)
        pipe.send(clock() - started)


def exact(pipe: Connection, library: str, network: str, size: int, batch: int, threads: int) -> None:
    """A process that makes plain steps in double precision and without dropout, and answers with their losses."""
    torch.set_num_threads(threads)
    net = network_of(library, network).double()
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    memory_format = torch.channels_last if library == "ours" else torch.contiguous_format
    step = Plain(net.to(memory_format=memory_format))
    while (seed := pipe.recv()) is not None:
        images, labels = batch_of(seed, network, size, batch)
        images = Preprocess(size, size).normalize(images).double().contiguous(memory_format=memory_format)
        pipe.send(step(images, labels))


def batch_of(seed: int, network: str, size: int, batch: int) -> tuple[Tensor, Tensor]:
    """Noise, uint8 (N, 3, H, W), and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    return images, torch.randint(spec(network).classes, (batch,), generator=generator)


class Turns:
    """A process for each library that does `work`; called with a seed, each makes a step."""

    def __init__(self, work: Callable, libraries: list[str], *case: Any):
        context = multiprocessing.get_context("spawn")
        self.libraries, self.pipes, self.processes = libraries, [], []
        for library in libraries:
            pipe, its_end = context.Pipe()
            self.processes.append(context.Process(target=work, args=(its_end, library, *case), daemon=True))
            self.processes[-1].start()
            self.pipes.append(pipe)

    def __call__(self, seed: int) -> dict[str, float]:
        """The answer of each library."""
        answers = {}
        for library, pipe in zip(self.libraries, self.pipes, strict=True):
            pipe.send(seed)
            answers[library] = pipe.recv()
        return answers

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def measure(network: str, size: int, batch: int, rounds: int, threads: int) -> dict[str, Any]:
    """The row of one case."""
    peers = [
        library
        for library in LIBRARIES
        if (library, network) in UNLIKE or any(p.library == library and network in p.networks for p in PEERS)
    ]
    peers = [p for p in peers if p != "pytorchcv" or len(peers) == 1]  # where the two of the issue have none
    with Turns(timed, ["ours", *peers], network, size, batch, threads) as turns:
        steps = [turns(seed) for seed in range(rounds + 2)][2:]
    seconds = {library: [step[library] for step in steps] for library in ("ours", *peers)}
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
    """The largest difference between our loss and that of a peer in `STEPS` steps; our first and last loss."""
    with Turns(exact, ["ours", *peers], network, size, 32 if size < 100 else 4, threads) as turns:
        steps = [turns(0) for _ in range(STEPS)]
    differences = [abs(losses["ours"] - losses[p]) for losses in steps for p in peers]
    return {"loss_difference": max(differences), "losses": [round(steps[i]["ours"], 4) for i in (0, -1)]}


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
        for size, batch in INPUTS.get(network, [(224, 32), (32, 128)]):
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
