import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm.curriculum import CurriculumSampler

WORDS = np.asarray([3.5, 1.0, 0.0, 7.25, 2.0, 9.0, 4.5])


def sampler(blocks: int = 50, seed: int = 42) -> CurriculumSampler:
    """Return a sampler over `blocks` blocks of different numbers of words."""
    return CurriculumSampler(np.arange(blocks, dtype=np.float64) * 1.5, seed=seed)


@pytest.mark.parametrize("epoch", [0, 1, 9, 1000])
def test_every_epoch_holds_each_block_once(epoch: int) -> None:
    """An epoch is a permutation of all blocks."""
    order = sampler()
    order.set_epoch(epoch)
    assert sorted(order) == list(range(50))
    assert len(order) == 50


def test_epochs_and_seeds_differ() -> None:
    """No two epochs and no two seeds have one order, nor is epoch e of seed s epoch s of seed e."""
    orders = {(seed, epoch): tuple(sampler(seed=seed).order(epoch)) for seed in range(6) for epoch in range(6)}
    assert len(set(orders.values())) == len(orders)
    assert tuple(range(50)) not in orders.values()


def test_order_is_a_pure_function_of_seed_and_epoch() -> None:
    """The order does not hang on the global state of numpy, on what was drawn before, or on the object."""
    first = sampler()
    np.random.seed(0)  # noqa: NPY002  # the global state is what must not matter
    expected = list(first.order(3))
    np.random.seed(1)  # noqa: NPY002
    other = sampler()
    for epoch in (7, 0, 3):
        other.set_epoch(epoch)
        drawn = list(other)
    assert drawn == expected
    assert list(other) == expected  # iterating does not advance the epoch


def test_set_epoch_chooses_the_order_of_the_next_iteration() -> None:
    """Iteration yields the order of the epoch that was set, epoch 0 before."""
    order = sampler()
    assert list(order) == order.order(0).tolist()
    order.set_epoch(4)
    assert list(order) == order.order(4).tolist()
    assert all(type(index) is int for index in order)  # torch datasets take plain ints


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 5))
def test_seen_blocks_and_words_equal_a_loop(rows: int, seed: int) -> None:
    """Times and words seen after any number of rows equal counting the orders of the epochs row by row."""
    order = CurriculumSampler(WORDS, seed=seed)
    times = [0] * len(WORDS)
    words = 0.0
    epoch, left = 0, rows
    while left:
        for block in order.order(epoch)[:left]:
            times[block] += 1
            words += float(WORDS[block])
        left -= min(left, len(WORDS))
        epoch += 1
    assert order.times_seen(rows).tolist() == times
    assert order.words_seen(rows) == pytest.approx(words)


def test_whole_epochs_see_every_word() -> None:
    """After n epochs each block was seen n times, and the words are n times those of the store."""
    order = CurriculumSampler(WORDS, seed=0)
    assert order.times_seen(3 * len(WORDS)).tolist() == [3] * len(WORDS)
    assert order.words_seen(3 * len(WORDS)) == pytest.approx(3 * WORDS.sum())
    assert order.words_seen(0) == 0.0
