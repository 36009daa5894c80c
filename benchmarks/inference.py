"""Inference on one core: ours against torchvision, timm and pytorchcv, eager, compiled and exported the plain way.

    python benchmarks/inference.py [NETWORK ...] [--seconds 2] [--no-compile]

What `convatlas bench` does, for twelve networks at batch 1 and 8: the same weights (random) in all, their logits
compared first, one thread, processor seconds, all taking turns.  Ours take the pixels as they are cropped, uint8; the
others float32 images that somebody else has normalised, which is left out of their time.  `peer` is the best of the
libraries' networks in eager mode, `plain` the better of ONNX Runtime and OpenVINO on a library's network exported as
PyTorch's documentation shows (where no library has the network: on our tree as it is built).  The rows of int8 are
what `export --int8` makes, in the better of the two runtimes, ranges from noise, against our fastest in float32; for
accuracy see int8.py.  `shares` says where ONNX Runtime's time goes for one image, by its own profile.

Each network has a process of its own, and its rows are written to results/inference.json as soon as they are there;
those of a network and a precision that are there are not measured again.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convatlas.deploy.bench import AGAINST, compare, contestants, fresh, limit
from convatlas.deploy.choice import builders
from convatlas.deploy.engine import in_onnxruntime, in_openvino
from convatlas.deploy.export import example, to_onnx
from convatlas.deploy.quantise import in_int8 as quantised
from convatlas.deploy.timing import turns
from convatlas.train.run import environment
from convatlas.zoo import spec

from optimise import NETWORKS
from shares import shares

RESULTS = Path(__file__).parents[1] / "results/inference.json"
BATCHES = (1, 8)
MOBILE = ("mobilenet_v1", "mobilenet_v2", "shufflenet.g3", "densenet121")


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row of `compare` with a column for each kind of peer, and the ratios that the bars are about."""
    ms, ratio, best = row["ms"], row["ratio"], {}
    kinds = {
        "eager": [n for n in ratio if " " not in n],
        "compile": [n for n in ratio if n.endswith(" compile")],
        "onnxruntime": [n for n in ratio if n.endswith(" onnxruntime")],
        "openvino": [n for n in ratio if n.endswith(" openvino")],
    }
    kinds["plain"] = kinds["onnxruntime"] + kinds["openvino"]
    for kind, of_kind in kinds.items():
        if of_kind:
            name = min(of_kind, key=ratio.__getitem__)
            best |= {f"{kind}_ms": ms[name], f"over_{kind}": ratio[name], f"spread_{kind}": row["spread"][name]}
    about = {key: row[key] for key in ("network", "batch", "threads", "precision", "engine")}
    limits = {key: row[key] for key in ("limit_ms", "over_limit")}
    return about | {"ours_ms": ms[f"ours {row['engine']}"]} | best | limits | {"all_ms": ms}


def in_float32(name: str, against: Sequence[str], seconds: float) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The rows of a network beside the others, and what this machine can do."""
    torch.set_num_threads(1)
    bundle = fresh(spec(name))
    found, bound = contestants(bundle, against, 1), limit.measure()
    rows = [flat(compare(bundle, found, batch, seconds, bound)) for batch in BATCHES]
    rows[0]["shares"] = shares(to_onnx(bundle), example(bundle, 1).numpy())
    return rows, {key: round(value / 1e9, 1) for key, value in vars(bound).items()}


def in_int8(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The row of int8 beside one of float32."""
    torch.set_num_threads(1)
    bundle = fresh(spec(row["network"]))
    pixels = example(bundle, 16).numpy()
    content = quantised(to_onnx(bundle), pixels)
    engines = {"onnxruntime": in_onnxruntime(content, "int8", 1), "openvino": in_openvino(content, b"", "int8", 1)}
    fp32 = builders(bundle, 1)[row["engine"].split(" by ")[0]]()
    runs = {name: partial(engine.predict, pixels[: row["batch"]]) for name, engine in {"fp32": fp32, **engines}.items()}
    taken = turns(runs, seconds * len(runs), least=7, clock=time.process_time)
    best = min(engines, key=lambda name: statistics.median(taken[name]))
    ours = 1000 * statistics.median(taken[best])
    ratios = [a / b for a, b in zip(taken["fp32"], taken[best], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    about = {key: row[key] for key in ("network", "batch", "threads", "limit_ms")}
    return about | {"precision": "int8", "engine": best, "ours_ms": round(ours, 3), "over_fp32": round(middle, 3),
                    "spread_fp32": [round(low, 3), round(high, 3)],
                    "over_limit": round(ours / row["limit_ms"], 2)}  # fmt: skip


def bars(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means and least ratios, each beside what was asked for."""
    found: dict[str, Any] = {}
    for kind, wanted in (("eager", 3.0), ("compile", 1.3), ("plain", 1.05), ("fp32", 1.6)):
        ratios = [row[f"over_{kind}"] for row in rows if f"over_{kind}" in row]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            found[kind] = {"mean": round(mean, 3), "wanted": wanted, "least": min(ratios), "rows": len(ratios)}
    for name in MOBILE:
        found[f"plain, {name}"] = {
            "ratios": [row["over_plain"] for row in rows if row["network"] == name and "over_plain" in row],
            "wanted": 1.15,
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=2, help="for each contestant")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a minute each")
    options = parser.parse_args()
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    rows = record["rows"]
    against = [name for name in AGAINST if name != "compile" or not options.no_compile]
    for name in options.networks:
        started = time.monotonic()
        have = {precision: [r for r in rows if (r["network"], r["precision"]) == (name, precision)]
                for precision in ("fp32", "int8")}  # fmt: skip
        if not have["fp32"]:
            have["fp32"], record["machine"] = apart(in_float32, name, against, options.seconds)
            rows += have["fp32"]
        if not have["int8"]:
            have["int8"] = [apart(in_int8, row, options.seconds) for row in have["fp32"]]
            rows += have["int8"]
        for row in (*have["fp32"], *have["int8"]):
            print(json.dumps({key: value for key, value in row.items() if key != "all_ms"}), flush=True)
        command = f"python benchmarks/inference.py --seconds {options.seconds:g}" + " --no-compile" * options.no_compile
        record = {"command": command, "environment": environment(), "machine": record["machine"], "bars": bars(rows),
                  "rows": rows}  # fmt: skip
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a process of its own, so that no network's memory is in the way of the next."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


if __name__ == "__main__":
    main()
