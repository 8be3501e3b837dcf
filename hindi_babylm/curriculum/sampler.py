"""The order of blocks: a pure function of seed and epoch."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from hindi_babylm.storage import UserError


class CurriculumSampler(Sampler[int]):
    """Yield the indices of blocks, in an order that hangs on `seed` and the epoch alone.

    It is equal on every rank before sharding, and of one length in every epoch: a multiple of `multiple`, the rows
    that all processes take at once. What is missing is filled with index -1, which `Blocks` answers with a row of
    nothing to predict; sharding would else repeat rows at an epoch's end.

    Without `stage_epochs` an epoch holds every block. With them the blocks, packed from easy to hard, are cut into
    as many stages of equal size, and stage `i` has the next `stage_epochs[i]` epochs, shuffled within the stage
    (specification, "Curriculum Learning": thirds for 3, 4 and 3 epochs). Raises UserError for fewer blocks than
    stages. Where the blocks of each epoch are others, `block_words` is a function of the epoch.

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
        stage_epochs: Sequence[int] = (),
    ) -> None:
        self.block_words = block_words
        self.seed = seed
        self.blocks = len(self._words(0))
        if self.blocks < len(stage_epochs):
            raise UserError(
                f"curriculum: {self.blocks} blocks do not fill {len(stage_epochs)} stages: "
                "lower block_size, or take more text or fewer stages"
            )
        self.stages = np.array_split(np.arange(self.blocks), len(stage_epochs) or 1)
        self.stage_of_epoch = np.repeat(np.arange(len(self.stages)), stage_epochs or 1)
        self.multiple = multiple
        self.epoch = 0
        self._running: tuple[int, np.ndarray] = (-1, np.empty(0))  # the words of `words_seen`, for one epoch

    def __len__(self) -> int:
        longest = len(self.stages[0])  # `array_split` gives the longer ones first, by one block
        return -(-longest // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""
        self.epoch = epoch

    def stage(self, epoch: int) -> np.ndarray:
        """Return the blocks that `epoch` trains on; past its last epoch a curriculum stays at its last stage."""
        stage: np.ndarray = self.stages[self.stage_of_epoch[min(epoch, len(self.stage_of_epoch) - 1)]]
        return stage

    def order(self, epoch: int) -> np.ndarray:
        """Return the block indices of `epoch` in training order, -1 for padding: int64 `(len(self),)`."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.stage(epoch))
        longest = len(self.stages[0])
        # The row that a shorter stage lacks stands in the middle: alone in a last batch it would give no loss.
        order = np.insert(order, longest // 2, [-1] * (longest - len(order)))
        return np.concatenate([order, np.full(len(self) - longest, -1)])

    def times_seen(self, rows: int) -> np.ndarray:
        """Return how often each block is among the first `rows` of the run, counted over epochs: `(blocks,)`."""
        epochs, rest = divmod(rows, len(self))
        counts = np.zeros(self.blocks + 1, dtype=np.int64)
        for epoch in range(epochs):
            counts[self.stage(epoch)] += 1
        counts[self.order(epochs)[:rest]] += 1
        return counts[:-1]

    def words_seen(self, rows: int) -> float:
        """Return the words in the first `rows` rows of the run; asked at every step, so an epoch is added up once."""
        epoch, rest = divmod(rows, len(self))
        if self._running[0] != epoch:
            before = sum(float(self._words(earlier)[self.stage(earlier)].sum()) for earlier in range(epoch))
            order = self.order(epoch)
            words = np.where(order >= 0, self._words(epoch)[order], 0.0)
            self._running = epoch, before + np.concatenate([[0.0], np.cumsum(words)])
        return float(self._running[1][rest])

    def _words(self, epoch: int) -> np.ndarray:
        """Return the words of each block of `epoch`: `(blocks,)`."""
        return self.block_words(epoch) if callable(self.block_words) else self.block_words
