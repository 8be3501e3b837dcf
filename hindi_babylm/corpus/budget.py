"""Documents in a seeded order, and how many of them fill a budget."""

from collections.abc import Iterable

import numpy as np

from hindi_babylm.corpus.hashing import stable_hash


def ranks(document_ids: Iterable[str], *, seed: int) -> np.ndarray:
    """Return the place of each document in a seeded order: uint64 `(documents,)`, a pure function of id and seed.

    >>> print(np.argsort(ranks(["a", "b", "c"], seed=0)), np.argsort(ranks(["a", "b", "c"], seed=3)))
    [2 0 1] [1 2 0]
    """
    return np.fromiter((stable_hash(f"budget:{seed}:{name}") for name in document_ids), dtype=np.uint64)


def fill(sizes: np.ndarray, limit: float) -> int:
    """Return how many documents of `sizes`, in order, fit before the next would pass `limit`.

    >>> fill(np.array([3, 4, 5]), 8)
    2
    """
    return int(np.searchsorted(np.cumsum(sizes), limit, side="right"))
