"""G5: a data set with damaged files of twelve kinds trains exactly as the same set without them, and lists them all."""

import hashlib
import io
import json
import os
import random
import shlex
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from commands import Server, differences, serving
from tiny import images

GOAL = "G5: 1 % bad files of 12 kinds: exactly those are listed, and the weights are those of a run without them"
FULL = 10  # data sets of 1,200 images
SHORT = 1  # of 144

TRAINING = shlex.split("--network tiny --size 12 --recipe small --epochs 2 --batch 16 --lr 0.02 --threads 1")

Damage = Callable[[random.Random, Image.Image], tuple[str, bytes]]


def run(trials: int, seed: int, folder: Path) -> list[str]:
    """Train on `trials` data sets with damaged files and on the same without them; a line for each difference."""
    count = 1200 if trials >= FULL else 144
    with serving() as server:
        return [line for n in range(trials) for line in one_set(server, count, seed + n, folder / str(n))]


def one_set(server: Server, count: int, seed: int, folder: Path) -> list[str]:
    """What is wrong with the run on data set `seed`."""
    damaged, cleaned = folder / "damaged/pictures", folder / "cleaned/pictures"
    bad = write_set(random.Random(seed), count, seed, damaged, cleaned)
    codes = {}
    for source in (damaged, cleaned):
        argv = ["train", "--data", source, "--out", source.parent / "run", "--on-bad-file", "skip", *TRAINING]
        codes[source] = server.run(argv, folder / "output")
        if codes[source]:
            return [f"seed {seed}: {source.parent.name}: {(folder / 'output').read_text()}"]
    rows = [json.loads(line) for line in (damaged.parent / "run/bad_files.jsonl").read_text().splitlines()]
    listed = {row["name"]: row for row in rows}
    failures = [f"seed {seed}: {name} ({bad[name][0]}) is not listed" for name in bad.keys() - listed.keys()]
    failures += [f"seed {seed}: {name} is listed but good" for name in listed.keys() - bad.keys()]
    failures += [
        f"seed {seed}: {name}: {row}" for name, row in listed.items() if name in bad and not told(row, *bad[name])
    ]
    failures += [f"seed {seed}: listed twice" for _ in range(len(listed), len(rows))]
    runs = (damaged.parent / "run", cleaned.parent / "run")
    splits = [json.loads((run / "split.json").read_text()) | {"bad": None} for run in runs]
    differing = [name for name in differences(*runs) if name not in ("split.json", "left_out")]
    if differing or splits[0] != splits[1]:
        failures.append(f"seed {seed}: the runs differ in {', '.join(differing or ['their parts'])}")
    result = json.loads((damaged.parent / "run/result.json").read_text())
    left_aside = " ".join(result["warnings"])
    failures += [f"seed {seed}: {name} is not in the warnings" for name in ASIDE if name not in left_aside]
    whole = folder / "whole"
    if server.run(["train", "--data", cleaned, "--out", whole, "--seed", 1, *TRAINING], folder / "output"):
        return [*failures, f"seed {seed}: {(folder / 'output').read_text()}"]
    if "model.safetensors" not in differences(whole, cleaned.parent / "run"):
        failures.append(f"seed {seed}: another seed ends alike, so this test can't fail")
    return failures


def told(row: dict[str, str], kind: str, id: str, content: bytes) -> bool:
    """Whether a row of bad_files.jsonl says what is wrong, and with which bytes."""
    right = row["id"] == id and row["sha256"] == hashlib.sha256(content).hexdigest()
    return right and row["name"].startswith(f"{row['label']}/") and row["name"] in row["reason"]


def write_set(chance: random.Random, count: int, seed: int, damaged: Path, cleaned: Path) -> dict[str, tuple]:
    """Write both; by name the kind, the catalogue's ID and the content of each damaged file."""
    pictures, bad = images(count, seed), {}
    places = dict(zip(chance.sample(range(count), max(len(KINDS), count // 100)), list(KINDS) * count, strict=False))
    for index in range(count):
        pixels, label = pictures[index]
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        name, content = f"{pictures.classes[label]}/{index:04}", encoded(image, chance.choice(("JPEG", "PNG")))
        if index in places:
            damage, id = KINDS[places[index]]
            suffix, broken = damage(chance, image)
            if id in ("D1", "D2", "D3"):
                refuse_if_decodable(places[index], broken)
            bad[name + suffix] = (places[index], id, broken)
            write(damaged / (name + suffix), broken)
        else:
            for root in (damaged, cleaned):
                write(root / f"{name}.png", content)  # of a JPEG too: what counts is the content
    os.mkfifo(damaged / ASIDE[0])
    (damaged / ASIDE[1]).symlink_to("nowhere.png")
    (damaged / "a/folder.jpg").mkdir()
    return bad


ASIDE = ("a/pipe.jpg", "a/dangling.png")
"""Left aside when the folder is listed, so that nothing ever opens them."""


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def encoded(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def refuse_if_decodable(kind: str, content: bytes) -> None:
    """So that no damage is harmless by luck."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return
    raise AssertionError(f"{kind} can be decoded")


# --- the kinds of damage ---


def cut(format: str) -> Damage:
    def damage(chance: random.Random, image: Image.Image) -> tuple[str, bytes]:
        whole = encoded(image, format)
        return f".{format.lower()}", whole[: int(len(whole) * chance.uniform(0.25, 0.9))]

    return damage


def zero_tail(chance: random.Random, image: Image.Image) -> tuple[str, bytes]:
    whole = encoded(image, "PNG")
    kept = int(len(whole) * chance.uniform(0.2, 0.7))
    return ".png", whole[:kept] + bytes(len(whole) - kept)


def flipped(chance: random.Random, image: Image.Image) -> tuple[str, bytes]:
    whole = bytearray(encoded(image, "PNG"))
    start = whole.index(b"IDAT") + 4
    whole[chance.randrange(start + 2, len(whole) - 20)] ^= 1 << chance.randrange(8)
    return ".png", bytes(whole)


def bomb(chance: random.Random, image: Image.Image) -> tuple[str, bytes]:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side = chance.randrange(8_000, 13_000)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 2) * side))
    return ".png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def floats(chance: random.Random, image: Image.Image) -> tuple[str, bytes]:
    return ".tif", encoded(Image.fromarray(np.asarray(image.convert("L"), dtype=np.float32)), "TIFF")


def instead(suffix: str, content: bytes) -> Damage:
    return lambda chance, image: (suffix, content)


KINDS: dict[str, tuple[Damage, str]] = {
    "JPEG cut off": (cut("JPEG"), "D1"),
    "PNG cut off": (cut("PNG"), "D1"),
    "zeros at its end": (zero_tail, "D1"),
    "a bit flipped in its pixels": (flipped, "D1"),
    "empty": (instead(".jpg", b""), "D2"),
    "an HTML page": (instead(".jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"), "D3"),
    "text": (instead(".png", b"name,label\ncat,0\n"), "D3"),
    "HEIC named JPEG": (instead(".jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)), "D3"),
    "PDF": (instead(".jpg", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"), "D3"),
    "random bytes": (lambda chance, image: (".png", b"\xb7" + chance.randbytes(400)), "D3"),
    "a decompression bomb": (bomb, "D5"),
    "floating-point TIFF": (floats, "D9"),
}
