"""The main job's figure: `convatlas train` on the digits with five seeds.

    python benchmarks/seeds.py [--data DATA] [--seeds 0 1 2 3 4] [--out results/digits.json] [-- FLAGS OF TRAIN]

The split is the same for all seeds; they vary weights, order and augmentation.  Each run is a process of its own, as a
user starts it, and its test images are looked at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("results/digits.json"))
    parser.add_argument("flags", nargs="*", help="behind --: flags of `convatlas train`, the same for all seeds")
    args = parser.parse_args()
    data = ["--data", args.data] if args.data != "digits" else []
    command = ["convatlas", "train", "--json", *data, *args.flags]
    runs = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            program = [str(Path(sys.executable).with_name("convatlas")), *command[1:]]
            flags = ["--seed", str(seed), "--out", str(Path(folder) / "run")]
            done = subprocess.run([*program, *flags], check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout))
        write(args, runs)
        print(f"seed {seed}: {runs[-1]['test']['accuracy']:.4f} in {runs[-1]['train_seconds']} s", file=sys.stderr)
    print(args.out.read_text())


def write(args: argparse.Namespace, runs: list[dict]) -> None:
    """Everything so far, so that a long series can be stopped."""
    accuracy = [run["test"]["accuracy"] for run in runs]
    data = Path(args.data).name
    shown = ["--data", data] if data != "digits" else []
    result = {
        "command": " ".join(["convatlas train", *shown, *args.flags, "--seed SEED"]),
        "environment": runs[0]["environment"],
        "network": runs[0]["network"],
        "params": runs[0]["params"],
        "data": runs[0]["data"],
        "how": runs[0]["how"],
        "images": runs[0]["images"],
        "epochs": runs[0]["epochs"],
        "seeds": args.seeds[: len(runs)],
        "test_accuracy": accuracy,
        "mean": statistics.mean(accuracy),
        "std": statistics.stdev(accuracy) if len(accuracy) > 1 else None,
        "val_accuracy": [run["kept"]["val_accuracy"] for run in runs],
        "kept": [run["kept"]["which"] for run in runs],
        "train_seconds": [run["train_seconds"] for run in runs],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
