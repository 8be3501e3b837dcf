"""What each pacing trains on, against plain loops, and what each rank of several processes gets of it."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hindi_babylm.curriculum.pacing import PACINGS, blocks_in_reach, stage_lengths
from hindi_babylm.curriculum.sampler import CurriculumSampler

EPOCHS = 6


def sampler(pacing: str, *, blocks: int = 37, seed: int = 3, multiple: int = 1) -> CurriculumSampler:
    """Return a sampler whose curriculum takes `EPOCHS` epochs under each pacing."""
    if pacing == "none":  # no curriculum: an epoch holds every block
        return CurriculumSampler(np.arange(1.0, blocks + 1), seed=seed, multiple=multiple)
    stages = {"staged": [1, 2, 3], "cumulative": [1, 1, 1], "competence": []}[pacing]
    words = np.arange(1.0, blocks + 1)
    return CurriculumSampler(
        words, seed=seed, multiple=multiple, pacing=pacing, stage_epochs=stages, competence_epochs=3.0
    )


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    blocks=st.integers(1, 40),
    stage_epochs=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    multiple=st.integers(1, 6),
    batches=st.integers(1, 4),
)
def test_cumulative_trains_every_block_its_number_of_times(
    blocks: int, stage_epochs: list[int], multiple: int, batches: int
) -> None:
    """Stage i passes so often over the blocks of stages 0 to i, each once a pass; no step is only padding."""
    if blocks < len(stage_epochs):
        return
    words = np.arange(1.0, blocks + 1)
    order = CurriculumSampler(words, seed=5, multiple=multiple, pacing="cumulative", stage_epochs=stage_epochs)
    batch = max(2, multiple) * batches
    expected: Counter[int] = Counter()
    epoch, end = 0, 0
    for stage, passes in enumerate(stage_epochs):
        end += blocks // len(stage_epochs) + (stage < blocks % len(stage_epochs))
        for _ in range(passes):
            seen: Counter[int] = Counter()
            for _ in range(stage + 1):
                rows = order.order(epoch).tolist()
                assert len(rows) == len(order)
                assert all(max(rows[start : start + batch]) >= 0 for start in range(0, len(rows), batch))
                seen.update(row for row in rows if row >= 0)
                epoch += 1
            assert seen == Counter(range(end))
            expected += seen
    assert epoch == sum(stage_lengths("cumulative", stage_epochs))
    times = order.times_seen(epoch * len(order))
    assert times.tolist() == [expected[block] for block in range(blocks)]
    assert times.tolist() == sorted(times, reverse=True)
    assert order.words_seen(epoch * len(order)) == pytest.approx(float(times @ words))


def test_a_cumulative_pass_is_cut_from_one_shuffle() -> None:
    """The epochs of a pass differ, a later pass has another order, and the last stage goes on past its end."""
    order = CurriculumSampler(np.ones(30), seed=1, pacing="cumulative", stage_epochs=[1, 2])
    passes = [np.concatenate([order.order(epoch), order.order(epoch + 1)]).tolist() for epoch in (1, 3, 5, 101)]
    assert all(sorted(rows) == list(range(30)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == 4
    assert sorted(order.order(0)) == list(range(15))
    # Easy and hard are mixed within a pass.
    assert {row < 15 for row in passes[0][:15]} == {True, False}


def test_competence_is_the_formula_of_the_paper() -> None:
    """The share in reach follows the square root from a hundredth to everything, and stays there."""
    for step in range(40):
        t = step / 10
        share = min(1.0, math.sqrt(t * (1 - 0.01**2) / 2.5 + 0.01**2))
        found = blocks_in_reach(np.asarray(t), blocks=1000, competence_epochs=2.5)
        assert int(found) == pytest.approx(1000 * share, abs=1), t
    assert int(blocks_in_reach(np.asarray(0.0), blocks=1000, competence_epochs=2.5)) == 10
    assert int(blocks_in_reach(np.asarray(2.5), blocks=1000, competence_epochs=2.5)) == 1000
    assert int(blocks_in_reach(np.asarray(0.0), blocks=30, competence_epochs=2.5)) == 1, "never no block at all"


def test_competence_draws_uniformly_from_what_is_in_reach() -> None:
    """No row is harder than its time allows, and over many seeds each block in reach is as frequent as any other."""
    blocks, epochs, rows = 20, 2.0, 40
    drawn = np.asarray(
        [
            np.concatenate(
                [
                    PACINGS["competence"](epoch, blocks=blocks, seed=seed, stage_epochs=[], competence_epochs=epochs)
                    for epoch in (0, 1)
                ]
            )
            for seed in range(4000)
        ]
    )
    for row in range(rows):
        share = min(1.0, math.sqrt(row / blocks * (1 - 0.01**2) / epochs + 0.01**2))
        reach = max(1, math.floor(share * blocks))
        counts = np.bincount(drawn[:, row], minlength=blocks)
        assert counts[reach:].sum() == 0, row
        expected = 4000 / reach
        assert np.abs(counts[:reach] - expected).max() < 5 * math.sqrt(expected), row


def test_competence_ends_in_full_epochs() -> None:
    """Once all blocks are in reach an epoch is that of no curriculum, and in mid-epoch its rest has no block twice."""
    words = np.ones(50)
    paced = CurriculumSampler(words, seed=4, pacing="competence", competence_epochs=1.5)
    plain = CurriculumSampler(words, seed=4)
    assert [paced.order(epoch).tolist() for epoch in (2, 3, 40)] == [
        plain.order(epoch).tolist() for epoch in (2, 3, 40)
    ]
    assert paced.order(1)[25:].tolist() == plain.order(1)[25:].tolist()
    assert paced.order(1)[:25].tolist() != plain.order(1)[:25].tolist()
    assert len(set(paced.order(0).tolist())) < 50, "easy blocks come more than once at first"
    assert paced.order(0)[:10].mean() < 15


@pytest.mark.parametrize("pacing", ["staged", "cumulative", "competence"])
@settings(derandomize=True, max_examples=40, deadline=None)
@given(rows=st.integers(0, 400), seed=st.integers(0, 5), multiple=st.integers(1, 5))
def test_seen_blocks_and_words_equal_a_loop(pacing: str, rows: int, seed: int, multiple: int) -> None:
    """Times and words seen after any number of rows equal counting the orders row by row, asked in any sequence."""
    order = sampler(pacing, blocks=23, seed=seed, multiple=multiple)
    times, words, left, epoch = [0] * 23, 0.0, rows, 0
    while left:
        for block in order.order(epoch)[:left]:
            if block >= 0:
                times[block] += 1
                words += block + 1
        left -= min(left, len(order))
        epoch += 1
    assert order.words_seen(rows // 2) <= words
    assert order.times_seen(rows).tolist() == times
    assert order.words_seen(rows) == pytest.approx(words)
    assert order.words_seen(0) == 0.0


@pytest.mark.parametrize("pacing", ["staged", "cumulative", "competence"])
def test_order_is_a_pure_function_of_seed_and_epoch(pacing: str) -> None:
    """The order of an epoch hangs on no other epoch, on no global state, and on the seed; two epochs differ."""
    order = sampler(pacing)
    forwards = [order.order(epoch).tolist() for epoch in range(EPOCHS)]
    np.random.seed(0)  # noqa: NPY002  # the global state is what must not matter
    other = sampler(pacing)
    assert [other.order(epoch).tolist() for epoch in reversed(range(EPOCHS))] == forwards[::-1]
    assert len({tuple(rows) for rows in forwards}) == EPOCHS
    assert sampler(pacing, seed=4).order(0).tolist() != forwards[0]
    assert len({len(rows) for rows in forwards}) == 1


class _Rows:
    """A data set whose rows are their own indices."""

    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        return 37


def rows_of_rank(pacing: str, *, processes: int, rank: int, epoch: int, skip: int = 0) -> list[list[int]]:
    """Return the batches that a rank sees of an epoch, through accelerate's own sharding, the first `skip` left out."""
    batch = 8 // processes
    order = sampler(pacing, multiple=batch * processes if processes > 1 else 1)
    loader: Any = DataLoader(_Rows(), batch_size=batch, sampler=order)  # type: ignore[arg-type]
    loader = prepare_data_loader(loader, num_processes=processes, process_index=rank, put_on_device=False)
    if skip:
        loader = skip_first_batches(loader, skip)
    loader.set_epoch(epoch)  # both as the trainer does when an epoch begins
    order.set_epoch(epoch)
    return [rows.tolist() for rows in loader]


