"""Exact negative log-likelihoods of documents under a finished model, and every figure that follows from them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from hindi_babylm.console import stage
from hindi_babylm.evaluation.rows import TREE_TOKENS, Row, single_row, tree_rows
from hindi_babylm.metrics import bits_per_unit, bootstrap_interval, perplexity
from hindi_babylm.orthography import count_aksharas, count_bytes, count_words
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from datasets import Dataset

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
    singles: list[Row] = []
    short: dict[int, np.ndarray] = {}
    first: dict[int, int] = {}
    for index, tokens in enumerate(documents):
        sequence = np.concatenate([[eos_token_id], tokens])
        context = 0 if given is None else given[index]
        for start, end, scored in windows(len(tokens), block_size):
            if (known := max(scored, context)) >= end:
                continue
            if len(tokens) <= min(block_size, TREE_TOKENS):
                short[index], first[index] = sequence, known
            else:
                singles.append(single_row(sequence[start : end + 1], first=known - start, owner=index))
    rows = tree_rows(short, first=first)
    model.eval()
    totals = np.zeros(len(documents), dtype=np.float64)
    with torch.no_grad(), stage(description, len(singles) + len(short), "windows") as progress:
        if any(row.visible is not None for row in rows) and not reads_trees(model, eos_token_id, block_size=block_size):
            rows = [single_row(short[index], first=first[index], owner=index) for index in short]
        trees = [row for row in rows if row.visible is not None]
        singles += [row for row in rows if row.visible is None]
        for batch in (*_batches(model, singles), *_batches(model, trees)):
            for row, nll in zip(batch, _row_nll(model, batch, padding=eos_token_id), strict=True):
                np.add.at(totals, row.owners, nll)
                progress.update(len(np.unique(row.owners)))
    refuse_diverged(totals)
    return totals


def _batches(model: PreTrainedModel, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield rows of about one length together: little compute on padding, and the memory of a batch is known."""
    ordered = sorted(rows, key=lambda row: -len(row.tokens))
    position = 0
    while position < len(ordered):
        size = rows_per_batch(model, len(ordered[position].tokens))
        yield ordered[position : position + size]
        position += size


def _row_nll(model: PreTrainedModel, rows: Sequence[Row], *, padding: int) -> list[np.ndarray]:
    """Return the NLL of what each row predicts, in nats: `(predicted,)` each; all rows are trees, or none is."""
    length = max(len(row.tokens) for row in rows)
    inputs = np.full((len(rows), length), padding, dtype=np.int64)
    for place, row in enumerate(rows):
        inputs[place, : len(row.tokens)] = row.tokens
    more: dict[str, torch.Tensor] = {}
    if rows[0].visible is not None:
        positions = np.zeros_like(inputs)
        mask = np.tile(np.eye(length, dtype=bool), (len(rows), 1, 1, 1))  # padding sees itself: no row is all masked
        for place, row in enumerate(rows):
            own = slice(len(row.tokens))
            positions[place, own], mask[place, 0, own, own] = row.positions, row.visible
        hidden = torch.zeros(mask.shape, dtype=model.dtype)
        hidden.masked_fill_(torch.from_numpy(~mask), torch.finfo(model.dtype).min)
        more = {"position_ids": torch.from_numpy(positions).to(model.device), "attention_mask": hidden.to(model.device)}
    logits = model(input_ids=torch.from_numpy(inputs).to(model.device), use_cache=False, **more).logits
    sizes = [len(row.sources) for row in rows]
    chosen = (
        np.repeat(np.arange(len(rows)), sizes),
        np.concatenate([row.sources for row in rows]),
        np.concatenate([row.targets for row in rows]),
    )
    nll = -functional.log_softmax(logits.float(), dim=-1)[*(torch.from_numpy(part).to(model.device) for part in chosen)]
    return np.split(nll.cpu().numpy().astype(np.float64), np.cumsum(sizes)[:-1])


def reads_trees(model: PreTrainedModel, eos_token_id: int, *, block_size: int) -> bool:
    """Tell whether a model takes positions and visible tokens as they are given, by a tree as large as they get.

    Others keep positions, distances or windows of their own, or a state.
    """
    generator = np.random.default_rng(0)
    embeddings: Any = model.get_input_embeddings()
    vocabulary = embeddings.weight.shape[0]
    length = min(TREE_TOKENS - 1, block_size)
    # A text as long as they get, and others that leave it half-way, until the row is full.
    padding = model.config.get_text_config().pad_token_id  # at which transformers warns
    drawn = np.setdiff1d(np.arange(vocabulary), [] if padding is None else [padding])
    sequences = {0: np.concatenate([[eos_token_id], generator.choice(drawn, size=length)])}
    room = TREE_TOKENS - length
    while room:
        own = min(room, length - length // 2)
        end = generator.choice(drawn, size=own + 1)
        sequences[len(sequences)] = np.concatenate([sequences[0][: length // 2], end])
        room -= own
    first = dict.fromkeys(sequences, 0)
    singles = [single_row(sequence, first=0, owner=number) for number, sequence in sequences.items()]
    totals = np.zeros((2, len(sequences)))
    try:
        for way, rows in enumerate((singles, tree_rows(sequences, first=first))):
            for batch in _batches(model, rows):
                for row, nll in zip(batch, _row_nll(model, batch, padding=eos_token_id), strict=True):
                    np.add.at(totals[way], row.owners, nll)
    except Exception:  # each model refuses a mask in a way of its own; what else is wrong, its own rows will tell
        return False
    return bool(np.allclose(totals[0], totals[1], rtol=1e-5, atol=0))


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
