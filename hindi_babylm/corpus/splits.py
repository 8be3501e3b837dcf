"""Documents -> train, validation and test within a budget of words, by hashes alone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hindi_babylm.corpus.ledger import Ledger, measure
from hindi_babylm.corpus.sources import load_source, stable_hash
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SPLITS = ("train", "validation", "test")


def build_corpus(
    *,
    sources: Sequence[Mapping[str, Any]],
    max_words: int | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
) -> "tuple[DatasetDict, Ledger]":
    """Read `sources` into train, validation and test splits of whole documents, and account for them.

    Each source is one of `{"path": file, folder or glob}`, `{"hub_id": ...}` or `{"bundled": name}`; see
    `load_source`. `max_words` (whitespace tokens) bounds the three splits together: documents are taken in a
    seeded order until the next one would pass it. Documents of one `work` share a split. Both choices hang on a
    hash of the document's id alone, so neither the order of files nor a larger budget moves a document from one
    split to another. Returns documents with columns `text, source, document_id, work, words, bytes, aksharas`.

    Raises UserError when a source cannot be read or a split would be empty.

    >>> texts, ledger = build_corpus(sources=[{"bundled": "pratham_storyweaver"}], max_words=50_000)
    >>> print({split: len(documents) for split, documents in texts.items()})
    {'train': 68, 'validation': 5, 'test': 7}
    >>> print(ledger.words("train"), ledger.words(), ledger.dropped["max_words"]["documents"])
    41647 49088 45
    """
    import datasets

    ledger = Ledger()
    parts = []
    for source in sources:
        part = load_source(source)
        for unit, amount in measure(part).items():
            ledger.read[unit] += amount
        words = part["words"]
        whole = part.select([row for row, count in enumerate(words) if count])
        ledger.drop("empty", part.select([row for row, count in enumerate(words) if not count]))
        parts.append(_within_budget(whole, source.get("max_words"), split_seed, ledger, "source max_words"))
    documents = datasets.concatenate_datasets(parts)
    if not len(documents):
        raise UserError(f"corpus: no document with a word in it among the sources {list(sources)}")
    documents = _within_budget(documents, max_words, split_seed, ledger, "max_words")
    ledger.budget = {"unit": "words", "limit": max_words, "used": sum(documents["words"])}

    names = [
        split_of(work, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=split_seed)
        for work in documents["work"]
    ]
    splits = datasets.DatasetDict()
    for split in SPLITS:
        rows = [row for row, name in enumerate(names) if name == split]
        if not rows:
            works = len(set(documents["work"]))
            raise UserError(
                f"corpus: the {split} split got none of the {works} works; give more documents (a .txt file is cut at "
                'blank lines; "sample_by": "line" in its source makes each line a document), a larger '
                "validation_fraction or test_fraction, or another split_seed"
            )
        splits[split] = documents.select(rows)
        ledger.keep(split, splits[split])
    ledger.verify()
    return splits, ledger


def split_of(work: str, *, validation_fraction: float, test_fraction: float, seed: int) -> str:
    """Return the split of `work`: a pure function of its name, the fractions and the seed.

    >>> split_of("premchand:godan", validation_fraction=0.1, test_fraction=0.1, seed=0)
    'train'
    """
    position = stable_hash(f"split:{seed}:{work}") / 2**64
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"


def _within_budget(documents: "Dataset", max_words: int | None, seed: int, ledger: Ledger, reason: str) -> "Dataset":
    """Keep documents in a seeded order of their ids until the next one would pass `max_words`."""
    if max_words is None or sum(documents["words"]) <= max_words:
        return documents
    words = documents["words"]
    ranks = [stable_hash(f"budget:{seed}:{document_id}") for document_id in documents["document_id"]]
    chosen: list[int] = []
    total = 0
    for row in sorted(range(len(ranks)), key=ranks.__getitem__):
        if total + words[row] > max_words:
            break
        chosen.append(row)
        total += words[row]
    if not chosen:
        raise UserError(f"corpus: {reason} {max_words} is too small for a single document; raise it")
    kept = set(chosen)
    ledger.drop(reason, documents.select([row for row in range(len(ranks)) if row not in kept]))
    return documents.select(sorted(chosen))
