"""What is chosen for images of each size, and the preprocessing measured on them."""

import numpy as np
import pytest
import torch

from convatlas.data import Images, Splits
from convatlas.data.open import open_data
from convatlas.train.choose import LOOK, choose, preprocess_for, sample
from convatlas.train.recipe import builtin
from convatlas.zoo import spec

from tiny import Pictures, images, splits


def of_size(height: int, width: int, name: str = "pictures") -> Splits:
    pixels = torch.zeros(1, 3, height, width, dtype=torch.uint8).expand(3, 3, height, width)
    part = Images(("a", "b"), torch.tensor([0, 1, 0]), ("0", "1", "2"), Pictures(pixels))
    return Splits(name, part, part, part, "", 0)


@pytest.mark.parametrize(
    ("side", "network", "size", "recipe"),
    [
        (1, "resnet20", 16, "small"),
        (8, "resnet20", 16, "small"),
        (28, "resnet20", 28, "small"),
        (30, "resnet20", 32, "small"),
        (32, "resnet20", 32, "small"),
        (63, "resnet20", 64, "small"),
        (64, "resnet18", 64, "photo"),
        (95, "resnet18", 64, "photo"),
        (96, "resnet18", 96, "photo"),
        (500, "resnet18", 96, "photo"),
    ],
)
def test_the_shorter_side_decides(side, network, size, recipe):
    for shape in ((side, side), (side, 2 * side), (3 * side, side)):
        choice = choose(of_size(*shape))
        assert (choice.network, choice.size, choice.recipe) == (network, size, recipe)
        assert f"shorter side is {side} px" in choice.why
        assert f"at {size} px" in choice.why
    assert spec(network)
    assert recipe in builtin()


def test_a_gpu_takes_larger_photos():
    assert choose(of_size(200, 300), "cuda").size == 192
    assert choose(of_size(500, 400), "cuda").size == 224
    assert "without a GPU" not in choose(of_size(500, 400), "cuda").why
    assert "without a GPU" in choose(of_size(500, 400), "cpu").why


def test_the_median_counts_not_the_mean():
    pixels = [torch.zeros(3, side, side, dtype=torch.uint8) for side in (20, 20, 20, 20, 2000)]
    part = Images(("a",), torch.zeros(5, dtype=torch.int64), tuple("12345"), pixels.__getitem__)
    assert choose(Splits("mixed", part, part, part, "", 0)).size == 20


def test_digits_have_their_own_recipe():
    assert choose(open_data("digits")).recipe == "digits"


def test_only_training_images_are_looked_at():
    data = splits(300, 10, 10, side=8)
    choose(data)
    preprocess_for(data.train, 12)
    assert len(data.train.read.reads) == 2 * LOOK
    assert data.val.read.reads == data.test.read.reads == []


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 10_000])
def test_a_sample_is_spread_over_everything(count):
    found = sample(images(count, 0, side=1))
    assert found == sorted(set(found))
    assert len(found) == min(count, LOOK)
    assert (found[0], found[-1]) == (0, count - 1)
    gaps = np.diff(found)
    assert count <= LOOK or gaps.max() - gaps.min() <= 1


def test_mean_and_deviation_are_those_of_the_pixels_that_the_network_sees():
    data = images(20, 0, side=20)
    pre = preprocess_for(data, 10)
    seen = np.stack([pre.geometry(data.read(i)).numpy() for i in range(20)]) / 255
    assert pre.mean == pytest.approx(seen.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert pre.std == pytest.approx(seen.std((0, 2, 3)).tolist(), abs=1e-4)
    assert (pre.size, pre.resize) == (10, 10)


def test_images_of_one_colour_are_not_divided_by_zero():
    assert preprocess_for(of_size(9, 9).train, 8).std == (0.05, 0.05, 0.05)
