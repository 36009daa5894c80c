import os
import pickle
import threading
import time

import pytest
import torch

from convatlas.data.images import Images, for_each
from convatlas.errors import DataError


class Squares:
    """Image i is i everywhere, (i + 1) x 2 px.  Counts its reads; image `bad` cannot be read."""

    def __init__(self, bad=None):
        self.bad, self.reads = bad, 0

    def __call__(self, index):
        self.reads += 1
        if index == self.bad:
            raise DataError("D1", f"image {index} is bad", "none")
        return torch.full((3, index + 1, 2), index, dtype=torch.uint8)


def squares(count=10, bad=None) -> Images:
    names = tuple(f"squares/{index}" for index in range(count))
    return Images(("even", "odd"), torch.arange(count) % 2, names, Squares(bad))


def test_an_item_is_an_image_and_its_label():
    image, label = squares()[3]
    assert image.shape == (3, 4, 2)
    assert label == 1
    assert squares()[-1][0].shape == (3, 10, 2)
    with pytest.raises(IndexError):
        squares()[10]


def test_a_subset_keeps_its_order_and_can_be_taken_again():
    some = squares().subset([7, 2, 5]).subset([2, 0])
    assert some.names == ("squares/5", "squares/7")
    assert some.labels.tolist() == [1, 1]
    assert [int(some[index][0].max()) for index in range(len(some))] == [5, 7]
    assert len(squares().subset([])) == 0


def test_in_memory_reads_once_and_changes_nothing():
    images, progress = squares(200), []
    held = images.in_memory(progress=lambda done, count: progress.append((done, count)))
    assert images.read.reads == 200
    for index in range(200):
        assert torch.equal(held[index][0], squares(200)[index][0])
    assert images.read.reads == 200
    assert progress[-1] == (200, 200)
    assert held.names == images.names


def test_in_memory_only_up_to_the_limit():
    images = squares(10)
    needed = sum(3 * (index + 1) * 2 for index in range(10))
    assert images.in_memory(needed).read is not images.read
    assert images.in_memory(needed - 1) is images


def test_in_memory_gives_up_early():
    images = squares(100_000)
    assert images.in_memory(1000) is images
    assert images.read.reads < 50_000


def test_in_memory_raises_the_first_error():
    with pytest.raises(DataError, match="image 70 is bad"):
        squares(200, bad=70).in_memory()


def test_images_in_memory_cross_a_process_border():
    held = squares(5).in_memory().subset([4, 3])
    assert torch.equal(pickle.loads(pickle.dumps(held))[0][0], held[0][0])


@pytest.mark.skipif(os.cpu_count() == 1, reason="one processor, one thread")
def test_for_each_uses_several_threads():
    seen = set()

    def visit(index):
        seen.add(threading.get_ident())
        time.sleep(0.001)

    for_each(256, visit)
    assert len(seen) > 1
