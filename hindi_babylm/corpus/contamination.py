"""Held-out text in the training text: the sentences that share a run of words with it are cut out."""

import functools
import itertools
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import regex

from hindi_babylm.console import bar, tell_end
from hindi_babylm.corpus.hashing import stable_hash
from hindi_babylm.corpus.ledger import Ledger
from hindi_babylm.corpus.workers import map_in_order
from hindi_babylm.orthography import count_aksharas, count_bytes, count_words, normalize

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

OVERLAP = "overlap"  # the reason in the ledger
BATCH = 500  # documents
NGRAM = 13  # words: Brown et al. 2020 (arXiv:2005.14165), appendix C
# A whole held-out text of fewer words is too common to be evidence: docs/decisions.md has the counts.
SHORTEST = 7

_UNREAD = regex.compile(r"^[^\p{L}\p{M}\p{N}]+|[^\p{L}\p{M}\p{N}]+$|\p{Cf}+")
_DIGITS = str.maketrans("०१२३४५६७८९", "0123456789")
_SENTENCE_END = regex.compile(r"[।॥?!][\p{Pe}\p{Pf}\p{Pi}\"']*$")
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that multiplying modulo 2**64 loses nothing


class HeldOut(NamedTuple):
    """The runs of words that no training text may share, at 16 to 24 bytes a run."""

    runs: "dict[int, NDArray[np.uint64]]"
    """Words of a run -> the hashes of the runs of that length, sorted, without repeats."""
    endings: "NDArray[np.bool]"
    """Of each ending that a hash can have, modulo the length of this array, whether one of `runs` has it."""


def ngrams_of(texts: Iterable[str], *, n: int = NGRAM) -> HeldOut:
    """Return every run of `n` words of held-out `texts`, and shorter texts as a whole.

    Words are compared as `fold` leaves them. A text of fewer than `n` but at least `SHORTEST` words is one run of
    its own length; a shorter one is left out.

    >>> held_out = ngrams_of(["एक दिन राजा ने अपने मन्त्री से पूछा कि सबसे बड़ा कौन है", "वह घर गया।"])
    >>> {length: len(hashes) for length, hashes in held_out.runs.items()}
    {13: 1}
    """
    import numpy as np

    found: dict[int, list[NDArray[np.uint64]]] = {}
    for text in texts:
        words = word_hashes(text)
        words = words[words != 0]
        length = min(n, len(words))
        if length >= min(n, SHORTEST):
            for _, hashes in ngram_hashes(words, {length}):
                found.setdefault(length, []).append(hashes)
    runs = {length: np.unique(np.concatenate(found[length])) for length in sorted(found)}
    # Eight places a run or more: most runs of a training text are told apart from all of these by one look.
    endings = np.zeros(1 << (8 * sum(map(len, runs.values()))).bit_length(), dtype=np.bool)
    for hashes in runs.values():
        endings[_ending(hashes, endings)] = True
    return HeldOut(runs, endings)


def decontaminated(
    train: "Dataset", held_out: Iterable[Iterable[str]], ledger: Ledger, *, min_words: int, workers: int | None
) -> "Dataset":
    """Return the training documents without the passages that they share with held-out texts, booked in `ledger`.

    A document that keeps fewer than `min_words` words is dropped.
    """
    import datasets
    import numpy as np

    started = time.monotonic()
    ngrams = ngrams_of(text for texts in held_out for text in texts)
    batches = ((start, train[start : start + BATCH]["text"]) for start in range(0, len(train), BATCH))
    changed: dict[int, str] = {}
    with bar("Decontaminating", len(train), unit=" documents") as progress:
        for results in map_in_order(functools.partial(_cut_batch, held_out=ngrams), batches, workers=workers):
            changed |= results
            progress.update(min(BATCH, len(train) - progress.n))
    tell_end("Decontaminating", f"{len(train):,} documents", started)
    if not changed:
        return train
    columns: dict[str, list[Any]] = {column: [] for column in train.column_names}
    mended_rows: list[int] = []
    for row, text in changed.items():
        document = train[row]
        words, size = count_words(text), count_bytes(text)
        booking = {"document_id": document["document_id"], "text": document["text"]}
        if words >= min_words:
            ledger.change(OVERLAP, words=document["words"] - words, size=document["bytes"] - size, **booking)
            values = {**document, "text": text, "words": words, "bytes": size, "aksharas": count_aksharas(text)}
            for column in train.column_names:
                columns[column].append(values[column])
            mended_rows.append(row)
        else:
            ledger.drop(OVERLAP, words=document["words"], size=document["bytes"], **booking)
    whole = np.delete(np.arange(len(train)), list(changed))
    mended = datasets.Dataset.from_dict(columns, features=train.features)
    # Back into the order that they had.
    places = np.append(whole, np.asarray(mended_rows, dtype=np.int64))
    return datasets.concatenate_datasets([train.select(whole), mended]).select(np.argsort(places))


def _cut_batch(batch: tuple[int, Sequence[str]], *, held_out: Any) -> dict[int, str]:
    """Return the texts of a batch that lost a passage, by row."""
    start, texts = batch
    cut = {start + row: remove_overlap(text, held_out) for row, text in enumerate(texts)}
    return {row: text for row, (text, passages) in cut.items() if passages}


