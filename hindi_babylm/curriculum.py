"""The order of blocks: a pure function of seed and epoch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class CurriculumSampler(Sampler[int]):
    """Yield the indices of all blocks, in an order that hangs on `seed` and the epoch alone.

    It is equal on every rank before sharding, and of one length in every epoch: a multiple of `multiple`, the rows
    that all processes take at once. What is missing is filled with index -1, which `Blocks` answers with a row of
    nothing to predict; sharding would else repeat rows at an epoch's end.
    """

    def __init__(self, block_words: np.ndarray, *, seed: int, multiple: int = 1) -> None:
        self.block_words = block_words
        self.seed = seed
        self.multiple = multiple
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.block_words) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """Return the block indices of `epoch` in training order, padding last: int64 `(len(self),)`."""
        blocks = len(self.block_words)
        order = np.random.default_rng([self.seed, epoch]).permutation(blocks)
        return np.concatenate([order, np.full(len(self) - blocks, -1)])

    def times_seen(self, rows: int) -> np.ndarray:
        """Return how often each block is among the first `rows` of the run, counted over epochs: `(blocks,)`."""
        epochs, rest = divmod(rows, len(self))
        counts = np.full(len(self.block_words) + 1, epochs)
        counts[self.order(epochs)[:rest]] += 1
        return counts[:-1]

    def words_seen(self, rows: int) -> float:
        """Return the words in the first `rows` rows of the run."""
        return float(self.times_seen(rows) @ self.block_words)
