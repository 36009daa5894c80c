import json
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convatlas.data.images import Images
from convatlas.data.splits import Source, cut, differing_classes, restore, split
from convatlas.errors import DataError


def source(*counts: int, parts=None) -> Source:
    """`counts[c]` images of class c, in turn one of each class as long as there are any."""
    labels = [label for turn in range(max(counts)) for label, count in enumerate(counts) if turn < count]
    names = tuple(f"{index}" for index in range(len(labels)))
    images = Images(
        tuple(f"class{label}" for label in range(len(counts))),
        torch.tensor(labels),
        names,
        lambda index: torch.empty(0),
    )
    return Source("set", images, parts)


def made(data: Source, seed=0):
    return split(data, data.images, seed)


def names_of(splits):
    return splits.train.names, splits.val.names, splits.test.names


def counts_of(images: Images) -> list[int]:
    counts = Counter(images.labels.tolist())
    return [counts[label] for label in range(len(images.classes))]


def test_each_class_is_cut_by_the_shares():
    splits = made(source(100, 20, 40))
    assert [counts_of(part) for part in (splits.train, splits.val, splits.test)] == [
        [70, 14, 28],
        [15, 3, 6],
        [15, 3, 6],
    ]
    assert splits.how == "val is 15% and test 15% of each class, cut by seed 0; train is the rest"


@given(st.lists(st.integers(3, 30), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_a_cut_is_a_partition_with_every_class_in_every_part(counts, seed):
    splits = made(source(*counts), seed)
    parts = names_of(splits)
    assert sorted(sum(parts, ()), key=int) == [str(index) for index in range(sum(counts))]
    for part in (splits.train, splits.val, splits.test):
        assert min(counts_of(part)) >= 1
        assert list(part.names) == sorted(part.names, key=int)
    for count, held in zip(counts, counts_of(splits.val), strict=True):
        assert held == max(1, round(0.15 * count))


def test_the_seed_decides():
    assert names_of(made(source(50, 50), 1)) == names_of(made(source(50, 50), 1))
    assert names_of(made(source(50, 50), 1)) != names_of(made(source(50, 50), 2))


@pytest.mark.parametrize("count", [1, 2])
def test_t8_too_few_of_a_class(count):
    with pytest.raises(DataError, match=rf"error\[T8\].*'class1' has {count} images.*\({count} < 3\)"):
        made(source(9, count))


def test_t8_one_class_is_nothing_to_tell_apart():
    with pytest.raises(DataError, match=r"error\[T8\].*only one class"):
        made(source(9))


def test_t8_no_images():
    with pytest.raises(DataError, match=r"error\[T8\].*train has no images"):
        made(Source("set", source(3, 3).images.subset([])))


def test_an_allowed_empty_class_stays_a_class():
    splits = made(source(4, 0, 4))
    assert splits.classes == ("class0", "class1", "class2")
    assert counts_of(splits.train) == [2, 0, 2]


def test_all_parts_given():
    parts = {"train": ["0", "1", "5"], "val": ["2"], "test": ["3", "4"]}
    splits = made(source(3, 3, parts=parts))
    assert names_of(splits) == (("0", "1", "5"), ("2",), ("3", "4"))
    assert splits.how == "train, val and test are the given parts"


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_one_part_given_is_the_test_set(held_out):
    parts = {"train": [str(index) for index in range(40)], held_out: ["40", "41"]}
    splits = made(source(21, 21, parts=parts))
    assert splits.test.names == ("40", "41")
    assert counts_of(splits.val) == [3, 3]
    assert len(splits.train) == 34
    assert splits.how == f"test is the given {held_out} part; val is 15% of each class of train, cut by seed 0"


def test_a_class_must_be_in_train():
    data = source(4, 4, parts={"train": ["0", "2", "4", "6"], "test": ["1", "3"]})
    with pytest.raises(DataError, match=r"error\[T8\].*'class1' has no readable image in train"):
        made(data)


def test_images_left_out_are_in_no_part():
    data = source(10, 10, parts={"train": [str(index) for index in range(18)], "test": ["18", "19"]})
    splits = split(data, data.images.subset([*range(1, 18), 19]), 0)
    assert splits.test.names == ("19",)
    assert sorted(splits.train.names + splits.val.names, key=int) == [str(index) for index in range(1, 18)]


def test_a_record_restores_the_parts_through_json():
    data = source(20, 30)
    splits = made(data, 7)
    again = restore(data, data.images, json.loads(json.dumps(splits.record())))
    assert names_of(again) == names_of(splits)
    assert torch.equal(again.val.labels, splits.val.labels)
    assert again.record() == splits.record()


def test_d15_an_image_gone_or_new_since_the_record():
    data = source(20, 30)
    record = made(data).record()
    with pytest.raises(DataError, match=r"error\[D15\].*gone or unreadable \['3'\], new \[\]"):
        restore(data, data.images.subset([index for index in range(50) if index != 3]), record)
    more = source(20, 31)
    with pytest.raises(DataError, match=r"error\[D15\].*gone or unreadable \[\], new \['50'\]"):
        restore(more, more.images, record)


def test_d11_other_classes_than_the_record():
    data = source(20, 30)
    with pytest.raises(DataError, match=r"error\[D11\].*other order, class 0 is class0 and not class1"):
        restore(data, data.images, made(data).record() | {"classes": ["class1", "class0"]})


def test_d11_names_what_differs():
    message = str(differing_classes("/d/val", ["a", "b"], "train", ["b", "c\n"]))
    assert message.startswith(r"error[D11]: /d/val: classes differ from train: missing ['c\n'], extra ['a'].")


def test_cut_needs_one_image_per_list():
    with pytest.raises(DataError, match=r"train, val need one each \(1 < 2\)"):
        cut(source(4, 1).images, range(5), {"val": 0.1}, 0)
