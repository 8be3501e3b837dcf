"""Sources -> documents: files of several formats, folders, globs, hub ids and the bundled corpus."""

import glob
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import tell_end
from hindi_babylm.orthography import count_aksharas, count_bytes, count_words, normalize
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from datasets import Dataset

# File suffix -> the builder of `datasets` and its options; a compression suffix may follow.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".txt": ("text", {"sample_by": "paragraph", "encoding": "utf-8-sig"}),
    ".jsonl": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
}
COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")
BUNDLED_CORPUS = Path(__file__).parent.parent / "data" / "corpus"


def load_source(source: Mapping[str, Any]) -> "Dataset":
    """Read one source into documents with columns `text, source, document_id, work, words, bytes, aksharas`.

    `path` is a file, a folder or a glob of `.txt .jsonl .csv .tsv .parquet` files, plain or compressed; `hub_id` is a
    dataset of the hub (or a local folder laid out like one) with `config`, `split` and `revision`; `bundled` is
    "all" or the name of a file of the bundled corpus. `text_column` names the text ("text"); columns `id`, `work`
    and `source` are used where present. A `.txt` file is cut into documents at blank lines unless `sample_by` says
    "line" or "document"; of several files each is one work, of a single file each document.

    Raises UserError, naming the source, when nothing is there or the text column is missing.

    >>> _ = Path("kahani.txt").write_text("राम घर गया ।\\n\\nसीता ने आम खाया ।", encoding="utf-8")
    >>> documents = load_source({"path": "kahani.txt"})
    >>> print(*documents["text"], sep=" / ")
    राम घर गया । / सीता ने आम खाया ।
    >>> print(documents[0]["source"], documents[0]["words"], documents[0]["aksharas"])
    kahani.txt 4 7
    """
    import datasets

    started = time.monotonic()
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
    documents = rows.map(
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
    tell_end(f"Reading {label}", f"{len(documents):,} documents", started)
    return documents


def _to_documents(batch: dict[str, list[Any]], *, text_column: str, label: str) -> dict[str, list[Any]]:
    texts = [normalize(text).strip() if isinstance(text, str) else "" for text in batch[text_column]]
    size = len(texts)
    ids = batch.get("id") or [None] * size
    # Without an id the text is its own: equal texts share a split, and the order of files does not matter.
    document_ids = [
        str(i) if i not in (None, "") else f"{stable_hash(text):016x}" for i, text in zip(ids, texts, strict=True)
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
            documents["work"] += [f"{stable_hash(text):016x}" for part in parts if part]
        return documents

    return rows.map(cut, batched=True, batch_size=16, remove_columns=rows.column_names, load_from_cache_file=False)


def _harmonise(rows: "Dataset") -> "Dataset":
    """Bring tables of several formats to columns that can stand in one table."""
    import datasets

    return rows.cast(datasets.Features({name: datasets.Value("string") for name in rows.column_names}))


def stable_hash(text: str) -> int:
    """Return a hash of 64 bits that is the same in every process and version of Python."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")
