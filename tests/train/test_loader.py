"""The same images in the same order with the same augmentation, whatever the workers and wherever the start."""

import hashlib

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convatlas.data import Images
from convatlas.data.blocks import Blocks
from convatlas.errors import ConfigError, DataError
from convatlas.train.augment import build_augment
from convatlas.train.loader import Augmented, train_batches
from convatlas.train.order import Order, mix
from convatlas.train.recipe import Recipe

from tiny import PRE, SIDE, Pictures, images

PHOTO = Recipe(augment="photo", policy="trivialaugment", erasing=0.5)


# --- order ---


@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 70),
    seed=st.integers(0, 2**63),
    epochs=st.integers(1, 4),
    data=st.data(),
)
@example(count=17, batch=16, seed=0, epochs=2, data=None)
@settings(max_examples=150, deadline=None)
def test_an_epoch_is_every_image_once_but_a_last_single_one(count, batch, seed, epochs, data):
    per_epoch = Order(count, batch, seed, 0, 0).steps_per_epoch
    whole = list(Order(count, batch, seed, 0, epochs * per_epoch))
    assert len(whole) == epochs * per_epoch
    for epoch in range(epochs):
        places = [place for step in whole[epoch * per_epoch : (epoch + 1) * per_epoch] for place in step]
        assert {e for e, _ in places} == {epoch}
        indices = [index for _, index in places]
        left_out = 1 if count > batch > 1 and count % batch == 1 else 0
        assert len(set(indices)) == len(indices) == count - left_out
        assert set(indices) <= set(range(count))
    sizes = [len(step) for step in whole]
    assert max(sizes) <= batch
    assert min(sizes) > 1 or batch == 1 or count == 1
    if data is not None:
        start = data.draw(st.integers(0, len(whole)))
        rest = Order(count, batch, seed, start, len(whole))
        assert list(rest) == whole[start:]
        assert len(rest) == len(whole) - start


