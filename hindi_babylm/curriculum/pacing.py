"""Which blocks each epoch trains on, and in what order: one function a pacing, each pure in seed and epoch.

Blocks were packed from easy to hard. With stages they are cut into shares of equal size; where they do not divide,
the first ones are a block longer.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# The share at the start in all experiments of Platanios et al. (2019).
INITIAL_COMPETENCE = 0.01


def staged(
    epoch: int, *, blocks: int, seed: int, stage_epochs: Sequence[int], competence_epochs: float
) -> "np.ndarray":
    """Return stage after stage, each for its epochs, shuffled within (specification, "Curriculum Learning").

    int64 `(rows,)`, of one length in every epoch: -1 stands for the block that a shorter stage lacks.
    """
    return _passes(epoch, blocks=blocks, seed=seed, stage_epochs=stage_epochs, pacing="staged")


def cumulative(
    epoch: int, *, blocks: int, seed: int, stage_epochs: Sequence[int], competence_epochs: float
) -> "np.ndarray":
    """Return in stage `i` the blocks of all stages up to `i`, each block once a pass: Spitkovsky et al. (2010).

    A pass over `i + 1` stages takes `i + 1` epochs, for an epoch has the rows of one stage: int64 `(rows,)`, -1 as
    in `staged`. ("From Baby Steps to Leapfrog", NAACL; the training sets of its "Baby Steps" grow so.)
    """
    return _passes(epoch, blocks=blocks, seed=seed, stage_epochs=stage_epochs, pacing="cumulative")


def competence(
    epoch: int, *, blocks: int, seed: int, stage_epochs: Sequence[int], competence_epochs: float
) -> "np.ndarray":
    """Return rows drawn uniformly, with repetition, from the easiest share of the blocks, which grows row by row.

    The share is that of `blocks_in_reach` (Platanios et al. 2019). Once all are in reach the rows are
    those of an epoch without a curriculum, each once. int64 `(blocks,)`.
    """
    import numpy as np

    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(blocks)
    reach = blocks_in_reach(epoch + np.arange(blocks) / blocks, blocks=blocks, competence_epochs=competence_epochs)
    drawn = (generator.random(blocks) * reach).astype(np.int64)
    return np.where(reach < blocks, drawn, order)


def blocks_in_reach(epochs: "np.ndarray", *, blocks: int, competence_epochs: float) -> "np.ndarray":
    """Return how many blocks, from the easiest on, are in reach after `epochs` epochs: int64, of their shape.

    They are the share c(t) = min(1, sqrt(t (1 - c0^2) / T + c0^2)), at least one block, with t = `epochs`, T =
    `competence_epochs` and c0 = 0.01: the square-root competence of Platanios et al. (2019, "Competence-based
    Curriculum Learning for Neural Machine Translation", NAACL), under which new blocks come in ever more slowly.
    """
    import numpy as np

    start = INITIAL_COMPETENCE**2
    share = np.sqrt(epochs * (1 - start) / competence_epochs + start)
    # The root of 1 may come out a little less than 1.
    reach: np.ndarray = np.where(epochs < competence_epochs, np.maximum(1, np.floor(share * blocks)), blocks)
    return reach.astype(np.int64)


def stage_lengths(pacing: str, stage_epochs: Sequence[int]) -> list[int]:
    """Return how many epochs each stage lasts under a pacing; empty where there are no stages.

    >>> stage_lengths("staged", [3, 4, 3]), stage_lengths("cumulative", [3, 4, 3]), stage_lengths("competence", [3])
    ([3, 4, 3], [3, 8, 9], [])
    """
    if pacing not in FIRST_STAGES:
        return []
    return [epochs * (stage + 1 - FIRST_STAGES[pacing](stage)) for stage, epochs in enumerate(stage_epochs)]


def stage_bounds(blocks: int, stages: int) -> list[int]:
    """Return where the stages begin, and where the last one ends, in blocks."""
    short, longer = divmod(blocks, stages)
    return [stage * short + min(stage, longer) for stage in range(stages + 1)]


def _passes(epoch: int, *, blocks: int, seed: int, stage_epochs: Sequence[int], pacing: str) -> "np.ndarray":
    """Return an epoch of a stage: one of the equal parts of a shuffled pass over all that the stage trains on."""
    import numpy as np

    lengths, bounds = stage_lengths(pacing, stage_epochs), stage_bounds(blocks, len(stage_epochs))
    stage, before = 0, 0
    # Past its last epoch a run stays at the last stage.
    while stage < len(lengths) - 1 and epoch >= before + lengths[stage]:
        before += lengths[stage]
        stage += 1
    first = FIRST_STAGES[pacing](stage)
    parts = stage + 1 - first
    part = (epoch - before) % parts
    order = np.random.default_rng([seed, epoch - part]).permutation(np.arange(bounds[first], bounds[stage + 1]))
    rows = np.array_split(order, parts)[part]
    # The row that a shorter part lacks stands in the middle: alone in a last batch it would give no loss.
    return np.insert(rows, bounds[1] // 2, [-1] * (bounds[1] - len(rows)))


# Pacing by stages -> the first of the stages that stage `i` trains on; the last one is `i`.
FIRST_STAGES: dict[str, Callable[[int], int]] = {"staged": lambda stage: stage, "cumulative": lambda stage: 0}

PACINGS: dict[str, Callable[..., "np.ndarray"]] = {
    "staged": staged,
    "cumulative": cumulative,
    "competence": competence,
}
