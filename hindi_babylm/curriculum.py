"""The order of blocks: a pure function of seed and epoch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class CurriculumSampler(Sampler[int]):
    """Yield the indices of all blocks, in an order that hangs on `seed` and the epoch alone.

    It is equal on every rank before sharding, and of one length in every epoch.
    """

    def __init__(self, block_words: np.ndarray, *, seed: int) -> None:
        self.block_words = block_words
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.block_words)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """Return the block indices of `epoch` in training order: int64 `(blocks,)`."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self))

    def times_seen(self, blocks: int) -> np.ndarray:
        """Return how often each block is among the first `blocks` of the run, counted over epochs: `(blocks,)`."""
        epochs, rest = divmod(blocks, len(self))
        counts = np.full(len(self), epochs)
        counts[self.order(epochs)[:rest]] += 1
        return counts

    def words_seen(self, blocks: int) -> float:
        """Return the words in the first `blocks` blocks of the run."""
        return float(self.times_seen(blocks) @ self.block_words)
