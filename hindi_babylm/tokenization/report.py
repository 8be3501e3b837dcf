"""Measure a tokenizer on texts."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from hindi_babylm.console import track
from hindi_babylm.orthography import count_bytes, count_words, split_clusters

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

BATCH = 256  # texts


def tokenizer_report(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> dict[str, float]:
    """Measure `tokenizer` on `texts`; figures without a unit are shares from 0 to 1.

    - `tokens_per_word`, also called fertility, and `bytes_per_token`, of UTF-8.
    - `cuts_in_aksharas`: of the boundaries between two tokens of a text, those inside of an akshara.
    - `unknown`: of the tokens, those that stand for anything unknown.
    - `round_trip`: of the texts, those that decode to themselves.
    - `vocabulary_used`: of the vocabulary, the tokens that occur.

    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया", "सीता घर गई"] * 10, vocab_size=512)
    >>> report = tokenizer_report(tokenizer, ["राम घर गया", "सीता घर गए"])
    >>> for name, figure in report.items():
    ...     print(name, round(figure, 3))
    tokens_per_word 1.5
    bytes_per_token 5.778
    cuts_in_aksharas 0.286
    unknown 0.0
    round_trip 1.0
    vocabulary_used 0.028
    """
    backend = _plain(tokenizer)
    tokens = boundaries = cuts = unknown = whole = 0
    used: set[int] = set()
    for text in track(texts, "Measuring tokenizer", "documents"):
        encoding = backend.encode(text, add_special_tokens=False)
        ids = encoding.ids
        tokens += len(ids)
        boundaries += max(len(ids) - 1, 0)
        cuts += count_cuts(text, encoding.offsets)
        unknown += ids.count(tokenizer.unk_token_id)
        used.update(ids)
        whole += tokenizer.decode(ids) == text
    return {
        "tokens_per_word": tokens / sum(map(count_words, texts)),
        "bytes_per_token": sum(map(count_bytes, texts)) / tokens,
        "cuts_in_aksharas": cuts / max(boundaries, 1),
        "unknown": unknown / tokens,
        "round_trip": whole / len(texts),
        "vocabulary_used": len(used) / len(tokenizer),
    }


def count_cuts(text: str, offsets: Sequence[tuple[int, int]]) -> int:
    """Count the boundaries between tokens that lie inside of an akshara, those inside of a character among them.

    `offsets` are the first character of each token and the one after its last. Tokens that share the bytes of one
    character, or of several that fell back on bytes together, have the same.

    >>> count_cuts("किताब", [(0, 1), (1, 3), (3, 5)])  # क ित ाब
    2
    >>> count_cuts("किताब", [(0, 2), (2, 4), (4, 5)])
    0
    """
    starts = {0}
    position = 0
    for cluster in split_clusters(text):
        starts.add(position := position + len(cluster))
    groups = [(start, end, len(list(same))) for (start, end), same in groupby(offsets)]
    cuts = sum(start < before or start not in starts for (_, before, _), (start, _, _) in pairwise(groups))
    for start, end, tokens in groups:
        inside = range(start + 1, end)
        if tokens == count_bytes(text[start:end]):  # a token is a byte: some boundaries lie between characters
            cuts += tokens - 1 - sum(position in starts for position in inside)
        else:
            cuts += tokens - 1
    return cuts


def unigram_bits_per_byte(tokenizer: "PreTrainedTokenizerFast", train: Sequence[str], texts: Sequence[str]) -> float:
    """Return the bits per byte of `texts` under an add-one unigram of the tokens of `train`.

    The same floor as in `results.json`: an end of text is counted in `train`, and none is predicted.

    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> texts = ["राम घर गया", "सीता घर गई"] * 10
    >>> round(unigram_bits_per_byte(train_tokenizer(texts, vocab_size=512), texts, texts), 3)
    0.546
    """
    import numpy as np

    counts = np.ones(len(tokenizer))
    for ids in encode(tokenizer, train):
        counts += np.bincount(ids, minlength=len(tokenizer))
    if tokenizer.eos_token_id is not None:
        counts[tokenizer.eos_token_id] += len(train)
    bits = np.log2(counts.sum()) - np.log2(counts)
    return float(sum(bits[ids].sum() for ids in encode(tokenizer, texts)) / sum(map(count_bytes, texts)))


def encode(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the ids of each text as packing encodes it: without special tokens, on all cores."""
    backend = _plain(tokenizer)
    for start in range(0, len(texts), BATCH):
        for encoding in backend.encode_batch_fast(list(texts[start : start + BATCH]), add_special_tokens=False):
            yield encoding.ids


def _plain(tokenizer: "PreTrainedTokenizerFast") -> "Tokenizer":
    backend = tokenizer.backend_tokenizer
    # Strings such as "</s>" in a text are text.
    backend.encode_special_tokens = True
    return backend
