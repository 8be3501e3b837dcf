"""Train, validation and test: decided for each work by a hash of its name alone."""

import numpy as np

from hindi_babylm.corpus.budget import ranks
from hindi_babylm.corpus.hashing import stable_hash

SPLITS = ("train", "validation", "test")


def split_of(work: str, *, validation_fraction: float, test_fraction: float, seed: int) -> str:
    """Return the split of `work`: a pure function of its name, the fractions and the seed.

    >>> split_of("premchand:godan", validation_fraction=0.1, test_fraction=0.1, seed=0)
    'train'
    """
    hashes = np.asarray([stable_hash(work)], dtype=np.uint64)
    places = split_places(hashes, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)
    return SPLITS[int(places[0])]


def split_places(work_hashes: np.ndarray, *, validation_fraction: float, test_fraction: float, seed: int) -> np.ndarray:
    """Return the index into `SPLITS` of each work by its 64-bit hash: int64 `(documents,)`.

    Neither the other works nor the budget have a say, so a larger corpus moves no work from one split to another.
    """
    position = ranks(ranks(work_hashes, seed=seed), seed=1) / 2.0**64  # twice: not the order of the budget
    places = np.where(position < test_fraction + validation_fraction, SPLITS.index("validation"), 0)
    return np.where(position < test_fraction, SPLITS.index("test"), places)
