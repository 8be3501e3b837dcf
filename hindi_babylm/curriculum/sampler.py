"""The order of blocks: a pure function of seed and epoch."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from hindi_babylm.curriculum.pacing import FIRST_STAGES, PACINGS, blocks_in_reach, stage_bounds, stage_lengths
from hindi_babylm.storage import UserError


class CurriculumSampler(Sampler[int]):
    """Yield the indices of blocks, in an order that hangs on `seed` and the epoch alone.

    It is equal on every rank before sharding, and of one length in every epoch: a multiple of `multiple`, the rows
    that all processes take at once. What is missing is filled with index -1, which `Blocks` answers with a row of
    nothing to predict; sharding would else repeat rows at an epoch's end.

    Without `stage_epochs` an epoch holds every block. A curriculum has blocks that were packed from easy to hard, and
    an entry of `PACINGS`: with `staged` or `cumulative` they are cut into as many stages of equal size as
    `stage_epochs` has entries; with `competence` all are in reach after `competence_epochs` epochs. Raises UserError
    for fewer blocks than stages. Where the blocks of each epoch are others, `block_words` is a function of the epoch.

    >>> words = np.array([90, 95, 100, 110])  # of blocks that were packed from easy to hard
    >>> sampler = CurriculumSampler(words, seed=42, stage_epochs=[2, 1])
    >>> [sorted(sampler.order(epoch).tolist()) for epoch in range(3)]
    [[0, 1], [0, 1], [2, 3]]
    >>> sampler.words_seen(rows=4)  # after two epochs of two rows
    370.0
    """

    def __init__(
        self,
        block_words: np.ndarray | Callable[[int], np.ndarray],
        *,
        seed: int,
        multiple: int = 1,
        pacing: str = "staged",
        stage_epochs: Sequence[int] = (),
        competence_epochs: float = 1.0,
    ) -> None:
        self.block_words = block_words
        self.blocks = len(self._words_of_blocks(0))
        self.seed = seed
        self.pacing = pacing
        self.stage_epochs = stage_epochs or [1]
        self.competence_epochs = competence_epochs
        self.stage_lengths = stage_lengths(pacing, self.stage_epochs)
        if self.blocks < len(self.stage_lengths):
            raise UserError(
                f"curriculum: {self.blocks} blocks do not fill {len(self.stage_lengths)} stages: "
                "lower block_size, or take more text or fewer stages"
            )
        self.stage_bounds = stage_bounds(self.blocks, max(1, len(self.stage_lengths)))
        self.multiple = multiple
        self.epoch = 0
        self._words_before = [0.0]  # the words of `words_seen` before each epoch
        self._running: tuple[int, np.ndarray] = (-1, np.empty(0))  # and in one epoch, row by row

    def __len__(self) -> int:
        # The first stage is the longest, and without stages it is all blocks.
        return -(-self.stage_bounds[1] // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """Return the block indices of `epoch` in training order, -1 for padding: int64 `(len(self),)`."""
        order = PACINGS[self.pacing](
            epoch,
            blocks=self.blocks,
            seed=self.seed,
            stage_epochs=self.stage_epochs,
            competence_epochs=self.competence_epochs,
        )
        return np.concatenate([order, np.full(len(self) - len(order), -1)])

    def stage(self, stage: int) -> range:
        """Return the blocks that a stage trains on."""
        return range(self.stage_bounds[FIRST_STAGES[self.pacing](stage)], self.stage_bounds[stage + 1])

    def in_reach(self, epochs: float) -> int:
        """Return how many blocks are in reach after `epochs` epochs of pacing by competence."""
        found = blocks_in_reach(np.asarray(epochs), blocks=self.blocks, competence_epochs=self.competence_epochs)
        return int(found)

    def times_seen(self, rows: int) -> np.ndarray:
        """Return how often each block is among the first `rows` of the run, counted over epochs: `(blocks,)`."""
        epochs, rest = divmod(rows, len(self))
        counts = np.zeros(self.blocks + 1, dtype=np.int64)  # the last one is that of padding
        for epoch in range(epochs + 1):
            order = self.order(epoch)
            counts += np.bincount(order[: rest if epoch == epochs else None] % len(counts), minlength=len(counts))
        return counts[:-1]

    def words_seen(self, rows: int) -> float:
        """Return the words in the first `rows` rows of the run; asked at every step, so an epoch is added up once."""
        epoch, rest = divmod(rows, len(self))
        if self._running[0] != epoch:
            while len(self._words_before) <= epoch:
                self._words_before.append(self._words_before[-1] + self._words(len(self._words_before) - 1).sum())
            self._running = epoch, np.concatenate([[0.0], np.cumsum(self._words(epoch))])
        return float(self._words_before[epoch] + self._running[1][rest])

    def _words(self, epoch: int) -> np.ndarray:
        order = self.order(epoch)
        return np.where(order >= 0, self._words_of_blocks(epoch)[order], 0.0)

    def _words_of_blocks(self, epoch: int) -> np.ndarray:
        return self.block_words(epoch) if callable(self.block_words) else self.block_words
