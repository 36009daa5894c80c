"""Folder trees at random, each with a fault or none: a label always means the folder that its image lies in."""

import random
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from convatlas.data import Images, Preprocess, open_data
from convatlas.data.open import read_source
from convatlas.errors import DataError
from convatlas.train.evaluate import align
from convatlas.weights import Bundle
from convatlas.zoo import create, spec

GOAL = "G6: of 500 folder trees with missing, extra, renamed or twin classes none shifts a label silently"
FULL = 500
SHORT = 40

NAMES = (
    *map(str, range(13)), "007", "1a", "a1", "a10", "a9", "cat", "Cat", "CAT", "dog", "-rf", "a b", "a\nb", "5 x",
    "train", "val", "naïve", "\N{CAT FACE}", "\u65e5\u672c", "x" * 200, "'\"\\", "e\u0301t\u00e9",
)  # fmt: skip
LAYOUTS = (("",), ("train",), ("train", "val"), ("train", "valid"), ("train", "test"), ("train", "validation", "test"))


class Tree:
    """Class folders, by part, with one-coloured images; every image's colour is that of the folder it was made in."""

    def __init__(self, root: Path, random: random.Random):
        self.root, self.random = root, random
        self.parts = random.choice(LAYOUTS)
        self.names = random.sample(NAMES, random.randint(2, 6))
        if self.parts == ("",) and {"train", "val"} & {*self.names}:
            self.names = [name for name in self.names if name not in ("train", "val")] + ["ox", "emu"]
        self.colours = {name: number for number, name in enumerate(self.names)}
        for part in self.parts:
            for name in self.names:
                self.add(part, name, random.randint(3, 5))

    def add(self, part: str, name: str, count: int) -> None:
        folder = self.root / part / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = np.full((4, 4, 3), 10 * self.colours.setdefault(name, len(self.colours)), np.uint8)
            pixels[0, 0] = [*self.random.randbytes(3)]
            Image.fromarray(pixels).save(folder / f"{number}.png")

    def held_out(self) -> str:
        return self.random.choice(self.parts[1:])


def whole(tree: Tree) -> None:
    """Nothing is wrong."""


def missing(tree: Tree) -> None:
    """A part lacks a class, which it may."""
    if len(tree.parts) > 1:
        shutil.rmtree(tree.root / tree.held_out() / tree.random.choice(tree.names))


def empty(tree: Tree) -> str:
    name = tree.random.choice(tree.names)
    for file in (tree.root / tree.random.choice(tree.parts) / name).iterdir():
        file.unlink()
    return name


def extra(tree: Tree) -> str | None:
    if len(tree.parts) > 1:
        tree.add(tree.held_out(), "zebra", 3)
        return "zebra"
    return None


def renamed(tree: Tree) -> str | None:
    if len(tree.parts) > 1:
        folder = tree.root / tree.held_out() / tree.random.choice(tree.names)
        folder.rename(folder.with_name(f"{folder.name[:99]}_2"))
        return f"{folder.name[:99]}_2"
    return None


def gone_from_train(tree: Tree) -> str | None:
    if len(tree.parts) > 1 and len(tree.names) > 2:
        name = tree.random.choice(tree.names)
        shutil.rmtree(tree.root / "train" / name)
        return name
    return None


def twin(tree: Tree) -> str:
    """A class twice, in the two Unicode forms of its name."""
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "\u00e9")
        tree.add(tree.parts[0], name, 3)
    return "\u00e9"


def other_form(tree: Tree) -> str | None:
    """A class in another Unicode form in another part."""
    if len(tree.parts) > 1:
        tree.add(tree.parts[0], "\u00e9", 3)
        tree.add(tree.held_out(), "e\u0301", 3)
        return "e\u0301"
    return None


FAULTS: tuple[Callable[[Tree], str | None], ...] = (
    whole, missing, empty, extra, renamed, gone_from_train, twin, other_form
)  # fmt: skip


def run(trials: int, seed: int, folder: Path) -> list[str]:
    """A line for each failure."""
    failures = []
    for trial in range(trials):
        random_ = random.Random(f"{seed}/{trial}")
        root = folder / str(trial) / "data"
        tree = Tree(root, random_)
        fault = FAULTS[trial % len(FAULTS)]
        culprit = fault(tree)
        wrong = opened(tree, culprit) if culprit is None else refused(tree, culprit)
        if culprit is None and not wrong:
            wrong = with_weights(tree, folder / str(trial))
        if wrong:
            failures.append(f"seed {seed}, trial {trial}, {fault.__name__} in {tree.parts}: {wrong}")
        shutil.rmtree(folder / str(trial))
    return failures


def opened(tree: Tree, _: None) -> str:
    """What is wrong with the labels of the whole and of every part."""
    splits = open_data(tree.root, seed=tree.random.randrange(100))
    if sorted(splits.classes) != sorted(path.name for path in (tree.root / tree.parts[0]).iterdir()):
        return f"classes {splits.classes}"
    numbers = [int(name) for name in splits.classes if name.isdecimal() and str(int(name)) == name]
    if numbers != sorted(numbers):
        return f"numbers out of order: {numbers}"
    for part in (splits.train, splits.val, splits.test):
        if wrong := mislabelled(tree, part):
            return wrong
    return ""


def refused(tree: Tree, culprit: str) -> str:
    """What is wrong with how the data is refused: it must be, and the class named."""
    try:
        splits = open_data(tree.root)
    except DataError as error:
        named = {culprit, ascii(culprit)[1:-1], unicodedata.normalize("NFD", culprit)}
        named |= {ascii(name)[1:-1] for name in named}
        return "" if any(name in str(error) for name in named) else f"{culprit!a} is not named: {error}"
    return f"{culprit!a} went unnoticed: {splits.classes}"


def with_weights(tree: Tree, folder: Path) -> str:
    """What is wrong once weights are saved, read and held against the data, their classes permuted, or one short."""
    images = read_source(tree.root).images
    classes = tree.random.sample(images.classes, len(images.classes))
    outputs = (*classes, *["more"] * tree.random.randint(0, 1))
    known = saved_and_read(outputs, folder)
    if known != outputs:
        return f"the weights' outputs were {outputs!a} and are read as {known!a}"
    aligned = align(images, known)
    if wrong := mislabelled(tree, aligned):
        return f"with weights: {wrong}"
    lacking = saved_and_read(classes[1:], folder)
    try:
        align(images, lacking)
    except DataError as error:
        return "" if ascii(classes[0]) in str(error) else f"{classes[0]!a} is not named: {error}"
    return f"the weights know nothing of {classes[0]!a}, which went unnoticed"


def saved_and_read(classes: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The classes of a bundle after it was on the disk."""
    arch = spec("resnet20", classes=len(classes), size=8)
    bundle = Bundle(arch, weights(len(classes)), tuple(classes), Preprocess())
    return Bundle.load(bundle.save(folder / "model.safetensors")).classes


@cache
def weights(classes: int) -> dict[str, Tensor]:
    return create("resnet20", classes=classes, size=8).state_dict()


def mislabelled(tree: Tree, images: Images) -> str:
    """The first image whose label, folder and colour do not all say the same class."""
    for index in range(len(images)):
        image, label = images[index]
        name, path = images.classes[label], images.names[index]
        colour = int(image[0, -1, -1]) // 10
        if path.split("/")[-2] != name:
            return f"{path!a} is labelled {name!a}"
        if tree.colours[name] != colour:
            return f"{path!a} is labelled {name!a} but has the colour of class {colour}"
    return ""
