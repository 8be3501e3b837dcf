"""Train tokenizers for Devanagari and measure them."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

from hindi_babylm.console import shows_bars, tell_end, track
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
MINIMUM_VOCABULARY = 512

# A word keeps its matras, viramas and joiners (categories M and Cf), which the stock byte-level pattern \p{L}+ cuts
# off, and the space before it; digits go by up to three; every character falls into exactly one alternative.
DEVANAGARI_SPLIT = (
    r" ?[\p{L}\p{M}\u200c\u200d]+"
    r"| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{M}\p{N}\u200c\u200d]+"
    r"|\s+(?!\S)|\s+"
)


def train_tokenizer(
    texts: Iterable[str], *, algorithm: str = "bpe", vocab_size: int = 16_000, max_length: int | None = None
) -> "PreTrainedTokenizerFast":
    """Train a lossless tokenizer of `vocab_size` tokens, special and byte tokens included, on `texts`.

    `max_length` is recorded as the model's context in tokens. Special strings such as "</s>" inside a text are
    text; `decode(encode(text))` is the NFC form of `text`.

    Raises UserError when `vocab_size` cannot hold the bytes and special tokens.

    >>> texts = ["राम ने आम खाया ।", "सीता ने पानी पिया ।", "राम घर गया ।"] * 10
    >>> tokenizer = train_tokenizer(texts, vocab_size=512, max_length=128)
    >>> tokenizer.tokenize("सीता ने आम खाया")
    ['सीता', ' ने', ' आम', ' खाया']
    >>> tokenizer.decode(tokenizer.encode("शेर ने आम खाया"))  # a word with characters that it has never seen
    'शेर ने आम खाया'
    """
    from transformers import PreTrainedTokenizerFast

    if vocab_size < MINIMUM_VOCABULARY:
        raise UserError(f"tokenizer.vocab_size must be {MINIMUM_VOCABULARY} or more, got {vocab_size}")
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZERS[algorithm](texts, vocab_size),
        # The stock clean-up removes spaces before punctuation.
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
        **({"model_max_length": max_length} if max_length else {}),
        **SPECIAL_TOKENS,
    )
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Train BPE over characters, with bytes for those that the training text lacks.

    Words are split by `DEVANAGARI_SPLIT`; a token never holds part of a character (Sennrich et al. 2016, byte
    fallback as in SentencePiece).
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(byte_tokens),
        special_tokens=list(SPECIAL_TOKENS.values()),
        # A character that is rarer than this many others is cheaper as bytes than as a row of the embedding.
        limit_alphabet=min(1000, vocab_size // 4),
        show_progress=shows_bars(),
    )
    trained = tokenizers.Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC()
    trained.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(DEVANAGARI_SPLIT), behavior="isolated")
    started = time.monotonic()
    trained.train_from_iterator(texts, trainer)
    tell_end("Training tokenizer", f"{trained.get_vocab_size() + len(byte_tokens):,} tokens", started)

    # The trainer cannot add byte tokens that text never matches: put them behind the special tokens by hand.
    learned = json.loads(trained.to_str())["model"]
    by_id = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    special = len(SPECIAL_TOKENS)
    vocabulary = [*by_id[:special], *byte_tokens, *by_id[special:]]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(vocabulary)},
            merges=[tuple(merge) for merge in learned["merges"]],
            unk_token=SPECIAL_TOKENS["unk_token"],
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = trained.normalizer
    tokenizer.pre_tokenizer = trained.pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def load_tokenizer(name: str) -> "PreTrainedTokenizerFast":
    """Open an existing tokenizer by folder or hub id.

    Raises UserError, with the reason, when it cannot be opened.

    >>> _ = train_tokenizer(["राम घर गया ।"], vocab_size=512).save_pretrained("mine")
    >>> load_tokenizer("mine").eos_token
    '</s>'
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = cast("PreTrainedTokenizerFast", AutoTokenizer.from_pretrained(name))
    except Exception as error:  # the loader raises many types: all are told, none is swallowed
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(":. ")
        raise UserError(
            f"tokenizer: cannot open {name!r}: {reason}; name the folder or hub id of a whole one, or leave tokenizer "
            "out to train one"
        ) from error
    return tokenizer


def tokenizer_report(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> dict[str, float]:
    """Measure `tokenizer` on `texts`: tokens per word, bytes per token, and the share of texts that come back whole.

    >>> tokenizer = train_tokenizer(["राम घर गया", "सीता घर गई"] * 10, vocab_size=512)
    >>> tokenizer_report(tokenizer, ["राम घर गया", "सीता घर गई"])
    {'tokens_per_word': 1.0, 'bytes_per_token': 8.666666666666666, 'round_trip': 1.0}
    """
    tokens = words = size = whole = 0
    for text in track(texts, "Measuring tokenizer", "documents"):
        ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        tokens, words, size = tokens + len(ids), words + len(text.split()), size + len(text.encode())
        whole += tokenizer.decode(ids) == text
    return {"tokens_per_word": tokens / words, "bytes_per_token": size / tokens, "round_trip": whole / len(texts)}


TOKENIZERS: dict[str, "Callable[[Iterable[str], int], Tokenizer]"] = {
    "bpe": train_bpe,
}
