"""Sources -> train, validation and test within a budget, without duplicates and overlap, and the ledger of it all."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hindi_babylm.console import warn
from hindi_babylm.corpus.budget import fill, ranks
from hindi_babylm.corpus.contamination import decontaminated
from hindi_babylm.corpus.duplicates import exact_duplicates, near_duplicates
from hindi_babylm.corpus.hygiene.cleaning import STEPS
from hindi_babylm.corpus.ledger import BYTE_PREMIUM, EXAMPLES_PER_REASON, EXCERPT, Ledger
from hindi_babylm.corpus.sources import check_weights, load_source, name_of
from hindi_babylm.corpus.splits import SPLITS, split_numbers
from hindi_babylm.storage import UserError, suggestion

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

COLUMNS = ["text", "source", "document_id", "work", "words", "bytes", "aksharas"]
# Of a stream: what duplicates of other sources may take away again.
STREAM_MARGIN = 1.1
COLUMN_BATCH = 10_000  # documents
FILLED = 0.95  # of a budget; less is told
# What a person chose to leave out; every other loss ends a strict build.
CHOSEN = ("source max_words", "weight", "max_words", "max_bytes")
LOSSLESS = ("nfc", "spaces", "long_lines", "split")


def build_corpus(
    *,
    sources: Sequence[Mapping[str, Any]],
    max_words: int | None = None,
    max_bytes: int | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    hygiene: Sequence[str] = tuple(STEPS),
    min_words: int = 1,
    max_document_words: int = 50_000,
    near_duplicate_threshold: float | None = None,
    decontaminate: bool = True,
    held_out: Mapping[str, Iterable[str]] | None = None,
    strict: bool = False,
    workers: int | None = None,
) -> "tuple[DatasetDict, Ledger]":
    """Read `sources` into train, validation and test splits of whole, clean documents, and account for them.

    Each source is one of `{"path": file, folder or glob}`, `{"hub_id": ...}` or `{"bundled": name}`; see
    `load_source`. Of documents with equal text, or with a Jaccard similarity of their word shingles estimated at
    `near_duplicate_threshold` or more, the first is kept. `max_words` (whitespace tokens) or `max_bytes` (UTF-8)
    bounds the three splits together: documents are taken in a seeded order until the next one would pass it; a
    source's `weight` gives its share of it, its `max_words` a bound of its own. Documents of one `work` share a
    split. All choices hang on hashes of ids and texts alone, so neither the order of files, the number of `workers`
    nor a larger budget moves a document from one split to another. `decontaminate` cuts out of the training text
    what it shares with validation, test and the texts of `held_out`; `strict` refuses what would be dropped or
    mended. Returns documents with columns `text, source, document_id, work, words, bytes, aksharas`.

    Raises UserError when a source cannot be read or a split would be empty.

    >>> texts, ledger = build_corpus(sources=[{"bundled": "pratham_storyweaver"}], max_words=50_000)
    >>> print({split: len(documents) for split, documents in texts.items()})
    {'train': 68, 'validation': 5, 'test': 7}
    >>> print(ledger.words("train"), ledger.words(), ledger.dropped["max_words"]["documents"])
    41647 49088 45
    """
    import datasets

    unit, limit = ("bytes", max_bytes) if max_bytes is not None else ("words", max_words)
    if max_words is not None and max_bytes is not None:
        raise UserError("corpus: max_words and max_bytes are one budget in two units: leave one out")
    for step in hygiene:
        if step not in STEPS:
            raise UserError(f"corpus: no step of hygiene {step!r}; {suggestion(step, STEPS)}")
    check_weights(sources, limit=limit)
    ledger, parts = Ledger(), []
    for source in sources:
        documents, cleaning = load_source(
            source,
            hygiene=hygiene,
            min_words=min_words,
            max_document_words=max_document_words,
            near_duplicates=near_duplicate_threshold is not None,
            seed=split_seed,
            stop_after=_wanted(source, sources, unit=unit, limit=limit),
            workers=workers,
        )
        parts.append(documents)
        ledger.merge(cleaning)
    documents = datasets.concatenate_datasets(parts)
    if not len(documents):
        raise UserError(f"corpus: no document is left of {', '.join(map(name_of, sources))}: {_losses(ledger)}")

    facts = _arrays(documents, ["words", "bytes", "key", "fingerprint"])
    origin = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    streamed = np.asarray([bool(source.get("streaming")) for source in sources])[origin]
    # A stream keeps its own order, and comes after what is read whole: what a larger budget reads more of it displaces
    # nothing that a smaller one kept.
    order = ranks(_column(documents, "document_id"), seed=split_seed)
    place = np.where(streamed, np.arange(len(documents), dtype=np.uint64), order) if streamed.any() else order
    rows = np.lexsort((facts["fingerprint"], facts["key"], place, origin, streamed))
    drop = functools.partial(_drop, ledger, documents, facts)
    rows = drop("duplicate", rows, exact_duplicates(facts["key"][rows]) == np.arange(len(rows)))
    if near_duplicate_threshold is not None:
        signatures = np.stack([np.frombuffer(s, dtype=np.uint32) for s in _column(documents.select(rows), "signature")])
        kept = [first is None for first in near_duplicates(signatures, threshold=near_duplicate_threshold)]
        rows = drop("near duplicate", rows, kept)
    rows = _mix(rows, sources, origin, facts, unit=unit, limit=limit, drop=drop)
    rows = rows[np.lexsort((facts["fingerprint"][rows], facts["key"][rows], place[rows]))]
    if limit is not None:
        rows = drop(
            f"max_{unit}",
            rows,
            np.arange(len(rows)) < fill(facts[unit][rows], limit),
            limit=(f"max_{unit}", unit, limit),
        )

    rows = rows[np.lexsort((facts["fingerprint"][rows], facts["key"][rows], order[rows]))]

    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    of = split_numbers(_column(documents, "work"), **fractions, seed=split_seed)[rows]
    splits = datasets.DatasetDict()
    for number, split in enumerate(SPLITS):
        chosen = rows[of == number]
        if not len(chosen):
            works = len(set(_column(documents.select(rows), "work")))
            raise UserError(
                f"corpus: the {split} split got none of the {works} works; give more documents (a .txt file "
                'is cut at blank lines; "sample_by": "line" in its source makes each line a document), a larger '
                "validation_fraction or test_fraction, or another split_seed"
            )
        splits[split] = documents.select(chosen).select_columns(COLUMNS)
    if decontaminate:
        texts = [splits["validation"]["text"], splits["test"]["text"], *(held_out or {}).values()]
        splits["train"] = decontaminated(splits["train"], texts, ledger, min_words=min_words, workers=workers)
        if not len(splits["train"]):
            raise UserError(
                "corpus: every training document shares a passage with validation, test or a task; give more "
                "documents, other fractions, or switch decontaminate off"
            )
    for split, part in splits.items():
        amounts = {amount: _column(part, amount) for amount in ("words", "bytes", "aksharas")}
        ledger.keep(split, _column(part, "source"), amounts)
    used = sum(entry["bytes"] for kept in ledger.kept.values() for entry in kept.values())
    ledger.budget = {
        "unit": unit,
        "limit": limit,
        "used": ledger.words() if unit == "words" else used,
        "bytes": used,
        "english_bytes": round(used / BYTE_PREMIUM),
    }
    ledger.verify()
    if strict:
        _refuse_losses(ledger)
    return splits, ledger


def _wanted(
    source: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], *, unit: str, limit: int | None
) -> tuple[str, float] | None:
    """Return unit and amount of text that a stream is read for, or None for a source that is read whole."""
    if not source.get("streaming"):
        return None
    if source.get("max_words") is not None:
        return "words", STREAM_MARGIN * source["max_words"]
    assert limit is not None  # `check_weights` has seen to it
    weights = sum(float(other.get("weight") or 0) for other in sources)
    return unit, STREAM_MARGIN * limit * (source["weight"] / weights if weights else 1)


def _arrays(documents: "Dataset", names: list[str]) -> dict[str, np.ndarray]:
    """Return columns of numbers at once; a dataset's own iterator takes 50 microseconds a row."""
    table = documents.select_columns(names).with_format("arrow")[:]
    return {name: table[name].to_numpy() for name in names}


