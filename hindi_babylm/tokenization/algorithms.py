"""What can be trained: functions from texts and a vocabulary size to a lossless tokenizer."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from hindi_babylm.console import shows_bars
from hindi_babylm.orthography import normalize, split_clusters
from hindi_babylm.tokenization.splitting import byte_splitter, piece_splitter, split_pieces
from hindi_babylm.tokenization.vocabulary import (
    BYTE_TOKENS,
    SPECIAL_TOKENS,
    alphabet,
    count_characters,
    known_parts,
    most_frequent,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.decoders import Decoder
    from tokenizers.models import Model
    from tokenizers.pre_tokenizers import PreTokenizer

Merge = tuple[str, str]
SPECIAL = list(SPECIAL_TOKENS.values())
# What every vocabulary begins with; the rest is learned.
FIRST_TOKENS = [*SPECIAL, *BYTE_TOKENS]
# In characters. WordPiece tries every end of a piece from the last one on, which would take forever on a piece without
# end.
LONGEST_PIECE = 48
# The unigram model starts from so many times the tokens that are wanted. More make it slower and its texts longer.
UNIGRAM_SEEDS = 2
# One in so many tokens is learned inside of aksharas. With half as many, 4.6 times the boundaries cut an akshara; with
# twice as many half of them, for 0.6 % more tokens a word (16,000 tokens, bundled corpus).
AKSHARA_SHARE = 8


def train_bpe(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Train BPE over characters, with bytes for those that the training text lacks.

    A token never holds part of a character (Sennrich et al. 2016, byte fallback as in SentencePiece).
    """
    characters = alphabet(texts, vocab_size)
    tokens, merges = _learn_bpe(
        known_parts(texts, characters), vocab_size - len(FIRST_TOKENS), characters, piece_splitter()
    )
    return _merging(tokens, merges)