def test_epochs_and_seeds_differ():
    def indices(seed, epoch):
        return [i for step in Order(50, 50, seed, epoch, epoch + 1) for _, i in step]

    orders = [tuple(indices(seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16
    assert list(range(50)) not in map(list, orders)


def test_every_image_of_a_last_single_batch_is_seen_in_some_epoch():
    seen = {i for step in Order(5, 2, 0, 0, 2 * 20) for _, i in step}
    assert seen == set(range(5))


@given(size=st.integers(1, 6), count=st.integers(2, 90), batch=st.integers(2, 40), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_the_processes_of_a_job_share_its_batches(size, count, batch, seed):
    if size > 1 and 2 * size > min(count, batch):
        with pytest.raises((DataError, ConfigError), match=r"T8.*too (few|small) for \d processes, of 2 images each"):
            Order(count, batch, seed, 0, 0, 0, size)
        return
    job = Order(count, batch, seed, 0, 0, 0, size)
    per_epoch, steps = job.steps_per_epoch, 2 * job.steps_per_epoch
    together = list(zip(*(Order(count, batch, seed, 0, steps, rank, size) for rank in range(size)), strict=True))
    alone = Order(count, batch, seed, 0, steps)
    assert len(together) == steps
    for step, shares in enumerate(together):
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 2 or size == 1
        assert sum(sizes) == job.images_in(step)
    if per_epoch == alone.steps_per_epoch:  # else the last batch is too small for all of them
        assert [[place for share in shares for place in share] for shares in together] == list(alone)
    left = count - sum(len(places) for shares in together[:per_epoch] for places in shares)
    assert left < 2 * size


def test_too_few_images_for_the_processes_are_refused_with_the_arithmetic():  # T8
    with pytest.raises(DataError) as caught:
        Order(7, 64, 0, 0, 0, 0, 4)
    assert str(caught.value) == (
        "error[T8]: 7 training images are too few for 4 processes, of 2 images each. "
        "Remedy: add images or start at most 3 processes"
    )
    with pytest.raises(ConfigError, match=r"batches of 7 images are too small for 4 processes.*--batch 8"):
        Order(100, 7, 0, 0, 0, 0, 4)


def test_an_epoch_over_blocks_keeps_near_what_is_near():
    blocks = Blocks(torch.arange(120) // 10, window=2)
    epochs = [[i for step in Order(120, 8, 0, 15 * e, 15 * (e + 1), blocks=blocks) for _, i in step] for e in (0, 1)]
    assert epochs[0] != epochs[1]
    for indices in epochs:
        assert sorted(indices) == list(range(120))
        for start in range(0, 120, 20):
            assert len({i // 10 for i in indices[start : start + 20]}) == 2


# --- seeds ---


def test_no_two_images_share_an_augmentation_seed():
    seeds = {mix(seed, epoch, index) for seed in range(3) for epoch in range(20) for index in range(1000)}
    assert len(seeds) == 3 * 20 * 1000
    assert 0 <= min(seeds) < max(seeds) < 2**63


def test_a_seed_depends_on_every_number_and_on_their_order():
    assert len({mix(1, 2, 3), mix(3, 2, 1), mix(1, 23), mix(12, 3), mix(1, 2), mix(1, 2, 3, 0), mix(123)}) == 7
    assert mix(1, 2, 3) == mix(1, 2, 3)


# --- batches (T7) ---


def epoch_hash(recipe, workers, epoch=0, seed=0) -> tuple[str, list[int]]:
    order = Order(37, 8, seed, epoch * 5, (epoch + 1) * 5)
    digest, indices = hashlib.sha256(), []
    for pixels, labels, places in train_batches(images(37, 1), build_augment(recipe, PRE), SIDE, order, workers):
        assert pixels.dtype == torch.uint8
        assert pixels.shape == (len(labels), 3, SIDE, SIDE)
        for tensor in (pixels, labels, places):
            digest.update(tensor.numpy().tobytes())
        indices += places.tolist()
    return digest.hexdigest(), indices


@pytest.mark.parametrize("recipe", [Recipe(augment="none"), PHOTO], ids=["none", "photo"])
def test_one_epoch_is_identical_with_any_number_of_workers(recipe):
    alone, indices = epoch_hash(recipe, 0)
    assert sorted(indices) == list(range(37))
    torch.manual_seed(99)  # what the process did before does not matter
    assert {epoch_hash(recipe, workers)[0] for workers in (0, 1, 2, 4, 9)} == {alone}


def test_epochs_and_seeds_give_other_tensors():
    assert len({epoch_hash(PHOTO, 0, epoch, seed)[0] for epoch in range(2) for seed in range(2)}) == 4


@pytest.mark.parametrize("recipe", [Recipe(augment="digits"), Recipe(augment="small"), PHOTO], ids=str)
def test_the_same_picture_is_augmented_differently_by_index_epoch_and_seed(recipe):
    picture = images(1, 0).read(0)
    alike = Images(("a",), torch.zeros(6, dtype=torch.int64), tuple("abcdef"), Pictures(picture.expand(6, -1, -1, -1)))

    def pixels(seed, epoch, index):
        return Augmented(alike, build_augment(recipe, PRE), seed)[epoch, index].numpy().tobytes()

    for places in ([(0, 0, i) for i in range(6)], [(0, e, 0) for e in range(6)], [(s, 0, 0) for s in range(6)]):
        assert len({pixels(*place) for place in places}) > 3
        assert [pixels(*place) for place in places] == [pixels(*place) for place in reversed(places)][::-1]


def test_labels_and_indices_belong_to_their_images():
    bright = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, SIDE, SIDE)
    given = Images(tuple("abcd"), torch.arange(40) % 4, tuple(map(str, range(40))), Pictures(bright))
    plain = build_augment(Recipe(augment="none"), PRE)
    for workers in (0, 3):
        for pixels, labels, indices in train_batches(given, plain, SIDE, Order(40, 7, 0, 0, 12), workers):
            assert torch.equal(pixels.amax((1, 2, 3)).long(), indices)
            assert torch.equal(labels, indices % 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_with_an_image_is_raised_as_it_is(workers):
    def read(index):
        if index == 11:
            raise DataError("D15", "11.png: no such file", "restore it")
        return torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)

    given = Images(("a",), torch.zeros(40, dtype=torch.int64), tuple(map(str, range(40))), read)
    order, seen = Order(40, 7, 0, 0, 6), []
    reading = train_batches(given, build_augment(Recipe(), PRE), SIDE, order, workers)
    with pytest.raises(DataError, match=r"error\[D15\]: 11.png: no such file. Remedy: restore it"):
        seen.extend(indices.tolist() for _, _, indices in reading)
    wanted = [[index for _, index in step] for step in order]
    assert seen == wanted[: next(n for n, step in enumerate(wanted) if 11 in step)]
