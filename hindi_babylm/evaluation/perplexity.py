"""Exact negative log-likelihoods of documents under a finished model, and every figure that follows from them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from hindi_babylm.console import stage
from hindi_babylm.metrics import bits_per_unit, bootstrap_interval, perplexity
from hindi_babylm.orthography import count_aksharas, count_bytes, count_words
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100
# Positions of a batch times the vocabulary. On a CPU logits that nearly fit its cache are twice as fast
# (benchmarks/minimal_pairs.py); those of a GPU are bounded to 512 MiB.
LOGITS_PER_BATCH = {"cpu": 2**22, "cuda": 2**27}


def document_nll(
    model: PreTrainedModel,
    documents: Sequence[np.ndarray],
    *,
    eos_token_id: int,
    block_size: int,
    description: str,
    given: Sequence[int] | None = None,
) -> np.ndarray:
    """Return the NLL of each document in nats, float64 `(documents,)`; every token is predicted exactly once.

    The first `given (documents,)` tokens of each are context alone, and not predicted.
    A document is `(tokens,)` without its EOS, which is the context of its first token; its closing EOS is not
    counted. Past `block_size` a window slides by half of it, so that a token has at least half a window of context.
    The model is run as it is given: in fp32, outside autocast, for reported figures. Raises UserError for a model
    that has diverged.
    """
    rows: list[tuple[int, np.ndarray, int]] = []
    for index, tokens in enumerate(documents):
        sequence = np.concatenate([[eos_token_id], tokens])
        for start, end, scored in windows(len(tokens), block_size):
            predicted = end - max(scored, given[index] if given is not None else 0)
            if predicted > 0:
                rows.append((index, sequence[start : end + 1], predicted))
    # Rows of one length together: no compute on padding, and the memory of a batch is known.
    rows.sort(key=lambda row: -len(row[1]))
    totals = np.zeros(len(documents), dtype=np.float64)
    model.eval()
    position = 0
    with torch.no_grad(), stage(description, len(rows), "windows") as progress:
        while position < len(rows):
            length = len(rows[position][1]) - 1
            size = rows_per_batch(model, length)
            batch = rows[position : position + size]
            inputs = np.full((len(batch), length), eos_token_id, dtype=np.int64)
            targets = np.full((len(batch), length), IGNORED, dtype=np.int64)
            for place, (_, ids, skip) in enumerate(batch):
                inputs[place, : len(ids) - 1] = ids[:-1]
                targets[place, len(ids) - 1 - skip : len(ids) - 1] = ids[len(ids) - skip :]
            sums = _row_nll(model, torch.from_numpy(inputs), torch.from_numpy(targets))
            np.add.at(totals, [index for index, _, _ in batch], sums)
            position += len(batch)
            progress.update(len(batch))
    refuse_diverged(totals)
    return totals


def rows_per_batch(model: PreTrainedModel, length: int) -> int:
    """Return how many rows of `length` tokens a batch has on the model's device."""
    embeddings: Any = model.get_input_embeddings()
    logits = LOGITS_PER_BATCH.get(model.device.type, LOGITS_PER_BATCH["cpu"])
    return int(max(1, logits // (length * embeddings.weight.shape[0])))


def refuse_diverged(nll: np.ndarray) -> None:
    """Raise UserError for scores that are no numbers."""
    if not np.isfinite(nll).all():
        raise UserError(
            "evaluation: the model's probabilities are not finite: its training diverged; begin again with a lower "
            "learning_rate or a longer warmup_steps, and --overwrite"
        )


def windows(tokens: int, block_size: int) -> list[tuple[int, int, int]]:
    """Return `(start, end, scored_from)` of each window over a document of `tokens` tokens behind one EOS.

    Positions count the EOS as 0. A window reads positions start..end-1, predicts up to position `end`, and scores
    the targets scored_from+1..end.

    >>> windows(3, 8)
    [(0, 3, 0)]
    >>> windows(10, 4)
    [(0, 4, 0), (2, 6, 4), (4, 8, 6), (6, 10, 8)]
    """
    found = []
    start = scored = 0
    while scored < tokens:
        end = min(start + block_size, tokens)
        found.append((start, end, scored))
        scored = end
        start = end - block_size + max(1, block_size // 2)
    return found


def score_documents(
    *,
    texts: Sequence[str],
    sources: Sequence[str],
    works: Sequence[str],
    nll: np.ndarray,
    tokens: Sequence[int],
    floors: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Return the perplexity family of a split, each figure with its 95 % interval over works.

    `nll` and the floors of the n-grams, by name, are nats a document `(documents,)`. Bytes are those of NFC UTF-8;
    only figures per byte, character, akshara and word compare across tokenizers.
    """
    units = count_units(texts, tokens)
    total = float(nll.sum())
    # The split draws works, so works are resampled: documents of one work resemble each other.
    _, group = np.unique(np.asarray(works), return_inverse=True)

    def interval(of: np.ndarray, unit: str) -> tuple[float, float]:
        return bootstrap_interval(np.bincount(group, of), np.bincount(group, units[unit]))

    def per_unit(unit: str, of: np.ndarray) -> dict[str, float]:
        low, high = interval(of, unit)
        value = bits_per_unit(float(of.sum()), float(units[unit].sum()))
        return {"value": value, "low": bits_per_unit(low, 1), "high": bits_per_unit(high, 1)}

    def perplexity_per(unit: str) -> dict[str, float | None]:
        low, high = interval(nll, unit)
        figures = {"value": total / float(units[unit].sum()), "low": low, "high": high}
        # JSON has no infinity: null stands for what is past the range of a float.
        return {name: value if math.isfinite(value := perplexity(nats, 1)) else None for name, nats in figures.items()}

    by_source: dict[str, dict[str, float | int]] = {}
    for source in sorted(set(sources)):
        chosen = np.asarray([name == source for name in sources])
        by_source[source] = {
            "documents": int(chosen.sum()),
            "bytes": int(units["bytes"][chosen].sum()),
            "bits_per_byte": bits_per_unit(float(nll[chosen].sum()), float(units["bytes"][chosen].sum())),
        }
    return {
        "loss": total / float(units["tokens"].sum()),
        "perplexity": perplexity(total, float(units["tokens"].sum())),
        "documents": len(texts),
        **{unit: int(counts.sum()) for unit, counts in units.items()},
        "bits_per_byte": per_unit("bytes", nll),
        "bits_per_character": per_unit("characters", nll),
        "bits_per_akshara": per_unit("aksharas", nll),
        "word_perplexity": perplexity_per("words"),
        "token_perplexity": perplexity_per("tokens"),
        **{f"{name}_bits_per_byte": per_unit("bytes", of) for name, of in floors.items()},
        "by_source": by_source,
    }


def count_units(texts: Sequence[str], tokens: Sequence[int]) -> dict[str, np.ndarray]:
    """Return what each text has of each unit that a likelihood is divided by: int64 `(texts,)` each."""
    return {
        "tokens": np.asarray(tokens, dtype=np.int64),
        "words": np.asarray([count_words(text) for text in texts]),
        "bytes": np.asarray([count_bytes(text) for text in texts]),
        "characters": np.asarray([len(text) for text in texts]),
        "aksharas": np.asarray([count_aksharas(text) for text in texts]),
    }


def document_items(
    documents: "Dataset", *, nll: np.ndarray, tokens: Sequence[int], floors: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return a row for each document, with what its figures are made of: `document_id, source, work, nll` and units."""
    columns = {
        **{name: documents[name] for name in ("document_id", "source", "work")},
        "nll": nll.tolist(),
        **{unit: counts.tolist() for unit, counts in count_units(documents["text"], tokens).items()},
        **{f"{name}_nll": of.tolist() for name, of in floors.items()},
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _row_nll(model: PreTrainedModel, inputs: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Return the summed NLL of each row's targets, float64 `(rows,)`; targets of -100 do not count."""
    logits = model(input_ids=inputs.to(model.device), use_cache=False).logits.float()
    nll = functional.cross_entropy(logits.flatten(0, 1), targets.to(model.device).flatten(), reduction="none")
    return np.asarray(nll.view(targets.shape).cpu().numpy().sum(axis=1, dtype=np.float64))
