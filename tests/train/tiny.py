"""What the tests of training share: a network, images and a recipe that take seconds, and a watcher with notes."""

from dataclasses import dataclass

import torch
from torch import nn

from convatlas.data import Images, Preprocess, Splits
from convatlas.train.recipe import Recipe
from convatlas.train.task import Task
from convatlas.tree import Net, conv_bn_act, seq
from convatlas.zoo import Arch
from convatlas.zoo.spec import family

SIDE = 12  # px
PRE = Preprocess(size=SIDE, resize=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
RECIPE = Recipe(epochs=3, batch=16, lr=0.05, warmup=0.5, augment="small", ema=0.9, label_smoothing=0.1)


@family
@dataclass(frozen=True, kw_only=True)
class Tiny(Arch):
    """Two convolutions with BatchNorm, dropout and, if asked for, two auxiliary heads."""

    name: str = "tiny"
    paper: str = "none"
    use: str = "tests"
    classes: int = 3
    size: int = SIDE
    dropout: float = 0.2
    aux: bool = False
    norm: bool = True

    def build(self) -> Net:
        """With torch's own initialisation."""
        width = 8
        first = (
            conv_bn_act(self.in_channels, width, 3)
            if self.norm
            else seq(conv=nn.Conv2d(self.in_channels, width, 3), act=nn.ReLU())
        )
        parts = {"stem": first, "body": conv_bn_act(width, width, 3, stride=2) if self.norm else nn.Identity()}
        aux = {"stem": self.head(width), "body": self.head(width)} if self.aux else {}
        return Net(parts | {"head": self.head(width, self.dropout)}, aux)

    def head(self, width: int, dropout: float = 0.0) -> nn.Sequential:
        """Pooling, dropout, one linear layer."""
        return seq(
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(1),
            drop=nn.Dropout(dropout),
            fc=nn.Linear(width, self.classes),
        )


@dataclass
class Pictures:
    """Images in memory; notes every index that is read."""

    pixels: torch.Tensor

    def __post_init__(self):
        self.reads: list[int] = []

    def __call__(self, index: int) -> torch.Tensor:
        self.reads.append(index)
        return self.pixels[index]


def images(count: int, seed: int, classes: int = 3, side: int = SIDE) -> Images:
    """Noise with the channel of its class brighter: learnt within a few steps, but not perfectly."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 200, (count, 3, side, side), generator=generator)
    pixels[torch.arange(count), labels % 3] += 40
    names = tuple(f"{seed}/{index}.png" for index in range(count))
    return Images(tuple("abcdefgh"[:classes]), labels, names, Pictures(pixels.to(torch.uint8)))


def splits(train: int = 70, val: int = 24, test: int = 30, **more) -> Splits:
    """Three parts of different images."""
    parts = (images(count, seed, **more) for seed, count in enumerate((train, val, test)))
    return Splits("pictures", *parts, "made up", 0)


def task(recipe=RECIPE, arch=None, data=None, **more) -> Task:
    """What is trained, unless the test says otherwise: the tiny network on `splits()`."""
    return Task(arch=arch or Tiny(), splits=data or splits(), pre=PRE, recipe=recipe, **more)


class Notes:
    """A Watcher that notes what it is told, and calls `each` after each step with the state."""

    def __init__(self, each=lambda state: None):
        self.each, self.begun, self.steps, self.rows = each, [], [], []

    def begin(self, state, total, notes):
        self.begun.append((state.step, total, notes))

    def step(self, state, total, images):
        self.steps.append((state.step, images))
        self.each(state)

    def epoch(self, row, best):
        self.rows.append((row, best))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two dicts of tensors are bitwise equal."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
