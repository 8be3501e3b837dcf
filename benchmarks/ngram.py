"""How long does the trigram floor take, and how much memory?

Run `python -m benchmarks.ngram`: drawn tokens, whose trigrams are nearly all different, which is the worst case, for
10M words and half of it; then the same number of tokens in which every sentence occurs ten times. Each size is built in
a fresh process.
"""

import sys
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

TOKENS_A_WORD, WORDS_A_DOCUMENT, VOCABULARY, EOS = 1.47, 750, 16_000, 0


def drawn(words: int, *, copies: int = 1, seed: int = 0) -> np.ndarray:
    """Return the tokens of documents whose words are drawn by Zipf's law, EOS after each: uint16."""
    draw = np.random.default_rng(seed)
    shares = 1 / np.arange(1, VOCABULARY)
    size = int(words * TOKENS_A_WORD) // copies
    tokens = draw.choice(np.arange(1, VOCABULARY), size=size, p=shares / shares.sum()).astype(np.uint16)
    tokens[:: int(WORDS_A_DOCUMENT * TOKENS_A_WORD)] = EOS
    return np.append(np.tile(np.roll(tokens, -1), copies), np.uint16(EOS))


def measure(words: int, copies: int) -> str:
    """Build a trigram, score a tenth of its tokens, and return a row of the table."""
    from hindi_babylm.evaluation.ngram import Trigram

    tokens = drawn(words, copies=copies)
    test = np.array_split(drawn(words // 10, seed=1).astype(np.int64), max(1, words // 10 // WORDS_A_DOCUMENT))
    tracemalloc.start()
    start = time.perf_counter()
    trigram = Trigram(tokens, vocab_size=VOCABULARY, eos_token_id=EOS)
    built = time.perf_counter()
    _, highest = tracemalloc.get_traced_memory()
    trigram.document_nll(test)
    scored = time.perf_counter()
    kept = sum(
        part.nbytes
        for level in (trigram._bigrams, trigram._trigrams)
        for part in vars(level).values()
        if isinstance(part, np.ndarray)
    )
    return (
        f"| {words:,} | {len(tokens):,} | {len(trigram._trigrams.keys) - 1:,} | {built - start:.1f} s | "
        f"{scored - built:.1f} s | {highest / 1e6:.0f} MB | {highest / len(tokens):.0f} | {kept / len(tokens):.0f} |"
    )


def main() -> None:
    """Print a row a size."""
    sizes = [(int(word), 1) for word in sys.argv[1:]] or [(5_000_000, 1), (10_000_000, 1), (10_000_000, 10)]
    for words, copies in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            print(pool.submit(measure, words, copies).result(), flush=True)


if __name__ == "__main__":
    main()