def _column(documents: "Dataset", name: str) -> Iterator[Any]:
    """Yield the values of a column; as a list the names of all documents would be most of the memory."""
    for batch in documents.select_columns([name]).with_format("arrow").iter(COLUMN_BATCH):
        yield from batch[name].to_pylist()


def _drop(
    ledger: Ledger,
    documents: "Dataset",
    facts: Mapping[str, np.ndarray],
    reason: str,
    rows: np.ndarray,
    kept: "Sequence[bool] | np.ndarray",
    *,
    limit: tuple[str, str, float] | None = None,
) -> np.ndarray:
    """Return the `kept` ones of `rows`, and book the others.

    A `limit`, what is bounded, its unit and its amount, is refused when it keeps nothing, and told when it is not
    nearly filled.
    """
    mask = np.asarray(kept, dtype=bool)
    gone = rows[~mask]
    if limit is not None and len(gone):
        what, unit, size = limit
        there = int(facts[unit][rows[mask]].sum())
        if not mask.any():
            raise UserError(f"corpus: {what} {size:,.0f} is too small for a single document; raise it")
        if there < FILLED * size:
            warn(
                f"corpus: {what} {size:,.0f} is filled with {there:,} {unit}: the next document has "
                f"{facts[unit][gone[0]]:,}, and none is cut; lower max_document_words to split it"
            )
    if len(gone):
        first = documents.select(gone[:EXAMPLES_PER_REASON])
        examples = [{"document_id": row["document_id"], "text": row["text"][:EXCERPT]} for row in first]
        amounts = {unit: int(facts[unit][gone].sum()) for unit in ("words", "bytes")}
        ledger.merge(Ledger(dropped={reason: {"documents": len(gone), **amounts, "examples": examples}}))
    return np.asarray(rows[mask])