def train_bpe_akshara(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Train BPE in two rounds: inside of aksharas, then over whole ones.

    The merges of the first round go before those of the second. So an akshara that has a token of its own is never
    cut, and no token of the second round holds part of one. Rarer aksharas are spelled with their parts.
    """
    import tokenizers
    from tokenizers import models

    characters = alphabet(texts, vocab_size)
    size = vocab_size - len(FIRST_TOKENS)
    parts, inside = _learn_bpe(
        ("\0".join(split_clusters(text)) for text in known_parts(texts, characters)),
        min(size, len(characters) + vocab_size // AKSHARA_SHARE),
        characters,
        _nulls(),
    )
    cutter = tokenizers.Tokenizer(models.BPE(vocab=_by_id(parts), merges=inside))
    # The second round sees each akshara that is one token as one character, from a plane for private use.
    sign_of = {token: chr(0xF0000 + index) for index, token in enumerate(parts)}
    token_of = {sign: token for token, sign in sign_of.items()}

    @cache
    def sign(akshara: str) -> str:
        return sign_of[akshara] if cutter.encode(akshara).tokens == [akshara] else "\0"

    @cache
    def signs(piece: str) -> str:
        return "".join(map(sign, split_clusters(piece)))

    whole = ("\0".join(map(signs, split_pieces(normalize(text)))) for text in texts)
    learned, merges = _learn_bpe(whole, size, sorted(token_of), _nulls())
    spelled = {token: "".join(map(token_of.__getitem__, token)) for token in learned}
    tokens = dict.fromkeys([*parts, *spelled.values()])
    return _merging(list(tokens), [*inside, *((spelled[left], spelled[right]) for left, right in merges)])


def train_bpe_bytelevel(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Train BPE over bytes (Radford et al. 2019) in our pieces; a token may hold part of a character."""
    from tokenizers import decoders, models, pre_tokenizers

    signs = pre_tokenizers.ByteLevel.alphabet()
    tokens, merges = _learn_bpe(map(normalize, texts), vocab_size - len(SPECIAL), signs, byte_splitter())
    model = models.BPE(vocab=_by_id([*SPECIAL, *tokens]), merges=merges)
    return _assembled(model, byte_splitter(), decoders.ByteLevel())


def train_unigram(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Train a unigram model (Kudo 2018) with bytes for the characters that the training text lacks.

    A larger vocabulary of BPE is cut down, a quarter at a time, to the tokens without which the text would be the
    least likely. Probabilities are relative frequencies in the most likely segmentation.
    """
    from tokenizers import models

    characters = alphabet(texts, vocab_size)
    size = vocab_size - len(FIRST_TOKENS)
    seeds, _ = _learn_bpe(known_parts(texts, characters), UNIGRAM_SEEDS * size, characters, piece_splitter())
    pieces = Counter(piece for part in known_parts(texts, characters) for piece in split_pieces(part))
    counts = _count_tokens(dict.fromkeys(seeds, -1.0), pieces)  # equal scores: the fewest tokens
    while len(counts) > size:
        scores = _log_frequencies(_count_tokens(_log_frequencies(counts), pieces))
        losses = {
            token: counts[token] * (scores[token] - _score_without(token, scores)) if len(token) > 1 else math.inf
            for token in counts
        }
        keep = most_frequent(losses, max(size, len(counts) * 3 // 4))
        counts = _count_tokens({token: scores[token] for token in keep}, pieces)
    scores = _log_frequencies(_count_tokens(_log_frequencies(counts), pieces))
    vocabulary = [*((token, min(scores.values())) for token in FIRST_TOKENS)]
    vocabulary += [(token, scores[token]) for token in most_frequent(scores, size)]
    return _falling_back(models.Unigram(vocabulary, SPECIAL.index(SPECIAL_TOKENS["unk_token"]), byte_fallback=True))


def _count_tokens(scores: Mapping[str, float], pieces: Mapping[str, int]) -> dict[str, int]:
    """Count each token in the most likely segmentation of the pieces."""
    import tokenizers
    from tokenizers import models

    tokens = list(scores)
    model = tokenizers.Tokenizer(models.Unigram([(token, scores[token]) for token in tokens]))
    counts = [0] * len(tokens)
    for encoding, count in zip(model.encode_batch_fast(list(pieces)), pieces.values(), strict=True):
        for index in encoding.ids:
            counts[index] += count
    return dict(zip(tokens, counts, strict=True))


def _log_frequencies(counts: Mapping[str, int]) -> dict[str, float]:
    """Return the log of each token's share; one that never occurs counts as half a time."""
    total = sum(counts.values())
    return {token: math.log(max(count, 0.5) / total) for token, count in counts.items()}


def _score_without(token: str, scores: Mapping[str, float]) -> float:
    """Return the score of the most likely segmentation of a token into others."""
    best = [0.0] + [-math.inf] * len(token)
    for end in range(1, len(token) + 1):
        for start in range(end):
            part = token[start:end]
            if part != token and part in scores:
                best[end] = max(best[end], best[start] + scores[part])
    return best[-1]


def train_wordpiece(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Train WordPiece as BERT applies it: the longest token that fits, from left to right, over a vocabulary of BPE.

    The space before a word marks its beginning, so that no text is lost and no ## is needed. Characters that are no
    tokens are cut into bytes.
    """
    characters = alphabet(texts, vocab_size)
    tokens, _ = _learn_bpe(known_parts(texts, characters), vocab_size, characters, piece_splitter())
    return _longest_match(tokens, vocab_size)


def train_character(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Take the characters of the training text as tokens, the most frequent if there are too many."""
    return _merging(sorted(most_frequent(count_characters(texts), vocab_size - len(FIRST_TOKENS))), [])


def train_character_bigram(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Take the most frequent pairs of characters as tokens, and single ones for what is left.

    Pairs do not overlap: each piece is cut from its beginning into twos.
    """
    characters = alphabet(texts, vocab_size)
    pieces = Counter(piece for text in texts for piece in split_pieces(normalize(text)))
    pairs: Counter[str] = Counter()
    for piece, count in pieces.items():
        for start in range(0, len(piece), 2):
            pairs[piece[start : start + 2]] += count
    return _longest_match([*characters, *most_frequent(pairs, vocab_size)], vocab_size)


def _learn_bpe(
    texts: Iterable[str], size: int, characters: Sequence[str], splitter: "PreTokenizer"
) -> tuple[list[str], list[Merge]]:
    """Return the tokens of BPE over `characters` in the order of their ids, and its merges in their order."""
    import tokenizers
    from tokenizers import models, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=list(characters),
        limit_alphabet=len(characters),
        show_progress=shows_bars(),
    )
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = splitter
    trained.train_from_iterator(texts, trainer)
    learned = json.loads(trained.to_str())["model"]
    merges = [(left, right) for left, right in learned["merges"]]
    return sorted(learned["vocab"], key=learned["vocab"].__getitem__), merges


def _merging(tokens: Sequence[str], merges: Sequence[Merge]) -> "Tokenizer":
    """Return the tokenizer that applies `merges` in their order, and writes other characters as bytes."""
    from tokenizers import models

    vocabulary = _by_id([*FIRST_TOKENS, *tokens])
    unknown = SPECIAL_TOKENS["unk_token"]
    return _falling_back(models.BPE(vocab=vocabulary, merges=list(merges), unk_token=unknown, byte_fallback=True))


def _falling_back(model: "Model") -> "Tokenizer":
    from tokenizers import decoders

    return _assembled(model, piece_splitter(), decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]))


def _longest_match(tokens: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Return the tokenizer that takes the longest token that fits, from left to right.

    The library's WordPiece cannot fall back on bytes. So tokens stand in it as their bytes, each byte beside them:
    one is taken only where no character fits.
    """
    from tokenizers import decoders, models, pre_tokenizers

    signs = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = (signs.pre_tokenize_str(token)[0][0] for token in tokens)
    vocabulary = list(dict.fromkeys([*SPECIAL, *sorted(signs.alphabet()), *spelled]))[:vocab_size]
    model = models.WordPiece(
        vocab=_by_id(vocabulary),
        unk_token=SPECIAL_TOKENS["unk_token"],
        max_input_chars_per_word=4 * LONGEST_PIECE,  # bytes
        continuing_subword_prefix="",
    )
    return _assembled(model, byte_splitter(LONGEST_PIECE), decoders.ByteLevel())


def _assembled(model: "Model", splitter: "PreTokenizer", decoder: "Decoder") -> "Tokenizer":
    import tokenizers
    from tokenizers import normalizers

    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoder
    return tokenizer


def _nulls() -> "PreTokenizer":
    from tokenizers import pre_tokenizers

    return pre_tokenizers.CharDelimiterSplit("\0")


def _by_id(tokens: Iterable[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


TOKENIZERS: dict[str, "Callable[[Sequence[str], int], Tokenizer]"] = {
    "bpe": train_bpe,
    "bpe_akshara": train_bpe_akshara,
    "bpe_bytelevel": train_bpe_bytelevel,
    "unigram": train_unigram,
    "wordpiece": train_wordpiece,
    "character": train_character,
    "character_bigram": train_character_bigram,
}
