"""How fast is hygiene on clean Hindi, and how fast are aksharas counted? The bundled corpus, one thread, no disk.

Run `python -m benchmarks.hygiene [FILE.jsonl.xz ...]`; files replace the bundled corpus. Rates are megabytes of UTF-8
a second of processor time, the best of three passes; the last lines compare with the plain definitions in the same
process, in turn.
"""

import json
import lzma
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from hindi_babylm.corpus.hygiene.cleaning import STEPS, clean
from hindi_babylm.corpus.sources import BUNDLED_CORPUS
from hindi_babylm.orthography import count_aksharas, normalize, split_aksharas

PASSES = 3


def main() -> None:
    """Print a line a step, one of all of them, and the ratios of the counting."""
    files = [Path(name) for name in sys.argv[1:]] or sorted(BUNDLED_CORPUS.glob("*.jsonl.xz"))
    texts = []
    for file in files:
        with lzma.open(file, "rt", encoding="utf-8") as rows:
            texts += [json.loads(row)["text"] for row in rows]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {megabytes:.1f} MB")
    for name, step in STEPS.items():
        print(f"{name:12} {megabytes / seconds(step, texts):7.0f} MB/s")
    steps = tuple(STEPS)
    whole = seconds(lambda text: clean(text, steps=steps, min_words=1, max_words=10_000), texts)
    print(f"{'all':12} {megabytes / whole:7.0f} MB/s")
    compare("aksharas", count_aksharas, lambda text: len(split_aksharas(text)), texts, megabytes)
    compare("NFC", normalize, lambda text: unicodedata.normalize("NFC", text), texts, megabytes)


def compare(
    name: str, fast: Callable[[str], object], plain: Callable[[str], object], texts: list[str], megabytes: float
) -> None:
    """Print the rates of two functions and their ratio."""
    ours, theirs = seconds(fast, texts), seconds(plain, texts)
    print(f"{name:12} {megabytes / ours:7.0f} MB/s, plain {megabytes / theirs:.0f} MB/s, ratio {theirs / ours:.1f}")


def seconds(function: Callable[[str], object], texts: Iterable[str]) -> float:
    """Return the least processor time of several passes of a function over the texts."""
    best = float("inf")
    for _ in range(PASSES):
        start = time.process_time()
        for text in texts:
            function(text)
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
