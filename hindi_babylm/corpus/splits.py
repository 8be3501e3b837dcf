"""Train, validation and test: decided for each work by a hash of its name alone."""

from collections.abc import Iterable

import numpy as np

from hindi_babylm.corpus.hashing import stable_hash

SPLITS = ("train", "validation", "test")


def split_of(work: str, *, validation_fraction: float, test_fraction: float, seed: int) -> str:
    """Return the split of `work`: a pure function of its name, the fractions and the seed.

    Neither other works nor a budget have a say, so a larger corpus moves no work from one split to another.

    >>> split_of("premchand:godan", validation_fraction=0.1, test_fraction=0.1, seed=0)
    'train'
    """
    position = stable_hash(f"split:{seed}:{work}") / 2**64
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"


def split_numbers(works: Iterable[str], *, validation_fraction: float, test_fraction: float, seed: int) -> np.ndarray:
    """Return the index into `SPLITS` of each work: int8 `(documents,)`."""
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return np.fromiter((SPLITS.index(split_of(work, **fractions, seed=seed)) for work in works), dtype=np.int8)
