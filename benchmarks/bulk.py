"""From a folder of JPEG files to a file of results: images per second on one core, against timm and torchvision.

    python benchmarks/bulk.py PHOTOS [--rounds 5]

PHOTOS is a folder of images, of which larger ones are made: mosaics, JPEG of quality 90.  The weights are random but
for the last layer, which is fitted so that each image is a class of its own, and the same for all (through
`weights.convert`).  `top1` are the images that each then knows, `top1_equal` those to which ours and the better peer
give the same class.  All read the same files with one thread in this process, from opening a file to the results on
disk; building a network is not measured:

    fp32          what `convatlas predict MODEL FOLDER --out results.csv --workers 0` does, with the engine that
                  `--engine auto` chose for this machine
    int8          the same with what `convatlas export --int8` makes, its ranges and its gate from these images
    timm          as its inference.py: create_dataset, create_loader with the network's settings, softmax, top-1 to CSV
    torchvision   ImageFolder, DataLoader with the weights' usual preset (resize 256, crop 224), softmax, top-1 to CSV

They take turns; seconds are those that the processor worked.  A ratio is that of neighbouring turns against the better
of the others.  Rows are written to results/bulk.json when their network is done; those that are there are not measured
again.
"""

import argparse
import csv
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import timm
import torch
import torchvision
from data_pipeline import mosaics
from timm.data import create_dataset, create_loader, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from convatlas import Bundle, Preprocess, auto, decode, spec
from convatlas.data import Images
from convatlas.deploy.bulk import Partial, make_here, write_rows
from convatlas.deploy.engine import Engine, in_onnxruntime
from convatlas.deploy.inputs import find_inputs
from convatlas.deploy.model import Model, of_engine
from convatlas.deploy.quantise import quantise
from convatlas.deploy.rows import Table
from convatlas.train.run import environment
from convatlas.weights.convert import to_theirs
from convatlas.weights.peers import PEERS

RESULTS = Path(__file__).parents[1] / "results/bulk.json"
NETWORKS = ("mobilenet_v2", "resnet50.v1_5")
SIZES = {(500, 375): (1, 96), (2000, 1500): (4, 24)}  # px: photos a side, images (of 96 photos, all different)
BATCH = 32
SHARP = 20.0  # what the logit of the right class is above the others
Script = Callable[[Path, Path], None]
"""Predicts the images of a folder into a file."""


@torch.no_grad()
def bundle_for(network: str, images: list[Path]) -> Bundle:
    """Random weights but for the last layer, which ridge regression fits so that each image is a class of its own."""
    torch.manual_seed(0)
    arch, pre = spec(network), Preprocess()
    net, pixels = arch.build().train(), torch.stack([pre(decode(path)) for path in images])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    for batch in pixels.split(16):
        net(batch)
    net.eval()
    *_, last = (module for module in net.modules() if isinstance(module, nn.Linear))
    found: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    for batch in pixels.split(16):
        net(batch)
    handle.remove()
    features, count = torch.cat(found), len(images)
    centre = features.mean(0)
    products = (features - centre) @ (features - centre).T
    wanted = torch.eye(count) - 1 / count
    ridge = 0.01 * products.diagonal().mean() * torch.eye(count)
    weight = torch.linalg.solve(products + ridge, wanted).T @ (features - centre)
    last.weight.zero_()[:count] = SHARP * weight
    last.bias.fill_(-SHARP)[:count] = SHARP * (1 / count - weight @ centre)
    return Bundle(arch, net.state_dict(), tuple(map(str, range(arch.classes))), pre)


def theirs(bundle: Bundle, library: str) -> nn.Module:
    """The same network of another library with the same weights."""
    peer = next(p for p in PEERS if p.library == library and bundle.spec.name in p.networks)
    name = peer.networks[bundle.spec.name]
    build = timm.create_model if library == "timm" else torchvision.models.get_model
    net = build(name)
    net.load_state_dict(to_theirs(peer, bundle.spec, bundle.weights))
    return net.eval()


def ours(model: Model) -> Script:
    def run(folder: Path, out: Path) -> None:
        inputs = find_inputs([folder])
        table = Table("csv", model.classes, 1)
        results = Partial(out, table, len(inputs))
        results.claim({})
        for _ in write_rows(
            results, lambda spans: make_here(spans, model=model, inputs=inputs, table=table, batch=BATCH, workers=0)
        ):
            pass
        results.folder.rmdir()

    return run


def of_timm(net: nn.Module) -> Script:
    settings = resolve_data_config({}, model=net) | {"crop_pct": 224 / 256, "interpolation": "bilinear"}

    def run(folder: Path, out: Path) -> None:
        dataset = create_dataset("", str(folder))
        loader = create_loader(
            dataset, settings["input_size"], BATCH, use_prefetcher=False, num_workers=0, device=torch.device("cpu"),
            mean=settings["mean"], std=settings["std"], interpolation=settings["interpolation"],
            crop_pct=settings["crop_pct"], persistent_workers=False,
        )  # fmt: skip
        write(net, loader, dataset.filenames(), out)

    return run


