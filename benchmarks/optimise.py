"""What each transform of convatlas.deploy.optimise is worth in each runtime: alone, and all of them together.

    python benchmarks/optimise.py [NETWORK ...] [--seconds 4] [--out results/optimise.json]

A ratio above 1 is time saved.  Each transform is measured against the network with its dead parts and BatchNorms gone,
where it changes anything; "all" are those of `FOR` against the plain export.  One thread, processor seconds, turn by
turn; the ratio is the median of the pairs', the spread their quartiles.  Weights and statistics are random, seed 0.
"""

import argparse
import copy
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from torch import nn

from convatlas import create
from convatlas.deploy.optimise import FOR, drop_dead, fold_batch_norm, optimise, preallocate
from convatlas.train.run import environment
from convatlas.tree import Net
from convatlas.zoo import spec

NETWORKS = (
    "resnet18.b", "resnet50", "resnet50.v1_5", "vgg11", "googlenet.torchvision", "inception_v3", "densenet121",
    "se_resnet50.v1_5.bias", "mobilenet_v1", "mobilenet_v2", "shufflenet.g3", "preact_resnet50.pytorchcv",
)  # fmt: skip
BATCHES = (1, 8)
BEHIND = {preallocate: "clamp_before_convolution"}  # without the other, it changes nothing
Run = Callable[[np.ndarray], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=4, help="of each comparison")
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in o.networks:
        for row in measure(name, o.seconds):
            rows.append(row)
            print(json.dumps(row), flush=True)
    if o.out:
        what = {"command": f"python benchmarks/optimise.py --seconds {o.seconds:g}", "environment": environment()}
        o.out.write_text(json.dumps(what | {"rows": rows}, indent=1) + "\n", "utf-8")


def measure(name: str, seconds: float) -> list[dict[str, Any]]:
    """The rows of one network."""
    plain, size = trained(name), spec(name).size
    nets = {"plain": plain, "base": fold_batch_norm(drop_dead(copy.deepcopy(plain)))}
    pairs = {"fold_batch_norm": ("plain", "base")}
    for transform in dict.fromkeys(t for transforms in FOR.values() for t in transforms):
        key, before = transform.__name__, BEHIND.get(transform, "base")
        if before in nets and repr(after := transform(copy.deepcopy(nets[before]))) != repr(nets[before]):
            nets[key], pairs[key] = after, (before, key)
    pairs["all"] = ("plain", "all")
    models: dict[str, bytes] = {}
    rows = []
    for runtime, load in RUNTIMES.items():
        nets["all"] = optimise(copy.deepcopy(plain), runtime)
        if runtime != "torch":
            models |= {key: exported(net, size) for key, net in nets.items() if key == "all" or key not in models}
        runs = {key: load(net if runtime == "torch" else models[key]) for key, net in nets.items()}
        for batch in BATCHES:
            times = take_turns(runs, np.random.RandomState(0).randn(batch, 3, size, size).astype(np.float32), seconds)
            for transform, (before, after) in pairs.items():
                ratios = [a / b for a, b in zip(times[before], times[after], strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                row = {"network": name, "transform": transform, "engine": runtime, "batch": batch}
                ms = {"before_ms": times[before], "after_ms": times[after]}
                row |= {key: round(1000 * statistics.median(values), 3) for key, values in ms.items()}
                rows.append(row | {"ratio": round(middle, 3), "spread": [round(low, 3), round(high, 3)]})
    return rows


def trained(name: str) -> Net:
    """The network in eval mode, with statistics that are not the trivial ones."""
    torch.manual_seed(0)
    net = create(name).eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.get_buffer("running_mean"), -0.2, 0.2)
            nn.init.uniform_(m.get_buffer("running_var"), 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1)
    return net


def take_turns(runs: dict[str, Run], images: np.ndarray, seconds: float) -> dict[str, list[float]]:
    """Processor seconds of each, one turn after another."""
    for run in runs.values():
        run(images)
    times: dict[str, list[float]] = {key: [] for key in runs}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times["plain"]) < 7:
        for key, run in runs.items():
            start = time.process_time()
            run(images)
            times[key].append(time.process_time() - start)
    return times


def exported(net: Net, size: int) -> bytes:
    """As ONNX, images (N, 3, size, size) -> logits (N, classes), N free."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net, (torch.randn(2, 3, size, size),), dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    return program.model_proto.SerializeToString()


def in_torch(net: Net) -> Run:
    net = copy.deepcopy(net).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(images: np.ndarray) -> torch.Tensor:
        return net(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))

    return run


def in_onnxruntime(model: bytes) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})


def in_openvino(model: bytes) -> Run:
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda images: request.infer([images], share_inputs=True, share_outputs=True)


RUNTIMES: dict[str, Callable[[Any], Run]] = {
    "torch": in_torch,
    "onnxruntime": in_onnxruntime,
    "openvino": in_openvino,
}

if __name__ == "__main__":
    main()