def _mix(
    rows: np.ndarray,
    sources: Sequence[Mapping[str, Any]],
    origin: np.ndarray,
    facts: Mapping[str, np.ndarray],
    *,
    unit: str,
    limit: int | None,
    drop: Any,
) -> np.ndarray:
    """Keep of each source, in its order, what its cap and its weight let in: exact to one document."""
    parts: list[np.ndarray] = []
    for number, source in enumerate(sources):
        part = rows[origin[rows] == number]
        if (cap := source.get("max_words")) is not None:
            bound = (f"max_words of {name_of(source)}", "words", cap)
            there = int(facts["words"][part].sum())
            if source.get("streaming") and there < cap:
                name = name_of(source)
                warn(f"corpus: the stream {name} ended with {there:,} words, fewer than its max_words {cap:,}")
            part = drop("source max_words", part, np.arange(len(part)) < fill(facts["words"][part], cap), limit=bound)
        parts.append(part)
    weights = [float(source.get("weight") or 0) for source in sources]
    if limit is not None and any(weights):
        rest = limit - sum(
            int(facts[unit][part].sum()) for part, weight in zip(parts, weights, strict=True) if not weight
        )
        if rest <= 0:
            raise UserError(
                f"corpus: the capped sources fill the budget of {limit:,} {unit}, which leaves nothing for those with "
                "a weight; raise it, or lower a source's max_words"
            )
        for number, weight in enumerate(weights):
            if not weight:
                continue
            share, part = rest * weight / sum(weights), parts[number]
            there = int(facts[unit][part].sum())
            if there < share:
                warn(
                    f"corpus: of {name_of(sources[number])} {there:,} {unit} are left, fewer than the {share:,.0f} of "
                    f"its weight {weight:g}: the mix is short of it"
                )
            bound = (f"the share of {name_of(sources[number])}", unit, share)
            part = drop("weight", part, np.arange(len(part)) < fill(facts[unit][part], share), limit=bound)
            parts[number] = part
    return np.concatenate(parts)


def _losses(ledger: Ledger) -> str:
    """Return what was dropped, with the first example of each reason, in one line."""
    told = []
    for reason, entry in ledger.dropped.items():
        first = entry["examples"][0]
        told.append(
            f"{entry['documents']:,} dropped as {reason!r}, first {first['document_id']!r} ({first['text'][:60]!r})"
        )
    return "; ".join(told) or "they hold none"


def _refuse_losses(ledger: Ledger) -> None:
    """Raise UserError for the first reason by which a strict corpus would lose or change text."""
    losses = {reason: ("dropped", entry) for reason, entry in ledger.dropped.items() if reason not in CHOSEN}
    losses |= {reason: ("changed", entry) for reason, entry in ledger.changed.items() if reason not in LOSSLESS}
    for reason, (what, entry) in losses.items():
        first = entry["examples"][0]
        raise UserError(
            f"corpus: strict, but {entry.get('touched', entry['documents']):,} documents would be {what} by "
            f"{reason!r}, first {first['document_id']!r} ({first['text'][:60]!r}); mend them, or leave strict out"
        )
