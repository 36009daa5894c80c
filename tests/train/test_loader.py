"""The same images in the same order with the same augmentation, whatever the workers and wherever the start."""

import hashlib

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convatlas.data import Images, Preprocess
from convatlas.train.augment import build_augment
from convatlas.train.loader import Augmented, Order, mix, train_batches
from convatlas.train.recipe import NAMES

from tiny import PRE, Pictures, images

POLICIES = NAMES["augment"].metadata["choices"]


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


# --- seeds ---


def test_no_two_images_share_an_augmentation_seed():
    seeds = {mix(seed, epoch, index) for seed in range(3) for epoch in range(20) for index in range(1000)}
    assert len(seeds) == 3 * 20 * 1000
    assert 0 <= min(seeds) < max(seeds) < 2**63


def test_a_seed_depends_on_every_number_and_on_their_order():
    assert len({mix(1, 2, 3), mix(3, 2, 1), mix(1, 23), mix(12, 3), mix(1, 2), mix(1, 2, 3, 0), mix(123)}) == 7
    assert mix(1, 2, 3) == mix(1, 2, 3)


# --- batches (T7) ---


def epoch_hash(policy, workers, epoch=0, seed=0) -> tuple[str, list[int]]:
    order = Order(37, 8, seed, epoch * 5, (epoch + 1) * 5)
    digest, indices = hashlib.sha256(), []
    for pixels, labels, places in train_batches(images(37, 1), build_augment(policy, PRE), order, workers):
        assert pixels.dtype == torch.uint8
        assert pixels.shape == (len(labels), 3, PRE.size, PRE.size)
        for tensor in (pixels, labels, places):
            digest.update(tensor.numpy().tobytes())
        indices += places.tolist()
    return digest.hexdigest(), indices


@pytest.mark.parametrize("policy", ["none", "photo"])
def test_one_epoch_is_identical_with_any_number_of_workers(policy):
    alone, indices = epoch_hash(policy, 0)
    assert sorted(indices) == list(range(37))
    torch.manual_seed(99)  # what the process did before does not matter
    assert epoch_hash(policy, 0)[0] == alone
    assert epoch_hash(policy, 1)[0] == epoch_hash(policy, 2)[0] == alone


@pytest.mark.parametrize("policy", POLICIES)
def test_epochs_and_seeds_give_other_tensors(policy):
    assert len({epoch_hash(policy, 0, epoch, seed)[0] for epoch in range(2) for seed in range(2)}) == 4


@pytest.mark.parametrize("policy", ["digits", "small", "photo"])
def test_the_same_picture_is_augmented_differently_by_index_epoch_and_seed(policy):
    picture = images(1, 0).read(0)
    alike = Images(("a",), torch.zeros(6, dtype=torch.int64), tuple("abcdef"), Pictures(picture.expand(6, -1, -1, -1)))

    def pixels(seed, epoch, index):
        return Augmented(alike, build_augment(policy, PRE), seed)[epoch, index][0].numpy().tobytes()

    for places in ([(0, 0, i) for i in range(6)], [(0, e, 0) for e in range(6)], [(s, 0, 0) for s in range(6)]):
        assert len({pixels(*place) for place in places}) > 3
        assert [pixels(*place) for place in places] == [pixels(*place) for place in reversed(places)][::-1]


def test_labels_and_indices_belong_to_their_images():
    bright = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, 12, 12)
    given = Images(tuple("abcd"), torch.arange(40) % 4, tuple(map(str, range(40))), Pictures(bright))
    for pixels, labels, indices in train_batches(given, build_augment("none", PRE), Order(40, 7, 0, 0, 12), 0):
        assert torch.equal(pixels.amax((1, 2, 3)).long(), indices)
        assert torch.equal(labels, indices % 4)


# --- augmentation ---


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 7), (12, 12), (13, 200), (250, 251)], ids=str)
@pytest.mark.parametrize(
    "pre", [PRE, Preprocess(17, 20, interpolation="bicubic"), Preprocess(2, 2)], ids=["12", "17", "2"]
)
def test_every_policy_gives_uint8_of_the_networks_size(policy, shape, pre):
    torch.manual_seed(0)
    picture = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    before = picture.clone()
    result = build_augment(policy, pre)(picture)
    assert result.dtype == torch.uint8
    assert result.shape == (3, pre.size, pre.size)
    assert torch.equal(picture, before)


def test_none_is_what_evaluation_sees():
    picture = torch.randint(0, 256, (3, 30, 41), dtype=torch.uint8)
    assert torch.equal(build_augment("none", PRE)(picture), PRE.geometry(picture))


def test_digits_are_never_mirrored_and_small_pictures_are():
    half = torch.zeros(3, 12, 12, dtype=torch.uint8)
    half[:, :, :6] = 255
    left = {policy: [] for policy in ("digits", "small")}
    for policy, found in left.items():
        augment = build_augment(policy, PRE)
        for seed in range(40):
            torch.manual_seed(seed)
            pixels = augment(half).float()
            found.append(bool(pixels[:, :, :6].mean() > pixels[:, :, 6:].mean()))
    assert all(left["digits"])
    assert 5 < sum(left["small"]) < 35