def remove_overlap(text: str, held_out: HeldOut) -> tuple[str, list[str]]:
    """Return `text` without the sentences that share a run of words with `held_out`, and the passages cut.

    Sentences end at a danda, a double danda, `?`, `!` and a line break, not at a full stop. Runs go across sentences
    and line breaks; each sentence that a shared run touches is cut, and what remains is looked through again, so that
    it shares no run. Where a passage was, at least a line break is left. A text that shares nothing is returned as is.

    >>> held_out = ngrams_of(["एक दिन राजा ने अपने मन्त्री से पूछा कि सबसे बड़ा कौन है"])
    >>> remove_overlap("वह हँसा। एक दिन राजा ने अपने मन्त्री से पूछा कि सबसे बड़ा कौन है? सब चुप रहे।", held_out)
    ('वह हँसा।\\nसब चुप रहे।', ['एक दिन राजा ने अपने मन्त्री से पूछा कि सबसे बड़ा कौन है?'])
    """
    import numpy as np

    hashes = word_hashes(text)
    spoken = np.flatnonzero(hashes)
    shared = _in_shared_runs(hashes[spoken], held_out)
    if not shared.any():
        return text, []
    words = list(re.finditer(r"\S+", text))
    ends = [
        "\n" in text[word.end() : following.start()] or bool(_SENTENCE_END.search(word.group()))
        for word, following in itertools.pairwise(words)
    ]
    sentences = np.concatenate([[0], np.cumsum(ends)])  # of each word
    cut = np.zeros(sentences[-1] + 1, dtype=bool)
    while shared.any():
        cut[sentences[spoken[shared]]] = True
        spoken = spoken[~cut[sentences[spoken]]]
        shared = _in_shared_runs(hashes[spoken], held_out)
    return _divide(text, words, cut[sentences])


def _divide(text: str, words: "list[re.Match[str]]", cut: "NDArray[np.bool]") -> tuple[str, list[str]]:
    """Return the text of the words that are not cut, and the passages of those that are."""
    import numpy as np

    borders = [0, *(np.flatnonzero(cut[1:] != cut[:-1]) + 1).tolist(), len(words)]
    rest, passages, before = "", [], 0
    for first, after in itertools.pairwise(borders):
        piece = text[words[first].start() : words[after - 1].end()]
        if cut[first]:
            passages.append(piece)
        elif rest:
            gaps = [text[words[row - 1].end() : words[row].start()] for row in (before, first)]
            rest += max("\n", *gaps, key=lambda gap: gap.count("\n")) + piece
        else:
            rest = piece
        before = first  # where the passage between two pieces begins
    return rest, passages


def _in_shared_runs(words: "NDArray[np.uint64]", held_out: HeldOut) -> "NDArray[np.bool]":
    """Say of each word whether it stands in a run that `held_out` has."""
    import numpy as np

    steps = np.zeros(len(words) + 1, dtype=np.int64)
    for length, hashes in ngram_hashes(words, held_out.runs):
        likely = np.flatnonzero(held_out.endings[_ending(hashes, held_out.endings)])
        known = held_out.runs[length]
        places = np.searchsorted(known, hashes[likely])
        places[places == len(known)] = 0
        starts = likely[known[places] == hashes[likely]]
        steps[starts] += 1
        steps[starts + length] -= 1
    return np.cumsum(steps[:-1]) > 0


def _ending(hashes: "NDArray[np.uint64]", endings: "NDArray[np.bool]") -> "NDArray[np.int64]":
    return (hashes & (len(endings) - 1)).view("int64")


def ngram_hashes(words: "NDArray[np.uint64]", lengths: Collection[int]) -> "Iterator[tuple[int, NDArray[np.uint64]]]":
    """Yield each of `lengths` with the hashes of all runs of so many words, in their order.

    Runs that differ have equal hashes with a probability of 2**-64.
    """
    import numpy as np

    factor, shift = np.uint64(_FACTOR), np.uint64(32)
    runs = np.zeros(len(words), dtype=np.uint64)
    for length in range(1, min(max(lengths, default=0), len(words)) + 1):
        runs = (runs[: len(words) - length + 1] ^ words[length - 1 :]) * factor
        runs ^= runs >> shift
        if length in lengths:
            yield length, runs


def word_hashes(text: str) -> "NDArray[np.uint64]":
    """Return a hash of each whitespace-separated word of `text` as compared; 0 for one without letters or digits."""
    import numpy as np

    return np.fromiter(map(_hash_word, text.split()), dtype=np.uint64)


@functools.lru_cache(maxsize=2**17)
def _hash_word(word: str) -> int:
    folded = fold(word)
    return stable_hash(folded) if folded else 0


def fold(word: str) -> str:
    """Return a word as it is compared: NFC, no punctuation at its edges, no joiners, case folded, ASCII digits.

    >>> [fold(word) for word in "“राम” ने कहा-नहीं, १२.5 Km ।".split()]
    ['राम', 'ने', 'कहा-नहीं', '12.5', 'km', '']
    """
    bare: str = _UNREAD.sub("", normalize(word.casefold()))
    return bare.translate(_DIGITS)
