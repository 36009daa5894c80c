"""What int8 costs and brings: accuracy on images that took no part in it, images per second, size of the file.

    python benchmarks/int8.py DATA MODEL [MODEL ...] [--rounds 60]

DATA is CIFAR-10; a MODEL is a bundle trained on it, or the folder of its run.  Ranges come from training images, the
gate looks at the validation images, and top-1 is of the test images.  Both files run in ONNX Runtime with one thread
and take turns, a batch each; seconds are those that the processor worked.  Writes results/int8.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from convatlas import Bundle, open_data
from convatlas.deploy.engine import in_onnxruntime
from convatlas.deploy.export import to_onnx
from convatlas.deploy.quantise import accuracy, quantise, sample
from convatlas.train.evaluate import align
from convatlas.train.run import environment
from convatlas.weights.bundle import model_file

RESULTS = Path(__file__).parents[1] / "results/int8.json"
BATCHES = (1, 8)


def row(bundle: Bundle, name: str, data: str, rounds: int) -> dict:
    splits = open_data(data, enough=bundle.preprocess.enough)
    train, val, test = (align(part, bundle.classes) for part in (splits.train, splits.val, splits.test))
    made, plain = quantise(bundle, train, val, progress=print), to_onnx(bundle)
    engines = [in_onnxruntime(content, name, 1) for content in (plain, made.content)]
    pixels = sample(test, bundle.preprocess, max(BATCHES))
    result = {"network": bundle.spec.name, "weights": name, "top1_fp32": accuracy(engines[0], test),
              "top1_int8": accuracy(engines[1], test)}  # fmt: skip
    result |= {"drop": round(100 * (result["top1_fp32"] - result["top1_int8"]), 2), "gate_drop": round(made.drop, 2)}
    for batch in BATCHES:
        ratios = []
        for _ in range(rounds):
            seconds = []
            for engine in engines:
                started = time.process_time()
                for _ in range(5):
                    engine.predict(pixels[:batch])
                seconds.append(time.process_time() - started)
            ratios.append(seconds[0] / seconds[1])
        low, _, high = statistics.quantiles(ratios, n=4)
        result |= {
            f"speedup_{batch}": round(statistics.median(ratios), 2),
            f"spread_{batch}": [round(low, 2), round(high, 2)],
        }
    sizes = {"size_mb_fp32": round(len(plain) / 1e6, 2), "size_mb": round(len(made.content) / 1e6, 2)}
    return result | sizes | {"layers_in_float": list(made.kept)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="cifar10, or a folder with its images in Parquet files")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for model in options.models:
        file = model_file(model)
        name = file.parent.name if file.name == "model.safetensors" else file.stem
        rows.append(row(Bundle.load(file), name, options.data, options.rounds))
        print(json.dumps(rows[-1]), flush=True)
        record = {"command": "python benchmarks/int8.py cifar10 MODELS", "clock": "processor time, one thread",
                  "environment": environment(), "rows": rows}  # fmt: skip
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
