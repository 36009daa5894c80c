"""Augmentation: a function of torch's seed alone, with the ranges that the papers state."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from convatlas.data import Preprocess
from convatlas.train.augment import PCA, PCA_SCALES, POLICIES, build_augment, colour_noise
from convatlas.train.recipe import NAMES, Recipe

PRE = Preprocess(size=32, resize=32, mean=(0.25, 0.5, 0.75))
FILL = (64, 128, 191)
MORE = {
    "trivialaugment": {"policy": "trivialaugment"},
    "randaugment": {"policy": "randaugment"},
    "erasing": {"erasing": 1.0},
}
EVERY = [*(Recipe(augment=name) for name in POLICIES), *(Recipe(augment="photo", **more) for more in MORE.values())]


def named(recipe) -> str:
    return "-".join((recipe.augment, recipe.policy, f"{recipe.erasing:g}"))


def noise(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def draw(augment, picture, seed):
    torch.manual_seed(seed)
    return augment(picture)


# A picture whose red is its column and whose green is its row, so that a crop of it says where it was.
PLACES = torch.stack(
    [torch.arange(256).expand(256, 256), torch.arange(256)[:, None].expand(256, 256), torch.full((256, 256), 128)]
).byte()


def crops(name, pre=PRE, count=600):
    """(left, width, height) in pixels of PLACES, and whether it is flipped, of what a policy does besides colours."""
    steps = build_augment(Recipe(augment=name), pre).transforms
    augment, rows = v2.Compose([s for s in steps if s is not colour_noise and not isinstance(s, v2.ColorJitter)]), []
    middle, whole = pre.size // 2, pre.size / (pre.size - 1)  # the outer pixels' centres are a pixel less apart
    for seed in range(count):
        x, y, _ = draw(augment, PLACES, seed).double()
        left, right = x[middle, 0].item(), x[middle, -1].item()
        height = (y[-1, middle] - y[0, middle]).item() * whole
        rows.append((min(left, right), abs(right - left) * whole, height, left > right))
    return map(np.array, zip(*rows, strict=True))


def test_a_recipe_may_name_every_policy_and_no_other():
    assert set(POLICIES) == set(NAMES["augment"].metadata["choices"])


@pytest.mark.parametrize("recipe", EVERY, ids=named)
@pytest.mark.parametrize(
    "pre",
    [PRE, replace(PRE, size=17, interpolation="bicubic"), Preprocess(2, 2).for_channels(1)],
    ids=["32", "17", "2"],
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 7), (32, 32), (250, 251), (4, 4000)], ids=str)
def test_what_comes_out_is_uint8_of_the_networks_size(recipe, pre, shape):
    picture = noise(*shape)
    before, augment = picture.clone(), build_augment(recipe, pre)
    for seed in range(3):
        found = draw(augment, picture, seed)
        assert found.dtype == torch.uint8
        assert found.shape == (3, pre.size, pre.size)
    assert torch.equal(picture, before)


@pytest.mark.parametrize("recipe", EVERY, ids=named)
def test_all_randomness_is_torchs(recipe):
    augment, picture = build_augment(recipe, PRE), noise(50, 61)
    wanted = [draw(augment, picture, seed) for seed in range(12)]
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        again = [draw(build_augment(recipe, PRE), picture, seed) for seed in reversed(range(12))][::-1]
        assert all(map(torch.equal, wanted, again))
    different = {t.numpy().tobytes() for t in wanted}
    assert len(different) == 1 if recipe.augment == "none" else len(different) > 6


def test_the_policies_of_measured_results_draw_what_they_drew():
    """The transforms as they were when results/digits.json was measured."""
    affine = v2.RandomAffine(
        (-12, 12), translate=(0.1, 0.1), scale=(0.9, 1.1), shear=8, interpolation=InterpolationMode.BILINEAR, fill=0
    )
    pad = v2.RandomCrop(32, padding=4, fill=list(FILL))
    crop = v2.RandomResizedCrop(32, scale=(0.35, 1.0), interpolation=InterpolationMode.BILINEAR, antialias=True)
    were = {
        "digits": v2.Compose([v2.Lambda(PRE.geometry), affine]),
        "small": v2.Compose([v2.Lambda(PRE.geometry), pad, v2.RandomHorizontalFlip()]),
        "photo": v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3)]),
    }
    picture = noise(40, 45)
    for name, was in were.items():
        augment = build_augment(Recipe(augment=name), PRE)
        assert all(torch.equal(draw(augment, picture, seed), draw(was, picture, seed)) for seed in range(20)), name


def test_none_is_what_evaluation_sees():
    picture = noise(30, 41)
    assert torch.equal(build_augment(Recipe(), PRE)(picture), PRE.geometry(picture))


# --- ranges ---


@pytest.mark.parametrize(("name", "least"), [("crop", 0.08), ("inception", 0.08), ("photo", 0.35)])
def test_a_resized_crop_has_the_areas_and_shapes_that_it_says(name, least):
    _, widths, heights, flipped = crops(name)
    areas, shapes = widths * heights / 256**2, widths / heights
    assert least - 0.02 < areas.min() < least + 0.05
    assert 0.93 < areas.max() < 1.02
    assert 0.70 < shapes.min() < 0.79
    assert 1.27 < shapes.max() < 1.42
    assert flipped.mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("name", "high"), [("vgg", 512), ("resnet", 480)])
@pytest.mark.parametrize("size", [32, 224])
def test_multi_scale_crops_have_the_scales_that_the_paper_says(name, high, size):
    """As if the shorter side were resized to 256 .. 512 and 224 cut from it, whatever the input of the network."""
    lefts, widths, heights, flipped = crops(name, replace(PRE, size=size, resize=size), count=300)
    scales = 224 * 256 / widths
    assert widths == pytest.approx(heights, abs=2)
    assert 253 < scales.min() < 259
    assert high - 12 < scales.max() < high + 8
    assert scales.mean() == pytest.approx((256 + high) / 2, abs=0.04 * high)
    assert lefts.min() < 5
    assert flipped.mean() == pytest.approx(0.5, abs=0.09)


def test_alexnets_crop_is_227_of_256_pixel_by_pixel():
    lefts, widths, heights, flipped = crops("alexnet", replace(PRE, size=227, resize=227), count=200)
    assert set(widths.round(9)) == set(heights.round(9)) == {227}
    assert lefts.min() == 0
    assert lefts.max() == 29
    assert flipped.mean() == pytest.approx(0.5, abs=0.1)


def test_cifars_crop_moves_by_up_to_an_eighth():
    augment, picture, offsets = build_augment(Recipe(augment="small"), PRE), noise(32, 32), set()
    padded = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].repeat(1, 40, 40)
    padded[:, 4:36, 4:36] = picture
    at = {
        (f, y, x): padded[:, y : y + 32, x : x + 32].flip(2 if f else ()).numpy().tobytes()
        for f in (0, 1)
        for y in range(9)
        for x in range(9)
    }
    places = {pixels: place for place, pixels in at.items()}
    for seed in range(1000):
        offsets.add(places[draw(augment, picture, seed).numpy().tobytes()])
    assert len(offsets) == pytest.approx(162, abs=3)  # all but a few of 2 x 9 x 9, in 1,000 draws


# --- colours ---


def test_colour_noise_is_one_colour_along_the_principal_components():
    grey = torch.full((3, 2, 2), 128, dtype=torch.uint8)
    shifts = []
    for seed in range(3000):
        found = draw(colour_noise, grey, seed).double() - 128
        assert torch.equal(found, found[:, :1, :1].expand(3, 2, 2))
        shifts.append(found[:, 0, 0])
    found = torch.stack(shifts)
    wanted = (25.5 * PCA @ torch.diag(PCA_SCALES)).double()
    assert found.mean(0).abs().max() < 0.25
    torch.testing.assert_close(
        found.T.cov(), wanted @ wanted.T + torch.eye(3) / 12, rtol=0.08, atol=0.05
    )  # 1/12: rounding


def test_colour_noise_stays_within_a_byte():
    for value in (0, 255):
        picture = torch.full((3, 1, 1), value, dtype=torch.uint8)
        found = torch.stack([draw(colour_noise, picture, seed) for seed in range(50)]).int() - value
        assert found.abs().max() < 30  # and not 255, as it would be after an overflow
        assert found.any()


# --- what any of them may be followed by ---


def test_erasing_fills_a_rectangle_with_the_mean():
    picture, erased = torch.zeros(3, 32, 32, dtype=torch.uint8), 0
    augment = build_augment(Recipe(erasing=0.3), PRE)
    for seed in range(400):
        found = draw(augment, picture, seed)
        hole = found[0] > 0
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns)
        assert all(set(found[c, hole].tolist()) <= {FILL[c]} for c in range(3))
        erased += bool(hole.any())
    assert erased / 400 == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("policy", ["trivialaugment", "randaugment"])
def test_policies_follow_the_crop_and_fill_with_the_mean(policy):
    recipe = Recipe(augment="small", policy=policy)
    own = {"trivialaugment": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}[policy](fill=list(FILL))
    picture, augment, changed = noise(32, 32), build_augment(recipe, PRE), 0
    small = build_augment(Recipe(augment="small"), PRE)
    for seed in range(40):
        first = draw(small, picture, seed)
        wanted = own(first)  # with what is left of the same randomness
        assert torch.equal(draw(augment, picture, seed), wanted)
        changed += not torch.equal(first, wanted)
    assert changed > 20
