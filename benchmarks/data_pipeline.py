"""From JPEG files to training batches of 224 px: images per second on one core, against torchvision and timm.

    python benchmarks/data_pipeline.py PHOTOS [--rounds 7]

PHOTOS is a folder of images, of which larger ones are made: mosaics, JPEG of quality 90.  Each library reads the same
files with its own loader and its own settings, in this process, with one thread, and gives normalised float batches:

    ours          the loader and the normalisation of `convatlas train`, augmentation `crop`; evaluation by `Preprocess`
    torchvision   ImageFolder and DataLoader with the presets of references/classification: `pil`, their default, and
                  `tensor`, as their `--backend tensor` (decoded by Pillow, resized as a tensor)
    timm          create_dataset and create_loader, no prefetcher, its defaults but for the colours' jitter, which the
                  others have not

They take turns, a batch each; seconds are those that the processor worked.  A ratio is that of neighbouring turns
against the better of the others.  `difference` is between evaluation of our pixels and of those of a whole decode, of
255.  Writes results/data_pipeline.json.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from convatlas import Preprocess, Recipe
from convatlas.data.decode import decode
from convatlas.data.open import read_source
from convatlas.train.augment import build_augment
from convatlas.train.loader import train_batches
from convatlas.train.order import Order
from convatlas.train.run import environment

RESULTS = Path(__file__).parents[1] / "results/data_pipeline.json"
SIZES = {(500, 375): (1, 32), (2000, 1500): (4, 16), (4000, 3000): (8, 8)}  # px: photos a side, images a batch
PRE = Preprocess()
MEAN, STD = PRE.mean, PRE.std


def mosaics(photos: list[Path], size: tuple[int, int], side: int, count: int, folder: Path) -> None:
    """Write `count` images in two classes, of `side` x `side` photos each."""
    width, height = size
    cell = (width // side, height // side)
    for number in range(count):
        canvas = Image.new("RGB", size)
        for place in range(side * side):
            photo = Image.open(photos[(number * side + place * 7) % len(photos)]).convert("RGB").resize(cell)
            canvas.paste(photo, (place % side * cell[0], place // side * cell[1]))
        path = folder / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path, quality=90)


def batches(folder: Path, training: bool, batch: int, seed: int) -> dict[str, Callable[[], Iterator[Tensor]]]:
    """By library: an epoch of float batches (N, 3, 224, 224)."""
    images = read_source(folder).images
    augment = build_augment(Recipe(augment="crop"), PRE)

    def ours() -> Iterator[Tensor]:
        if training:
            for pixels, _, _ in train_batches(images, augment, PRE.size, Order(len(images), batch, seed, 0, 1)):
                yield PRE.normalize(pixels).contiguous(memory_format=torch.channels_last)
        else:
            for start in range(0, len(images), batch):
                group = range(start, min(start + batch, len(images)))
                yield PRE.normalize(torch.stack([PRE.geometry(images.read(i)) for i in group]))

    def torchvision(transform: Callable) -> Callable[[], Iterator[Tensor]]:
        loader = DataLoader(ImageFolder(str(folder), transform), batch, shuffle=training)
        return lambda: (pixels for pixels, _ in loader)

    def timm() -> Iterator[Tensor]:
        dataset = create_dataset("", str(folder), is_training=training)
        loader = create_loader(
            dataset, (3, 224, 224), batch, is_training=training, use_prefetcher=False, num_workers=0,
            color_jitter=None, device=torch.device("cpu"), persistent_workers=False,
        )  # fmt: skip
        return (pixels for pixels, _ in loader)

    end = [transforms.Normalize(MEAN, STD)]
    pil_end = [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float), *end]
    tensor_end = [v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor()]
    if training:
        pil = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *pil_end]
        tensor = [v2.PILToTensor(), v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), *tensor_end]
    else:
        pil = [transforms.Resize(256), transforms.CenterCrop(224), *pil_end]
        tensor = [v2.PILToTensor(), v2.Resize(256, antialias=True), v2.CenterCrop(224), *tensor_end]
    return {"ours": ours, "torchvision_pil": torchvision(transforms.Compose(pil)),
            "torchvision_tensor": torchvision(v2.Compose(tensor)), "timm": timm}  # fmt: skip


def measure(folder: Path, training: bool, batch: int, rounds: int) -> dict:
    """Images per second of each library, the ratio against the better of the others, and its range."""
    seconds: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for library, epoch in batches(folder, training, batch, turn).items():
            started = time.process_time()
            (pixels,) = epoch()
            spent = time.process_time() - started
            assert pixels.shape == (batch, 3, 224, 224)
            if turn:
                seconds.setdefault(library, []).append(spent)
    peers = [library for library in seconds if library != "ours"]
    best = min(peers, key=lambda library: statistics.median(seconds[library]))
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds[best], strict=True)]
    speeds = {library: round(batch / statistics.median(s), 1) for library, s in seconds.items()}
    return {**speeds, "best_peer": best, "ratio_best_peer": round(statistics.median(ratios), 2),
            "spread": [round(min(ratios), 2), round(max(ratios), 2)]}  # fmt: skip


def difference(folder: Path) -> dict:
    """Mean and largest difference of the network's input, of 255, between our decode and one of the whole image."""
    found = []
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            whole = v2.functional.pil_to_tensor(image.convert("RGB"))
        found.append((PRE.geometry(decode(path)).int() - PRE.geometry(whole).int()).abs())
    every = torch.stack(found)
    return {"mean_difference": round(every.float().mean().item(), 3), "largest_difference": int(every.max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="a folder of images")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    photos = sorted(p for p in options.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not photos:
        parser.error(f"no JPEG files in {options.photos}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for size, (side, batch) in SIZES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            mosaics(photos, size, side, batch, folder)
            for training in (True, False):
                row = {"images": f"{size[0]}x{size[1]}", "what": "training" if training else "evaluation"}
                rows.append(row | measure(folder, training, batch, options.rounds) | difference(folder))
                print(json.dumps(rows[-1]), flush=True)
    record = {"command": f"python benchmarks/data_pipeline.py PHOTOS --rounds {options.rounds}",
              "clock": "processor time, one thread", "environment": environment(), "rows": rows}  # fmt: skip
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
