"""How do the curricula order the bundled corpus, and how long do they take?

Run `python -m benchmarks.curriculum [COPIES]`: Spearman's rank correlations over the documents of the train split, with
length within each source too, then the seconds of each curriculum on so many copies of the split.
"""

import sys
import time

import numpy as np
from datasets import Dataset, concatenate_datasets

from hindi_babylm.corpus.assembly import build_corpus
from hindi_babylm.curriculum.difficulty import DIFFICULTIES, rank_correlation


def main() -> None:
    """Print two tables of rank correlations, and the words a second."""
    train = build_corpus(sources=[{"bundled": "all"}])[0]["train"]
    found = {name: difficulty(train, 0) for name, difficulty in DIFFICULTIES.items()}
    print("| |", " | ".join(found), "|")
    for name, values in found.items():
        print(f"| {name} |", " | ".join(f"{rank_correlation(values, other):.2f}" for other in found.values()), "|")
    for name, values in found.items():
        print(name, {source: round(rho, 2) for source, rho in with_length_by_source(train, values).items()})
    copies = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    documents = concatenate_datasets([train] * copies)
    words = sum(documents["words"])
    for name, difficulty in DIFFICULTIES.items():
        started = time.monotonic()
        difficulty(documents, 0)
        seconds = time.monotonic() - started
        print(f"{name}: {words:,} words in {seconds:.1f} s")


def with_length_by_source(documents: Dataset, values: np.ndarray) -> dict[str, float]:
    """Return the rank correlation of `values (documents,)` with the words of the documents, for each source."""
    words, sources = np.asarray(documents["words"]), np.asarray(documents["source"])
    return {str(name): rank_correlation(values[sources == name], words[sources == name]) for name in np.unique(sources)}


if __name__ == "__main__":
    main()