@pytest.mark.parametrize("pacing", ["none", "staged", "cumulative", "competence"])
def test_ranks_share_the_rows_of_one_process(pacing: str) -> None:
    """In every epoch 1, 2 and 4 ranks see at each step together the rows of the order, and after a resume the rest."""
    for epoch in range(EPOCHS + 1):
        expected = sampler(pacing).order(epoch).tolist()
        steps = [expected[start : start + 8] for start in range(0, len(expected), 8)]
        for processes in (1, 2, 4):
            ranks = [rows_of_rank(pacing, processes=processes, rank=rank, epoch=epoch) for rank in range(processes)]
            together = [[row for rank in step for row in rank] for step in zip(*ranks, strict=True)]
            assert len(together) == len(steps)
            for found, wanted in zip(together, steps, strict=True):
                assert found == wanted + [-1] * (len(found) - len(wanted)), (processes, epoch)
            for rank in range(processes):
                resumed = rows_of_rank(pacing, processes=processes, rank=rank, epoch=epoch, skip=1)
                assert resumed == ranks[rank][1:], (processes, epoch)


@pytest.mark.parametrize("pacing", ["cumulative", "competence"])
def test_a_pacing_is_not_staged(pacing: str) -> None:
    """Each pacing brings other rows than stage after stage, and harder ones later."""
    order = sampler(pacing)
    assert any(order.order(epoch).tolist() != sampler("staged").order(epoch).tolist() for epoch in range(EPOCHS))
    first, last = (order.order(epoch) for epoch in (0, EPOCHS - 1))
    assert first[first >= 0].mean() < last[last >= 0].mean()
