import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm.curriculum.difficulty import DIFFICULTIES, sort_by_difficulty
from hindi_babylm.curriculum.sampler import CurriculumSampler
from hindi_babylm.storage import UserError

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


@pytest.mark.parametrize(("blocks", "multiple", "length"), [(7, 1, 7), (7, 2, 8), (7, 4, 8), (8, 4, 8), (1, 16, 16)])
def test_epochs_are_filled_up_for_several_processes(blocks: int, multiple: int, length: int) -> None:
    """An epoch is a multiple of what all processes take at once: every block once, then padding, index -1."""
    order = CurriculumSampler(np.ones(blocks), seed=3, multiple=multiple)
    plain = CurriculumSampler(np.ones(blocks), seed=3)
    assert len(order) == length
    for epoch in range(3):
        rows = order.order(epoch).tolist()
        assert rows[:blocks] == plain.order(epoch).tolist()
        assert rows[blocks:] == [-1] * (length - blocks)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.integers(0, 40), st.integers(0, 5), st.integers(1, 5))
def test_seen_blocks_and_words_equal_a_loop(rows: int, seed: int, multiple: int) -> None:
    """Times and words seen after any number of rows equal counting the orders of the epochs row by row."""
    order = CurriculumSampler(WORDS, seed=seed, multiple=multiple)
    times = [0] * len(WORDS)
    words = 0.0
    epoch, left = 0, rows
    while left:
        for block in order.order(epoch)[:left]:
            if block >= 0:  # padding has no words
                times[block] += 1
                words += float(WORDS[block])
        left -= min(left, len(order))
        epoch += 1
    assert order.times_seen(rows).tolist() == times
    assert order.words_seen(rows) == pytest.approx(words)


@pytest.mark.parametrize("multiple", [1, 4])
def test_whole_epochs_see_every_word(multiple: int) -> None:
    """After n epochs each block was seen n times, and the words are n times those of the store."""
    order = CurriculumSampler(WORDS, seed=0, multiple=multiple)
    assert order.times_seen(3 * len(order)).tolist() == [3] * len(WORDS)
    assert order.words_seen(3 * len(order)) == pytest.approx(3 * WORDS.sum())
    assert order.words_seen(0) == 0.0


def documents(count: int) -> datasets.Dataset:
    """Return documents of 5, 3, 1, 5, 3, 1, ... words."""
    words = [5 - 2 * (number % 3) for number in range(count)]
    return datasets.Dataset.from_dict({"text": [f"{n} " * n for n in words], "words": words, "id": range(count)})


def test_length_sorts_by_words_and_keeps_the_order_of_equals() -> None:
    """Short documents come first, and those of equal length as they came."""
    ordered = sort_by_difficulty(documents(7), curriculum="length")
    assert ordered["id"][:] == [2, 5, 1, 4, 0, 3, 6]


def test_random_is_a_seeded_control() -> None:
    """The control has another order for each seed, which does not follow length."""
    orders = [sort_by_difficulty(documents(60), curriculum="random", seed=seed)["id"][:] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(60))


@pytest.mark.parametrize("curriculum", DIFFICULTIES)
def test_a_difficulty_is_one_number_a_document(curriculum: str) -> None:
    """Every curriculum gives a finite number for each document."""
    difficulty = DIFFICULTIES[curriculum](documents(9), 3)
    assert difficulty.shape == (9,)
    assert np.isfinite(difficulty).all()


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    blocks=st.integers(1, 40),
    stage_epochs=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    multiple=st.integers(1, 6),
    batches=st.integers(1, 4),
)
def test_stages_train_every_block_its_number_of_times(
    blocks: int, stage_epochs: list[int], multiple: int, batches: int
) -> None:
    """A stage is the next share of the blocks, of equal size, trained on for its epochs; no step is only padding."""
    if blocks < len(stage_epochs):
        with pytest.raises(UserError, match=f"{blocks} blocks do not fill {len(stage_epochs)} stages"):
            CurriculumSampler(np.ones(blocks), seed=5, stage_epochs=stage_epochs)
        return
    order = CurriculumSampler(np.arange(1.0, blocks + 1), seed=5, multiple=multiple, stage_epochs=stage_epochs)
    batch = max(2, multiple) * batches
    times = [0] * blocks
    highest, epoch = -1, 0
    for stage, epochs in enumerate(stage_epochs):
        share = blocks // len(stage_epochs) + (stage < blocks % len(stage_epochs))
        for _ in range(epochs):
            rows = order.order(epoch).tolist()
            assert len(rows) == len(order)
            real = [row for row in rows if row >= 0]
            assert sorted(real) == list(range(highest + 1, highest + 1 + share))
            assert all(max(rows[start : start + batch]) >= 0 for start in range(0, len(rows), batch))
            for row in real:
                times[row] += 1
            epoch += 1
        highest += share
    assert order.times_seen(epoch * len(order)).tolist() == times
    assert order.words_seen(epoch * len(order)) == pytest.approx(sum(t * (n + 1) for n, t in enumerate(times)))


def test_stages_are_the_same_rows_on_any_number_of_processes() -> None:
    """Filling up for several processes adds rows at the end and moves none."""
    one = CurriculumSampler(np.ones(11), seed=1, stage_epochs=[1, 2, 1])
    four = CurriculumSampler(np.ones(11), seed=1, multiple=4, stage_epochs=[1, 2, 1])
    assert len(four) == 4 * -(-len(one) // 4)
    for epoch in range(4):
        assert four.order(epoch).tolist() == one.order(epoch).tolist() + [-1] * (len(four) - len(one))


def test_one_stage_is_no_curriculum() -> None:
    """A curriculum of one stage trains on every block in the order of none."""
    staged = CurriculumSampler(WORDS, seed=9, stage_epochs=[3])
    assert [staged.order(epoch).tolist() for epoch in range(3)] == [
        CurriculumSampler(WORDS, seed=9).order(epoch).tolist() for epoch in range(3)
    ]


def test_words_seen_where_each_epoch_has_other_blocks() -> None:
    """With words that hang on the epoch the sum goes row by row through the words of each epoch."""

    def words(epoch: int) -> np.ndarray:
        return WORDS + 10 * epoch

    order = CurriculumSampler(words, seed=4, multiple=3)
    total = 0.0
    rows = [words(epoch)[index] if index >= 0 else 0.0 for epoch in range(3) for index in order.order(epoch)]
    for row, worth in enumerate(rows):
        assert order.words_seen(row) == pytest.approx(total)
        total += worth
