import json

import pytest
import torch
from torchvision.transforms import v2

from convatlas.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, luma
from convatlas.errors import ConfigError, WeightsError


def image(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), [(300, 500), (500, 300), (256, 256), (37, 100), (1, 1), (224, 224)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_equals_the_transforms_of_torchvision(height, width, interpolation):
    theirs = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    ours = Preprocess(interpolation=interpolation)(image(height, width))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, theirs(image(height, width)))


@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 3, 6, 5), (2, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_normalization_is_torchvisions_however_the_pixels_lie(shape, channels):
    pre = Preprocess().for_channels(channels)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    taken = pixels if channels == 3 else luma(pixels)
    wanted = v2.functional.normalize(taken.float() * (1 / 255), list(pre.mean), list(pre.std))
    before = pixels.clone()
    for laid in (pixels, pixels.movedim(-3, -1).contiguous().movedim(-1, -3)):
        found = pre.normalize(laid)
        assert torch.equal(found, wanted)
        if channels == 3:
            assert found.stride() == laid.stride()  # the layout stays, for the network's sake
    assert torch.equal(pixels, before)


def test_an_image_that_fits_keeps_its_pixels():
    assert torch.equal(Preprocess(size=32, resize=32).geometry(image(32, 32)), image(32, 32))
    assert torch.equal(Preprocess(size=24, resize=32).geometry(image(32, 32)), image(32, 32)[:, 4:28, 4:28])


def test_a_batch_equals_its_images():
    batch = torch.stack([image(40, 60, seed) for seed in range(4)])
    pre = Preprocess(size=32, resize=36)
    assert torch.equal(pre(batch), torch.stack([pre(one) for one in batch]))


@pytest.mark.parametrize("shape", [(1, 200_000), (200_000, 1)])
def test_the_longest_images_do_not_fill_memory(shape):
    assert Preprocess()(image(*shape)).shape == (3, 224, 224)  # resized first it would be 256 x 51,200,000 px


def test_normalize_centres_a_channel():
    pre = Preprocess(size=2, resize=2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    white = pre(torch.full((3, 2, 2), 255, dtype=torch.uint8))
    assert white[:, 0, 0].tolist() == [1.0, 3.0, 1.0]


def test_grey_keeps_its_values_and_colours_their_luma():
    ramp = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert torch.equal(luma(ramp), ramp[:1])
    primaries = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8).reshape(3, 3, 1)
    assert luma(primaries).flatten().tolist() == [76, 150, 29]  # 255 x 0.299, 0.587 and 0.114
    pre = Preprocess(size=16, resize=16, mean=(0.0,), std=(1.0,), channels=1)
    assert pre(torch.full((5, 3, 16, 16), 51, dtype=torch.uint8)).shape == (5, 1, 16, 16)
    assert pre(torch.full((3, 16, 16), 51, dtype=torch.uint8)).unique().tolist() == [pytest.approx(0.2)]


@pytest.mark.parametrize(
    "pre", [Preprocess(), Preprocess(28, 32, (1 / 3,), (0.1 + 0.2,), interpolation="bicubic", channels=1)]
)
def test_json_round_trip_is_exact(pre):
    assert Preprocess.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"crop": 3}, "crop"),
        ({"size": None}, "'>=' not supported|'<=' not supported"),
        ({"size": 300}, "size is 300"),
        ({"mean": 0.5}, "not iterable"),
        ({"interpolation": "lanczos"}, "lanczos"),
    ],
)
def test_a_lost_description_is_named(change, named):
    with pytest.raises(WeightsError, match=named) as caught:
        Preprocess.from_dict(Preprocess().to_dict() | change)
    assert caught.value.id == "X4"


def test_a_missing_field_is_named():
    values = Preprocess().to_dict()
    del values["std"]
    with pytest.raises(WeightsError, match=r"lacks \['std'\]"):
        Preprocess.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [{"size": 0}, {"size": 257}, {"channels": 4}, {"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}, {"interpolation": "x"}],
)
def test_impossible_values_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        Preprocess(**values)


def test_a_grey_network_gets_the_mean_of_the_colours_figures():
    grey = Preprocess(mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3)).for_channels(1)
    assert (grey.channels, grey.size) == (1, 224)
    assert grey.mean == pytest.approx((0.3,))
    assert grey.std == pytest.approx((0.2,))
    assert Preprocess().for_channels(3) == Preprocess()
    with pytest.raises(ConfigError, match="1 or 3"):
        Preprocess().for_channels(4)
