"""At least one network of each family, trained on CIFAR-10 by the same short recipe.

    python benchmarks/cifar10.py DATA [--networks resnet20 plain20 ...] [--seeds 0 1 2] [--costs]

Every run is a `convatlas train` of its own, whose test images are looked at once.  Stopped and started again it goes on
where it was, and only runs that are missing are trained: first all networks with the first seed, then with the next.
The split is the same for all.  Step time and memory are measured apart from training, see `benchmarks/train_memory.py`;
a row is written to results/cifar10.json as soon as its network has a seed.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from convatlas import Recipe, create

from step import stepper

ROOT = Path(__file__).parent.parent
RESULTS, RUNS, RECIPE = ROOT / "results/cifar10.json", ROOT / "runs/cifar10", "cifar10"
STEPS = 7  # timed, after one of warm-up

NETWORKS = {  # and the side of their input in pixels
    "resnet20": 32,
    "plain20": 32,
    "se_resnet20": 32,
    "vgg11_bn.cifar": 32,
    "resnet56": 32,
    "plain56": 32,
    "shufflenet.g3.cifar": 32,
    "alexnet.cifar": 32,
    "mobilenet_v1.cifar": 32,
    "mobilenet_v2.cifar": 32,
    "preact_resnet110": 32,
    "googlenet.bn": 64,  # its form for 32 px costs 12 times as much
    "bn_inception": 64,
    "inception_v3": 96,
    "densenet40_k12": 32,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="cifar10, or a folder with its images in Parquet files")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--costs", action="store_true", help="train nothing, measure steps again on a quiet machine")
    options = parser.parse_args()
    if options.costs:
        measure_again()
        return
    for seed in options.seeds:
        for network in options.networks:
            result = run(options.data, network, seed)
            print(f"{network} seed {seed}: {result['test']['accuracy']:.2%}", flush=True)
            write(network, [r for s in options.seeds if (r := finished(network, s))])


def run(data: str, network: str, seed: int) -> dict:
    """The result of one training run, which is done if it is not there."""
    if not finished(network, seed):
        program, *flags = command(data, network, seed)
        subprocess.run([Path(sys.executable).with_name(program), *flags, "--out", folder(network, seed)], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    return finished(network, seed) or {}


def command(data: str, network: str, seed: int | str) -> list[str]:
    return ["convatlas", "train", "--data", data, "--network", network, "--size", str(NETWORKS[network]),
            "--recipe", RECIPE, "--seed", str(seed)]  # fmt: skip


def folder(network: str, seed: int) -> Path:
    return RUNS / f"{network}-{seed}"


def finished(network: str, seed: int) -> dict | None:
    path = folder(network, seed) / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def write(network: str, results: list[dict]) -> None:
    """The network's row, beside those of the others; its cost is measured once."""
    rows = {row["network"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    accuracy = [result["test"]["accuracy"] for result in results]
    before = rows.get(network, {})
    cost = {key: before[key] for key in ("step_ms", "peak_mb")} if before.get("step_ms") else measured(network)
    rows[network] = {
        "network": network,
        "size": NETWORKS[network],
        "recipe": RECIPE,
        "epochs": results[0]["epochs"],
        "seeds": [result["seed"] for result in results],
        "test_accuracy": accuracy,
        "mean": statistics.mean(accuracy),
        "std": statistics.stdev(accuracy) if len(accuracy) > 1 else None,
        "val_accuracy": [result["kept"]["val_accuracy"] for result in results],
        "train_loss": [result["kept"]["train_loss"] for result in results],
        "params": results[0]["params"],
        "macs": results[0]["macs"],
        **cost,
        "command": " ".join(command("cifar10", network, "SEED")),
        "environment": results[0]["environment"],
    }
    order = [name for name in NETWORKS if name in rows]
    RESULTS.write_text(json.dumps([rows[name] for name in order], indent=1) + "\n")


def measure_again() -> None:
    """Fill the columns of cost anew."""
    rows = json.loads(RESULTS.read_text())
    for row in rows:
        row |= measured(row["network"])
        print(f"{row['network']}: {row['step_ms']} ms, {row['peak_mb']} MB", flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


def measured(network: str) -> dict[str, float]:
    """Milliseconds of a training step (the median) and the MB by which it raises the peak of a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(cost_of_a_step, (network,))


def cost_of_a_step(network: str) -> dict[str, float]:
    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    size, before = NETWORKS[network], peak()
    batch = Recipe.load(RECIPE).batch
    net = create(network, classes=10, size=size).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    step = stepper(net, images, torch.randint(0, 10, (batch,)))
    seconds = [step() for _ in range(STEPS + 1)][1:]
    return {"step_ms": round(1000 * statistics.median(seconds), 1), "peak_mb": round(peak() - before)}


if __name__ == "__main__":
    main()
