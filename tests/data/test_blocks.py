"""Names in one buffer, and the order that keeps near what lies together."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convatlas.data import names as names_module
from convatlas.data.blocks import Blocks, block_permutation
from convatlas.data.names import Gathered, Names, chosen, unpack


def order(blocks: Blocks, seed: int = 0) -> list[int]:
    return block_permutation(blocks, torch.Generator().manual_seed(seed)).tolist()


@given(of=st.lists(st.integers(0, 9), min_size=1, max_size=60), window=st.integers(1, 12), seed=st.integers(0, 2**62))
@settings(max_examples=150, deadline=None)
def test_an_order_is_a_permutation_that_reads_each_block_within_one_window(of, window, seed):
    found = order(Blocks(torch.tensor(of), window), seed)
    assert sorted(found) == list(range(len(of)))
    blocks = list(dict.fromkeys(of[index] for index in found))  # as they come first
    for start in range(0, len(blocks), window):
        together = blocks[start : start + window]
        places = [place for place, index in enumerate(found) if of[index] in together]
        assert places == list(range(places[0], places[0] + len(places)))


def test_an_order_depends_on_the_seed_and_shuffles_blocks_and_what_is_in_them():
    blocks = Blocks(torch.arange(10).repeat_interleave(10), 3)
    orders = [order(blocks, seed) for seed in range(50)]
    assert len(set(map(tuple, orders))) == 50
    assert order(blocks, 7) == orders[7]
    first = [0] * 100
    for found in orders:
        first[found[0]] += 1
        assert len({index // 10 for index in found[:30]}) == 3  # a window
        assert found[:30] != sorted(found[:30])
        assert any(found[place] // 10 != found[place + 1] // 10 for place in range(9))  # blocks are mixed
    assert max(first) < 8
    assert {found[0] // 10 for found in orders} == set(range(10))


def test_blocks_of_a_part_keep_their_window():
    blocks = Blocks.of_sizes([(4, 100), (4, 250), (4, 50)], 399)
    assert blocks.of.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert blocks.window == 1
    some = blocks.subset(np.array([0, 1, 9, 10]))
    assert [index // 2 for index in order(some)] in ([0, 0, 1, 1], [1, 1, 0, 0])
    assert Blocks.of_sizes([(4, 100), (4, 250)], 350) is None  # all fits into memory
    assert Blocks.of_sizes([(1, 10)] * 9, 40).window == 4


STRANGE = ["", "a/b.png", "naïve", "🐱", "a\nb", "\udcff.jpg", "x" * 250, ""]


@pytest.mark.parametrize("small", [0, 100])
def test_names_are_what_was_gathered(monkeypatch, small):
    monkeypatch.setattr(names_module, "SMALL", small)
    gathered = Gathered()
    gathered.add(STRANGE[:3])
    gathered.add(STRANGE[3:])
    assert len(gathered) == 8
    names = unpack(**gathered.arrays())
    assert isinstance(names, tuple if small else Names)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(STRANGE), max_size=30), st.data())
@settings(max_examples=100, deadline=None)
def test_names_are_a_sequence_like_any_other(plain, data):
    gathered = Gathered()
    gathered.add(plain)
    names = Names(**gathered.arrays())
    assert list(names) == plain
    assert [names[place] for place in range(len(names))] == plain
    span = data.draw(st.slices(len(plain)))
    assert list(names[span]) == plain[span]
    places = np.array(data.draw(st.lists(st.integers(0, len(plain) - 1), max_size=9) if plain else st.just([])), int)
    taken = chosen(names, places)
    assert list(taken) == [plain[place] for place in places]
    assert list(taken[1:]) == [plain[place] for place in places[1:]]
    assert list(pickle.loads(pickle.dumps(taken))) == list(taken)
    if plain:
        assert names[-1] == plain[-1]
    with pytest.raises(IndexError):
        names[len(plain)]


def test_names_of_many_take_little_more_than_their_text():
    gathered = Gathered()
    gathered.add(f"n{index:09}" for index in range(100_000))
    names = unpack(**gathered.arrays())
    assert isinstance(names, Names)
    assert names.text.nbytes + names.ends.nbytes == 100_000 * 18
    assert names[77_777] == "n000077777"
    assert list(names)[-1] == "n000099999"
