"""Rows -> clean documents on disk, with the ledger of what the cleaning took; reused while nothing has changed."""

import functools
import hashlib
import itertools
import json
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex

from hindi_babylm import orthography
from hindi_babylm.console import bar, say, shortened, tell_end
from hindi_babylm.corpus.duplicates import content_key, signatures
from hindi_babylm.corpus.hashing import stable_hash
from hindi_babylm.corpus.hygiene.cleaning import clean
from hindi_babylm.corpus.ledger import Ledger
from hindi_babylm.corpus.reading import Fault, Row
from hindi_babylm.corpus.workers import map_in_order
from hindi_babylm.orthography import count_aksharas, count_bytes, count_words, normalize
from hindi_babylm.storage import UserError, read_json, write_atomically, write_json

if TYPE_CHECKING:
    from datasets import Dataset

UNREADABLE = "unreadable"
BATCH_CHARACTERS = 1_000_000
BATCH_ROWS = 1_000
TEXT_COLUMNS = ("text", "source", "document_id", "work")
AMOUNTS = ("words", "bytes", "aksharas")
HASHES = ("key", "fingerprint")
# What decides over the result beside the rows and the settings.
CODE = (*sorted(Path(__file__).parent.rglob("*.py")), Path(orthography.__file__))


def clean_rows(
    rows: Callable[[], Iterator[Row | Fault]],
    *,
    identity: str,
    label: str,
    name: str,
    text_column: str,
    hygiene: Sequence[str],
    min_words: int,
    max_document_words: int,
    near_duplicates: bool,
    stop_after: tuple[str, float] | None,
    workers: int | None,
) -> "tuple[Dataset, Ledger]":
    """Clean what `rows` yields into a memory-mapped table of documents, or reuse the table of an equal call.

    `identity` stands for the content of the rows, `label` for where they come from, `name` for the source that the
    documents bear when their row has none. With `stop_after`, a unit and an amount, no more rows are taken once so
    much has been kept. The table has the columns `text, source, document_id, work, words, bytes, aksharas`, `key`,
    which equal texts share, `fingerprint`, which only wholly equal documents share, and, with `near_duplicates`, the
    MinHash `signature`. Raises UserError when the cache cannot be written.
    """
    import datasets

    started = time.monotonic()
    settings: dict[str, Any] = {
        "name": name,
        "text_column": text_column,
        "hygiene": list(hygiene),
        "min_words": min_words,
        "max_document_words": max_document_words,
        "near_duplicates": near_duplicates,
    }
    key = _key(identity, stop_after, settings)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hindi_babylm"
    table, facts = folder / f"{key}.arrow", folder / f"{key}.json"
    if reused := facts.exists() and table.exists():
        ledger = Ledger(**read_json(facts))
    else:
        ledger = Ledger()
        try:
            with write_atomically(table) as temporary:
                batches = _batches(rows(), label=label, text_column=text_column)
                results = map_in_order(functools.partial(_clean_batch, **settings), batches, workers=workers)
                _write_table(temporary, results, ledger, label=label, stop_after=stop_after)
            write_json(facts, {name: getattr(ledger, name) for name in ("read", "dropped", "changed")})
        except OSError as error:
            raise UserError(
                f"corpus: cannot write clean documents to {folder}: {error.strerror or error}; make room, or set "
                "HF_DATASETS_CACHE to another folder"
            ) from error
    documents = datasets.Dataset.from_file(str(table))
    amount = f"{ledger.read['documents']:,} documents"
    if reused:
        say(f"Reading {label}: {amount}, reused: unchanged")
    else:
        tell_end(f"Reading {label}", amount, started)
    return documents, ledger


def _key(identity: str, stop_after: tuple[str, float] | None, settings: Mapping[str, Any]) -> str:
    state = hashlib.blake2b(digest_size=16)
    versions = [sys.version_info[:2], unicodedata.unidata_version, regex.__version__]
    if settings["near_duplicates"]:
        signatures([])  # a missing package is told at once
        versions += [version(package) for package in ("datasketch", "numpy")]
    state.update(json.dumps([identity, stop_after, settings, versions], sort_keys=True).encode())
    for path in CODE:
        state.update(path.read_bytes())
    return state.hexdigest()


def _batches(rows: Iterator[Row | Fault], *, label: str, text_column: str) -> Iterator[list[Row | Fault]]:
    """Yield rows in batches of about `BATCH_CHARACTERS`, so that a book and a tweet cost a worker alike."""
    batch: list[Row | Fault] = []
    characters = 0
    first = True
    for row in itertools.chain(rows, (None,)):
        if row is None or characters >= BATCH_CHARACTERS or len(batch) >= BATCH_ROWS:
            if first and batch and not any(isinstance(known, Fault) or text_column in known for known in batch):
                columns = sorted({str(column) for known in batch for column in known})
                raise UserError(
                    f"corpus: source {label!r} has no column {text_column!r}; it has {', '.join(columns)}: "
                    'name the right one with "text_column"'
                )
            first = False
            if batch:
                yield batch
            batch, characters = [], 0
        if row is not None:
            batch.append(row)
            text = row.text if isinstance(row, Fault) else row.get(text_column)
            characters += len(text) if isinstance(text, str) else 0


