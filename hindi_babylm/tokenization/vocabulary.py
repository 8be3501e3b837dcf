"""The tokens that every trained tokenizer has, and the characters that are worth one of their own."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import regex

from hindi_babylm.orthography import normalize

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
# What a character that is no token is written with, in UTF-8; the names are those of SentencePiece.
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
MINIMUM_VOCABULARY = 512


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Count the characters of the NFC form of `texts`."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalize(text))
    return counts


def most_frequent(counts: Mapping[str, float], size: int) -> list[str]:
    """Return the `size` most frequent entries, of equally frequent ones the first by code point."""
    return sorted(counts, key=lambda entry: (-counts[entry], entry))[:size]


def alphabet(texts: Iterable[str], vocab_size: int) -> list[str]:
    """Return the characters that get a token of their own: at most 1,000 and a quarter of the vocabulary.

    A character that is rarer than this many others is cheaper as bytes than as a row of the embedding. The trainers'
    own limit is not used: which of equally rare characters it takes differs between processes.
    """
    return most_frequent(count_characters(texts), min(1000, vocab_size // 4))


def known_parts(texts: Iterable[str], characters: Sequence[str]) -> Iterator[str]:
    """Yield the parts of the NFC form of `texts` that lie between other characters than these.

    The trainers drop such a character, and would learn pairs of its neighbours that are none.
    """
    others = regex.compile(f"[^{regex.escape(''.join(characters), special_only=False)}]+")
    for text in texts:
        yield from filter(None, others.split(normalize(text)))
