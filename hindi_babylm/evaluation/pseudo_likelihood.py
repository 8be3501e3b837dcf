"""Pseudo-log-likelihoods of texts under a masked model: each token masked in turn (Salazar et al. 2020)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import regex
import torch
from torch.nn import functional

from hindi_babylm.console import stage
from hindi_babylm.evaluation.perplexity import refuse_diverged, rows_per_batch
from hindi_babylm.evaluation.scorer import encode
from hindi_babylm.masking import mask_token_id
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Tokens of a split that are scored: each takes a forward pass of a whole window.
SCORED_TOKENS = 4096
# Letters with their signs and digits, or any other sign that is no space.
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}\u200c\u200d]+|\S")
# Figures that follow from a pseudo-likelihood must not be read as those of a likelihood.
_RENAMED = ("loss", "perplexity", "token_perplexity", "word_perplexity")


def pseudo_nll(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    texts: Sequence[str],
    *,
    block_size: int,
    description: str,
    limit: int | None = None,
    within_words: bool = True,
    edges: tuple[int, int] | None = None,
    given: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the negative pseudo-log-likelihood of each text in nats, and its scored tokens: `(texts,)` both.

    A text stands between `edges`, two EOS where none are given. Each token is masked in turn and predicted from up to
    `block_size` - 1 tokens around it, as many on either side as there are. With `within_words` the later tokens of its
    word are masked too (Kauf and Ivanova 2023): they would give it away, and a word of many tokens would look more
    probable than one of few.

    The first `given (texts,)` tokens of each are context alone, and not scored.
    Past `limit` tokens only so many are scored, at equal distances over all texts from a seeded start, and each counts
    for those that it stands for: the sum over all texts is then estimated without bias. The model must be in fp32.

    Raises UserError for a model that has diverged and for a tokenizer without a mask token.

    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया"], vocab_size=512)
    >>> size = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    >>> model = build_model(architecture="deberta-v2", tokenizer=tokenizer, block_size=16, model_config=size)
    >>> nll, tokens = pseudo_nll(model, tokenizer, ["राम घर गया"], block_size=16, description="Scoring")
    >>> # Fresh weights guess: a token costs about the logarithm of the vocabulary.
    >>> bool(0.9 < nll[0] / tokens[0] / np.log(len(tokenizer)) < 1.1)
    True
    """
    mask = mask_token_id(tokenizer)
    before, behind = edges or (tokenizer.eos_token_id, tokenizer.eos_token_id)
    sequences, words = [], []
    for text, ids in zip(texts, encode(tokenizer, texts), strict=True):
        sequences.append(np.asarray([before, *ids, behind], dtype=np.int64))
        words.append(np.asarray([-1, *(_words(tokenizer, text, ids) if within_words else range(len(ids))), -2]))
    lengths = np.asarray([len(sequence) - 2 for sequence in sequences])
    text_of = np.repeat(np.arange(len(texts)), lengths)
    position_of = np.arange(len(text_of)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    scorable = np.flatnonzero(position_of > (np.asarray(given)[text_of] if given is not None else 0))
    chosen = scorable[sample(len(scorable), limit)]
    # Rows of one length together: no compute on padding, and the memory of a batch is known.
    widths = np.minimum(lengths[text_of[chosen]] + 2, block_size)
    order = np.argsort(-widths, kind="stable")
    chosen, widths = chosen[order], widths[order]
    totals = np.zeros(len(texts), dtype=np.float64)
    model.eval()
    start = 0
    with torch.no_grad(), stage(description, len(chosen), "masked tokens") as progress:
        while start < len(chosen):
            width = int(widths[start])
            size = rows_per_batch(model, width)
            batch = chosen[start : start + size]
            inputs = np.full((len(batch), width), before, dtype=np.int64)
            real = np.zeros((len(batch), width), dtype=np.int64)
            places, targets = np.zeros(len(batch), dtype=np.int64), np.zeros(len(batch), dtype=np.int64)
            for row, token in enumerate(batch):
                text, position = text_of[token], position_of[token]
                sequence = sequences[text]
                # The token stands in the middle of its window, but at the ends of a text.
                first = max(0, min(position - block_size // 2, len(sequence) - block_size))
                window = sequence[first : first + block_size].copy()
                places[row], targets[row] = position - first, sequence[position]
                last = position + 1
                while words[text][last] == words[text][position]:
                    last += 1
                window[position - first : last - first] = mask
                inputs[row, : len(window)], real[row, : len(window)] = window, 1
            found = model(
                input_ids=torch.from_numpy(inputs).to(model.device),
                attention_mask=torch.from_numpy(real).to(model.device),
            ).logits
            logits = found[torch.arange(len(batch)), torch.from_numpy(places)].float()
            nll = functional.cross_entropy(logits, torch.from_numpy(targets).to(model.device), reduction="none")
            np.add.at(totals, text_of[batch], nll.cpu().numpy().astype(np.float64))
            start += len(batch)
            progress.update(len(batch))
    refuse_diverged(totals)
    return totals * (len(scorable) / max(1, len(chosen))), np.bincount(text_of[chosen], minlength=len(texts))


def sample(tokens: int, limit: int | None, *, seed: int = 0) -> np.ndarray:
    """Return the tokens to score, all of them up to `limit`, else so many at equal distances: `(scored,)`.

    >>> sample(5, None).tolist(), len(sample(1000, 10)), len(set(np.diff(sample(1000, 10))))
    ([0, 1, 2, 3, 4], 10, 1)
    """
    if limit is None or tokens <= limit:
        return np.arange(tokens)
    places = (np.arange(limit) + np.random.default_rng(seed).random()) * (tokens / limit)
    return np.asarray(places, dtype=np.int64)


def words_of_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the number of the word that each token ends in; a sign that is neither letter nor digit is a word.

    `offsets` are the first character of each token and the one after its last.

    >>> words_of_tokens("राम आया।", [(0, 2), (2, 3), (3, 6), (6, 7), (7, 8)])
    [0, 0, 1, 1, 2]
    """
    # White space goes to the word that it stands before, as the tokens that begin with it do.
    ends = [match.end() for match in _WORD.finditer(text)]
    return [int(place) for place in np.searchsorted(ends, [max(end, 1) for _, end in offsets])]


def _words(tokenizer: Any, text: str, ids: np.ndarray) -> list[int]:
    """Return the number of the word of each token, as `words_of_tokens` does.

    Of a tokenizer that does not say which characters a token stands for, the parts of the text are encoded by
    themselves: by words and signs, or else by white space. Raises UserError when neither gives the tokens of the text.
    """
    if tokenizer.is_fast:
        return words_of_tokens(text, tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets)
    for parts in ([match.group() for match in _WORD.finditer(text)], text.split()):
        encoded = encode(tokenizer, parts)
        if np.array_equal(np.concatenate([np.zeros(0, dtype=np.int64), *encoded]), ids):
            return [number for number, part in enumerate(encoded) for _ in part]
    raise UserError(
        f"evaluation: the slow tokenizer {tokenizer.name_or_path!r} does not tell the words of its tokens, which a "
        f"pseudo-likelihood hides as a whole: take a fast one ({text[:40]}...)"
    )


def pseudo_figures(figures: Mapping[str, Any], *, scored: int) -> dict[str, Any]:
    """Return the figures of a split under names that say what they are, and the number of tokens `scored`.

    >>> pseudo_figures({"perplexity": 2.0, "tokens": 9, "bits_per_byte": {"value": 1.0}, "by_source": {}}, scored=4)
    {'pseudo_perplexity': 2.0, 'tokens': 9, 'pseudo_bits_per_byte': {'value': 1.0}, 'scored_tokens': 4}
    """
    renamed = {f"pseudo_{name}" if _is_likelihood(name) else name: value for name, value in figures.items()}
    by_source = renamed.pop("by_source")
    if scored == figures["tokens"]:  # a sample over all texts says little about a small source
        renamed["by_source"] = {
            source: {f"pseudo_{name}" if _is_likelihood(name) else name: value for name, value in entry.items()}
            for source, entry in by_source.items()
        }
    return {**renamed, "scored_tokens": scored}


def _is_likelihood(name: str) -> bool:
    return name in _RENAMED or name.startswith("bits_per_")
