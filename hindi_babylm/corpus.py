"""Sources -> budgeted, split documents, and the ledger of every word kept or dropped."""

import glob
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.orthography import count_aksharas, count_bytes, count_words, normalize
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SPLITS = ("train", "validation", "test")
EXAMPLES_PER_REASON = 3

# File suffix -> the builder of `datasets` and its options; a compression suffix may follow.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".txt": ("text", {"sample_by": "paragraph", "encoding": "utf-8-sig"}),
    ".jsonl": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
}
COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")
BUNDLED_CORPUS = Path(__file__).parent / "data" / "corpus"


@dataclass
class Ledger:
    """Account for every document, word and byte that came in.

    Figures are taken after NFC and stripping, so that read = kept + dropped holds to the byte.
    """

    read: dict[str, int] = field(default_factory=lambda: _zero())
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)

    def drop(self, reason: str, documents: "Dataset") -> None:
        """Book `documents` as dropped for `reason`, with the beginnings of the first three."""
        if not len(documents):
            return
        entry = self.dropped.setdefault(reason, {**_zero(), "examples": []})
        for unit, amount in _measure(documents).items():
            entry[unit] += amount
        room = EXAMPLES_PER_REASON - len(entry["examples"])
        entry["examples"] += [
            {"document_id": row["document_id"], "text": row["text"][:80]}
            for row in documents.select(range(min(room, len(documents))))
        ]

    def keep(self, split: str, documents: "Dataset") -> None:
        """Book `documents` as kept in `split`, source by source."""
        columns = documents.select_columns(["source", "words", "bytes", "aksharas"])
        for row in columns:
            entry = self.kept.setdefault(split, {}).setdefault(row["source"], {**_zero(), "aksharas": 0})
            entry["documents"] += 1
            for unit in ("words", "bytes", "aksharas"):
                entry[unit] += row[unit]

    def add_tokens(self, split: str, sources: Sequence[str], lengths: Iterable[int]) -> None:
        """Book the tokens of each document of `split`, its EOS included."""
        for source, length in zip(sources, lengths, strict=True):
            entry = self.kept[split][source]
            entry["tokens"] = entry.get("tokens", 0) + int(length)

    def words(self, split: str | None = None) -> int:
        """Return the words kept in `split`, or in all splits."""
        splits = [split] if split else list(self.kept)
        return sum(entry["words"] for name in splits for entry in self.kept.get(name, {}).values())

    def verify(self) -> None:
        """Raise AssertionError unless kept and dropped add up to what was read."""
        for unit, amount in self.read.items():
            kept = sum(entry[unit] for sources in self.kept.values() for entry in sources.values())
            dropped = sum(entry[unit] for entry in self.dropped.values())
            if kept + dropped != amount:
                raise AssertionError(f"ledger: {amount} {unit} read, but {kept} kept + {dropped} dropped")

    def as_dict(self) -> dict[str, Any]:
        """Return the ledger as it stands in `corpus.json`."""
        return {
            "format": 1,
            "read": self.read,
            "dropped": self.dropped,
            "kept": self.kept,
            "budget": self.budget,
        }


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
    """
    import datasets

    ledger = Ledger()
    parts = []
    for source in sources:
        part = load_source(source)
        for unit, amount in _measure(part).items():
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
    position = _hash(f"split:{seed}:{work}") / 2**64
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"


def load_source(source: Mapping[str, Any]) -> "Dataset":
    """Read one source into documents with columns `text, source, document_id, work, words, bytes, aksharas`.

    `path` is a file, a folder or a glob of `.txt .jsonl .csv .tsv .parquet` files, plain or compressed; `hub_id` is a
    dataset of the hub (or a local folder laid out like one) with `config`, `split` and `revision`; `bundled` is
    "all" or the name of a file of the bundled corpus. `text_column` names the text ("text"); columns `id`, `work`
    and `source` are used where present. A `.txt` file is cut into documents at blank lines unless `sample_by` says
    "line" or "document"; of several files each is one work, of a single file each document.

    Raises UserError, naming the source, when nothing is there or the text column is missing.
    """
    import datasets

    if "hub_id" in source:
        label = str(source["hub_id"])
        local = Path(label).is_dir()
        rows = _open(
            label,
            lambda: datasets.load_dataset(
                label,
                source.get("config"),
                split=source.get("split", "train"),
                revision=source.get("revision"),
                # The cache of `datasets` takes local folders of one name for one dataset, whatever lies in them.
                **({"download_mode": "force_redownload", "verification_mode": "no_checks"} if local else {}),
            ),
        )
    else:
        label, files = _find_files(source)
        tables = []
        for (builder, options), group in _group_by_format(files).items():
            settings = dict(options)
            if builder == "text":
                unit = source.get("sample_by", settings["sample_by"])
                settings["sample_by"] = "document" if len(group) > 1 else unit
            rows = _open(label, _loader(builder, group, settings))
            tables.append(_cut(rows, unit) if builder == "text" and len(group) > 1 else rows)
        rows = datasets.concatenate_datasets([_harmonise(table) for table in tables]) if len(tables) > 1 else tables[0]

    column = source.get("text_column", "text")
    if column not in rows.column_names:
        raise UserError(
            f"corpus: source {label!r} has no column {column!r}; it has {', '.join(rows.column_names)}: "
            'name the right one with "text_column"'
        )
    return rows.map(
        _to_documents,
        batched=True,
        remove_columns=rows.column_names,
        fn_kwargs={"text_column": column, "label": source.get("name", label)},
        features=datasets.Features(
            {name: datasets.Value("string") for name in ("text", "source", "document_id", "work")}
            | {name: datasets.Value("int64") for name in ("words", "bytes", "aksharas")}
        ),
        desc=f"Reading {label}",
        # The cache key of `datasets` does not see changes of the functions that `_to_documents` calls.
        load_from_cache_file=False,
    )


def _to_documents(batch: dict[str, list[Any]], *, text_column: str, label: str) -> dict[str, list[Any]]:
    texts = [normalize(text).strip() if isinstance(text, str) else "" for text in batch[text_column]]
    size = len(texts)
    ids = batch.get("id") or [None] * size
    # Without an id the text is its own: equal texts share a split, and the order of files does not matter.
    document_ids = [
        str(i) if i not in (None, "") else f"{_hash(text):016x}" for i, text in zip(ids, texts, strict=True)
    ]
    works = [str(work) if work else key for work, key in zip(batch.get("work") or ids, document_ids, strict=True)]
    return {
        "text": texts,
        "source": [str(name) if name else label for name in batch.get("source") or [None] * size],
        "document_id": document_ids,
        "work": works,
        "words": [count_words(text) for text in texts],
        "bytes": [count_bytes(text) for text in texts],
        "aksharas": [count_aksharas(text) for text in texts],
    }


def _within_budget(documents: "Dataset", max_words: int | None, seed: int, ledger: Ledger, reason: str) -> "Dataset":
    """Keep documents in a seeded order of their ids until the next one would pass `max_words`."""
    if max_words is None or sum(documents["words"]) <= max_words:
        return documents
    words = documents["words"]
    ranks = [_hash(f"budget:{seed}:{document_id}") for document_id in documents["document_id"]]
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


def _find_files(source: Mapping[str, Any]) -> tuple[str, list[str]]:
    if "bundled" in source:
        name = str(source["bundled"])
        available = {path.name.split(".")[0]: str(path) for path in sorted(BUNDLED_CORPUS.glob("*.jsonl.xz"))}
        if name != "all" and name not in available:
            raise UserError(f"corpus: no bundled corpus {name!r}; there are all, {', '.join(available)}")
        return f"bundled {name}", list(available.values()) if name == "all" else [available[name]]
    label = str(source["path"])
    path = Path(label).expanduser()
    if path.is_dir():
        found = [str(file) for file in path.rglob("*") if _format_of(file.name)]
    elif path.is_file():
        found = [str(path)]
    else:
        found = [file for file in glob.glob(str(path), recursive=True) if Path(file).is_file()]
    if not found:
        raise UserError(
            f"corpus: {label!r} matches no readable file; a source is a file, a folder or a glob of "
            f"{' '.join(FORMATS)} files (plain or {' '.join(COMPRESSIONS)}), or a dataset id of the hub"
        )
    return label, sorted(found)


def _format_of(name: str) -> str | None:
    """Return the suffix that says how to read a file, compression taken off, or None when it is not ours."""
    path = Path(name)
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    return suffix if suffix in FORMATS and not path.name.startswith(".") else None


def _group_by_format(files: Iterable[str]) -> dict[tuple[str, tuple[tuple[str, Any], ...]], list[str]]:
    groups: dict[tuple[str, tuple[tuple[str, Any], ...]], list[str]] = {}
    for file in files:
        suffix = _format_of(Path(file).name)
        if suffix is None:
            raise UserError(
                f"corpus: cannot read {file!r}: its name must end in one of {' '.join(FORMATS)}, "
                f"optionally followed by {' '.join(COMPRESSIONS)}"
            )
        builder, options = FORMATS[suffix]
        groups.setdefault((builder, tuple(options.items())), []).append(file)
    return groups


def _loader(builder: str, files: list[str], options: dict[str, Any]) -> "Callable[[], Dataset]":
    import datasets

    if builder == "parquet" and any(Path(file).suffix in COMPRESSIONS for file in files):
        return lambda: datasets.concatenate_datasets([_read_parquet(file) for file in files])
    return lambda: datasets.load_dataset(builder, data_files=files, split="train", **options)


def _read_parquet(file: str) -> "Dataset":
    """Read a parquet file that is compressed as a whole, which `datasets` cannot: the format is read from its end."""
    import datasets
    import fsspec
    import pyarrow.parquet

    with fsspec.open(file, compression="infer") as stream:
        return datasets.Dataset(pyarrow.parquet.read_table(pyarrow.BufferReader(stream.read())))


def _open(label: str, load: "Callable[[], Dataset]") -> "Dataset":
    """Load a dataset, turning what `datasets` says of bad data into one line."""
    try:
        return load()
    except Exception as error:  # every builder raises its own types: all are told, none is swallowed
        cause = error.__cause__ or error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())
        raise UserError(
            f"corpus: cannot read source {label!r}: {reason[:300].rstrip('. ')}; is it there, whole, and not empty? "
            "mend it or leave it out"
        ) from error


def _cut(rows: "Dataset", unit: str) -> "Dataset":
    """Cut rows of whole text files into documents that share their file's work."""

    def cut(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        documents: dict[str, list[str]] = {"text": [], "work": []}
        for text in batch["text"]:
            parts = {"paragraph": text.split("\n\n"), "line": text.split("\n"), "document": [text]}[unit]
            documents["text"] += [part for part in parts if part]
            # By its content: the name and place of a file do not decide over its split.
            documents["work"] += [f"{_hash(text):016x}" for part in parts if part]
        return documents

    return rows.map(cut, batched=True, batch_size=16, remove_columns=rows.column_names, load_from_cache_file=False)


def _harmonise(rows: "Dataset") -> "Dataset":
    """Bring tables of several formats to columns that can stand in one table."""
    import datasets

    return rows.cast(datasets.Features({name: datasets.Value("string") for name in rows.column_names}))


def _measure(documents: "Dataset") -> dict[str, int]:
    return {"documents": len(documents), "words": sum(documents["words"]), "bytes": sum(documents["bytes"])}


def _zero() -> dict[str, int]:
    return {"documents": 0, "words": 0, "bytes": 0}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")
