"""How fast are duplicates and held-out text found, and what do they find? All of it over a corpus, in one process.

Run `python -m benchmarks.duplicates [FOLDER]`, a folder of `.jsonl.xz` files with the columns `id`, `work` and `text`
(default: the bundled corpus). Speeds are megabytes of UTF-8 by seconds of processor time, not of wall time. A tenth of
the works each is held out as validation and test, and with them the minimal pairs.
"""

import json
import lzma
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hindi_babylm.corpus.contamination import ngrams_of, remove_overlap
from hindi_babylm.corpus.duplicates import content_key, exact_duplicates, near_duplicates, signatures
from hindi_babylm.corpus.sources import BUNDLED_CORPUS
from hindi_babylm.corpus.splits import split_of
from hindi_babylm.evaluation.minimal_pairs import load_pairs
from hindi_babylm.evaluation.tasks import TASKS

Result = TypeVar("Result")


def measured(name: str, texts: list[str], call: Callable[[], Result]) -> Result:
    """Return the result of a call and print its speed over `texts`."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    start = time.process_time()
    result = call()
    print(f"{name:<30}{size / (time.process_time() - start):8.1f} MB/s of {size:.1f} MB")
    return result


def main() -> None:
    """Print speeds, bytes a document, the near duplicates by threshold, and the words cut by file."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLED_CORPUS
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            rows += [{**json.loads(line), "file": path.name.split(".")[0]} for line in file]
    texts = [row["text"] for row in rows]

    keys = measured("keys", texts, lambda: np.fromiter(map(content_key, texts), dtype=np.uint64))
    exact = measured("exact duplicates", texts, lambda: exact_duplicates(keys))
    print(f"  {(exact != np.arange(len(rows))).sum()} of {len(rows):,} documents")
    signed = measured("signatures", texts, lambda: signatures(texts))
    print(f"  {signed.nbytes // len(rows)} bytes a document")
    for threshold in (0.8, 0.5, 0.2):
        find = partial(near_duplicates, signed, threshold=threshold)
        near = measured(f"near duplicates at {threshold}", texts, find)
        print(f"  {len(near) - near.count(None)} documents")
        for number, other in enumerate(near):
            if other is not None:
                print(f"    {rows[number]['id']} is like {rows[other]['id']}")

    train: list[dict[str, Any]] = []
    held_out: list[dict[str, Any]] = []
    for row in rows:
        split = split_of(row["work"], validation_fraction=0.1, test_fraction=0.1, seed=0)
        (train if split == "train" else held_out).append(row)
    kept_back = [row["text"] for row in held_out]
    for task in TASKS.values():
        kept_back += [text for pair in load_pairs(task) for text in (pair.good, pair.bad)]
    runs = measured("runs of held-out text", kept_back, lambda: ngrams_of(kept_back))
    size = sum(map(len, runs.runs.values()))
    memory = sum(hashes.nbytes for hashes in runs.runs.values()) + runs.endings.nbytes
    print(f"  {size:,} runs, {memory / size:.1f} bytes each")
    texts = [row["text"] for row in train]
    cut = measured("held-out text in train", texts, lambda: [remove_overlap(text, runs)[1] for text in texts])
    words: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for row, passages in zip(train, cut, strict=True):
        words[row["file"]] += len(row["text"].split())
        lost[row["file"]] += sum(len(passage.split()) for passage in passages)
    for name, total in words.items():
        print(f"  {name:<28}{lost[name]:>8,} of {total:>9,} words cut, {100 * lost[name] / total:.2f} %")


if __name__ == "__main__":
    main()