def _clean_batch(
    rows: Sequence[Row | Fault],
    *,
    name: str,
    text_column: str,
    hygiene: Sequence[str],
    min_words: int,
    max_document_words: int,
    near_duplicates: bool,
) -> tuple[dict[str, list[Any]], Ledger]:
    """Return the columns of the documents that the rows become, and the ledger of the rows."""
    ledger = Ledger()
    columns: dict[str, list[Any]] = {column: [] for column in (*TEXT_COLUMNS, *AMOUNTS, *HASHES)}
    for row in rows:
        names: Row = {} if isinstance(row, Fault) else row
        text, fault = row if isinstance(row, Fault) else (row.get(text_column), None)
        if not isinstance(text, str):
            text, fault = "", f"no text in column {text_column!r}"
        identity, work, source = (_name(names.get(key)) for key in ("id", "work", "source"))
        if fault is None and _has_surrogates(identity + work + source):
            fault, identity = "half of a surrogate pair in its id, work or source", ""
        size = count_bytes(text)
        words = count_words(text)
        # Without an id the text is its own: equal texts share a split, and the order of files does not matter.
        identity = identity or f"{stable_hash(normalize(text).strip()):016x}"
        ledger.read_in(words=words, size=size)
        if fault is not None:
            ledger.drop(UNREADABLE, words=words, size=size, document_id=identity, text=f"{fault}: {text!r}")
            continue
        cleaned = clean(text, steps=hygiene, min_words=min_words, max_words=max_document_words)
        for step, (fewer_words, fewer_bytes) in cleaned.changes.items():
            more = len(cleaned.texts) - 1 if step == "split" else 0
            ledger.change(
                step, words=fewer_words, size=fewer_bytes, document_id=identity, text=text, new_documents=more
            )
            words, size = words - fewer_words, size - fewer_bytes
        dropped = cleaned.dropped
        if any(map(_has_surrogates, cleaned.texts)):
            dropped = UNREADABLE
        if dropped is not None:
            ledger.drop(dropped, words=words, size=size, document_id=identity, text=text)
            continue
        for part, document in enumerate(cleaned.texts):
            part_identity = f"{identity}#{part + 1}" if part else identity
            values = (document, source or name, part_identity, work or identity)
            amounts = (count_words(document), count_bytes(document), count_aksharas(document))
            hashes = (content_key(document), stable_hash("\0".join(values)))
            for column, value in zip(columns, (*values, *amounts, *hashes), strict=True):
                columns[column].append(value)
    if near_duplicates:
        columns["signature"] = [signature.tobytes() for signature in signatures(columns["text"])]
    return columns, ledger


def _name(value: Any) -> str:
    """Return an id, work or source as text: nothing for null and for the NaN that stands for it in tables."""
    return "" if value is None or value != value else str(value)


def _has_surrogates(text: str) -> bool:
    """Tell whether a text holds half of a surrogate pair, which JSON can escape and no file of text can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _write_table(
    path: Path,
    results: Iterable[tuple[dict[str, list[Any]], Ledger]],
    ledger: Ledger,
    *,
    label: str,
    stop_after: tuple[str, float] | None,
) -> None:
    """Write the batches of documents in the format that `datasets` maps into memory, and add up their ledgers."""
    import pyarrow

    types = {
        **dict.fromkeys(TEXT_COLUMNS, pyarrow.string()),
        **dict.fromkeys(AMOUNTS, pyarrow.int64()),
        **dict.fromkeys(HASHES, pyarrow.uint64()),
        "signature": pyarrow.binary(),
    }
    kept, seen, writer = 0, set[int](), None
    with bar(shortened(f"Reading {label}", 40), None, unit=" documents") as progress, open(path, "wb") as file:
        for columns, part in results:
            ledger.merge(part)
            batch = pyarrow.record_batch(
                [pyarrow.array(values, types[column]) for column, values in columns.items()], names=list(columns)
            )
            writer = writer or pyarrow.ipc.new_stream(file, batch.schema)
            writer.write_batch(batch)
            progress.update(part.read["documents"])
            if stop_after is not None:
                unit, wanted = stop_after
                for key, amount in zip(columns["key"], columns[unit], strict=True):
                    kept += 0 if key in seen else amount
                    seen.add(key)
                if kept >= wanted:
                    break
        assert writer is not None  # a source without a row has been refused
        writer.close()
