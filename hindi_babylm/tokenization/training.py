"""Train a tokenizer, or open one that is there."""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from hindi_babylm.console import tell_end
from hindi_babylm.storage import UserError
from hindi_babylm.tokenization.algorithms import TOKENIZERS
from hindi_babylm.tokenization.vocabulary import MINIMUM_VOCABULARY, SPECIAL_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def train_tokenizer(
    texts: Iterable[str], *, algorithm: str = "bpe", vocab_size: int = 16_000, max_length: int | None = None
) -> "PreTrainedTokenizerFast":
    """Train a lossless tokenizer of `vocab_size` tokens, special and byte tokens included, on `texts`.

    `algorithm` is one of `TOKENIZERS`. A text that has too little for the vocabulary gives a smaller one.
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
    started = time.monotonic()
    # Read twice: for the alphabet, and for what is made of it.
    trained = TOKENIZERS[algorithm](texts if isinstance(texts, Sequence) else list(texts), vocab_size)
    tell_end("Training tokenizer", f"{trained.get_vocab_size():,} tokens", started)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=trained,
        # The stock clean-up removes spaces before punctuation.
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
        **({"model_max_length": max_length} if max_length else {}),
        **SPECIAL_TOKENS,
    )
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
