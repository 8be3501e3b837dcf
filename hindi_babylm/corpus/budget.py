"""Documents in a seeded order, and how many of them fill a budget."""

import numpy as np


def ranks(hashes: np.ndarray, *, seed: int) -> np.ndarray:
    """Return a place in a seeded order for each 64-bit hash: uint64 `(documents,)`, a pure function of hash and seed.

    SplitMix64 (Steele et al. 2014) of the hash and the seed, so that no place follows from the places of others.

    >>> bool((ranks(np.arange(3, dtype=np.uint64), seed=0) != ranks(np.arange(3, dtype=np.uint64), seed=1)).all())
    True
    """
    with np.errstate(over="ignore"):
        return _mix(np.asarray(hashes, dtype=np.uint64) ^ _mix(np.asarray(seed % 2**64, dtype=np.uint64)))


def fill(sizes: np.ndarray, limit: float) -> int:
    """Return how many documents of `sizes`, in order, fit before the next would pass `limit`.

    >>> fill(np.array([3, 4, 5]), 8)
    2
    """
    return int(np.searchsorted(np.cumsum(sizes), limit, side="right"))


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))