def of_torchvision(net: nn.Module) -> Script:
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(Preprocess().mean, Preprocess().std)])

    def run(folder: Path, out: Path) -> None:
        dataset = ImageFolder(str(folder), transform)
        write(
            net, DataLoader(dataset, BATCH), [str(Path(path).relative_to(folder)) for path, _ in dataset.samples], out
        )

    return run


@torch.inference_mode()
def write(net: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], names: list[str], out: Path) -> None:
    """Top-1 of every image, as the scripts of both libraries make it."""
    rows = []
    for pixels, _ in loader:
        probability, label = net(pixels).softmax(1).max(1)
        rows += zip(label.tolist(), probability.tolist(), strict=True)
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "class", "probability"], *([n, *row] for n, row in zip(names, rows, strict=True))]
        )


def answers(out: Path, folder: Path) -> dict[str, str]:
    """The class by the path in the folder."""
    with out.open(newline="") as file:
        return {row["path"].removeprefix(f"{folder}/"): row["class"] for row in csv.DictReader(file)}


def measure(scripts: dict[str, Script], folder: Path, labels: dict[str, str], rounds: int) -> list[dict]:
    """A row for each precision of ours: images per second, the ratio against the better peer, equal answers."""
    seconds: dict[str, list[float]] = {name: [] for name in scripts}
    found: dict[str, dict[str, str]] = {}
    for turn in range(rounds + 1):
        for name, script in scripts.items():
            with tempfile.TemporaryDirectory() as results:
                started = time.process_time()
                script(folder, Path(results, "results.csv"))
                if turn:  # the first one warms up
                    seconds[name].append(time.process_time() - started)
                found[name] = answers(Path(results, "results.csv"), folder)
    images, peers = len(labels), ("timm", "torchvision")
    best = min(peers, key=lambda name: statistics.median(seconds[name]))
    speeds = {name: round(images / statistics.median(taken), 1) for name, taken in seconds.items()}
    right = {name: sum(label == labels[path] for path, label in rows.items()) for name, rows in found.items()}
    rows = []
    for precision in scripts.keys() - peers:
        ratios = [a / b for a, b in zip(seconds[best], seconds[precision], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append({"precision": precision, "images": images, "ours": speeds[precision],
                     **{name: speeds[name] for name in peers}, "ratio": round(middle, 2),
                     "spread": [round(low, 2), round(high, 2)],
                     "top1": {"ours": right[precision], **{name: right[name] for name in peers}},
                     "top1_equal": sum(found[precision][p] == label for p, label in found[best].items())})  # fmt: skip
    return sorted(rows, key=lambda row: row["precision"])


def in_int8(bundle: Bundle, paths: list[Path]) -> Engine:
    """What `convatlas export --int8` makes of it."""
    labels = torch.arange(len(paths))
    images = Images(bundle.classes, labels, tuple(map(str, paths)), lambda index: decode(paths[index]))
    return in_onnxruntime(quantise(bundle, images, images, progress=print).content, "int8", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="a folder of images")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    photos = sorted(p for p in options.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not photos:
        parser.error(f"no JPEG files in {options.photos}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for size, (side, count) in SIZES.items():
            mosaics(photos, size, side, count, root / f"{size[0]}x{size[1]}")
        images = sorted(root.rglob("*.jpg"))
        for network in sorted(set(NETWORKS) - {row["network"] for row in rows}):
            bundle = bundle_for(network, images)
            choice = auto(bundle.save(root / f"{network}.safetensors"), batch=BATCH, threads=1)
            engines = {"fp32": choice.engine, "int8": in_int8(bundle, images)}
            scripts = {precision: ours(of_engine(engine)) for precision, engine in engines.items()}
            scripts |= {"timm": of_timm(theirs(bundle, "timm")),
                        "torchvision": of_torchvision(theirs(bundle, "torchvision"))}  # fmt: skip
            for width, height in SIZES:
                folder = root / f"{width}x{height}"
                labels = {str(p.relative_to(folder)): str(n) for n, p in enumerate(images) if p.is_relative_to(folder)}
                for row in measure(scripts, folder, labels, options.rounds):
                    about = {
                        "network": network,
                        "photos": f"{width}x{height}",
                        "engine": engines[row["precision"]].name,
                    }
                    rows.append(about | row)
                    print(json.dumps(rows[-1]), flush=True)
            record = {"command": f"python benchmarks/bulk.py PHOTOS --rounds {options.rounds}",
                      "clock": "processor time, one thread", "weights": "random; the last layer fitted to the images",
                      "environment": environment(), "rows": rows}  # fmt: skip
            RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
