"""From the command to the first answer: one image, one process each time, files in the page cache.

    python benchmarks/startup.py [--rounds 9]

    torch        python -c "import torch", and nothing else
    weights      the same, and the weights read from their file: the least that a prediction by PyTorch must do
    bundle       convatlas predict model.safetensors IMAGE --engine torch
    onnx         convatlas predict model.onnx IMAGE
    no torch     Pillow, NumPy and ONNX Runtime on the same model.onnx, with what is embedded in it (`WITHOUT` below)

They take turns on one core; seconds are those that the processor worked, `wall` those on the clock.  A ratio is that of
neighbouring turns against `weights`.  Weights are random.  Writes results/startup.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas.deploy.bench import fresh
from convatlas.deploy.export import export_program
from convatlas.train.run import environment
from convatlas.zoo import spec

RESULTS = Path(__file__).parents[1] / "results/startup.json"
NETWORKS = ("mobilenet_v2", "resnet50.v1_5")
TORCH = "import torch"
WEIGHTS = "import sys, torch, safetensors.torch; safetensors.torch.load_file(sys.argv[1])"
WITHOUT = """
import json, sys
import numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["convatlas"])
resize, size = about["preprocess"]["resize"], about["preprocess"]["size"]
image = Image.open(sys.argv[2]).convert("RGB")
scale = resize / min(image.size)
image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
left, top = ((side - size) // 2 for side in image.size)
pixels = np.asarray(image.crop((left, top, left + size, top + size)))[None]
logits = session.run(None, {session.get_inputs()[0].name: pixels})[0][0]
assert "torch" not in sys.modules
print(about["classes"][logits.argmax()])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a person's Python compiles a module once
    with tempfile.TemporaryDirectory() as name:
        rows = [row for network in NETWORKS for row in measure(network, Path(name), options.rounds)]
    record = {"command": f"python benchmarks/startup.py --rounds {options.rounds}",
              "clock": "processor time of the process, one thread", "environment": environment(),
              "rows": rows}  # fmt: skip
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


def measure(network: str, folder: Path, rounds: int) -> list[dict]:
    """A row for each way to begin."""
    bundle = fresh(spec(network))
    model, exported, image = folder / f"{network}.safetensors", folder / f"{network}.onnx", folder / "photo.jpg"
    bundle.save(model)
    export_program(bundle, "onnx", exported)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)).save(image)
    program = str(Path(sys.executable).with_name("convatlas"))
    commands = {
        "torch": [sys.executable, "-c", TORCH],
        "weights": [sys.executable, "-c", WEIGHTS, model],
        "bundle": [program, "predict", model, image, "--engine", "torch"],
        "onnx": [program, "predict", exported, image],
        "no torch": [sys.executable, "-c", WITHOUT, exported, image],
    }
    worked: dict[str, list[float]] = {name: [] for name in commands}
    passed: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            before, started = processor_seconds(), time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first one fills the page cache
                passed[name].append(time.perf_counter() - started)
                worked[name].append(processor_seconds() - before)
    rows = []
    for name, seconds in worked.items():
        ratios = [a / b for a, b in zip(seconds, worked["weights"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append({"network": network, "way": name, "seconds": round(statistics.median(seconds), 2),
                     "wall": round(statistics.median(passed[name]), 2), "over_weights": round(middle, 3),
                     "spread": [round(low, 3), round(high, 3)]})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def processor_seconds() -> float:
    """What all children so far have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
