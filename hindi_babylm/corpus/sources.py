"""Sources -> clean documents: files, folders, globs, datasets of the hub and the bundled corpus."""

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import say
from hindi_babylm.corpus.documents import clean_rows
from hindi_babylm.corpus.hygiene.cleaning import STEPS
from hindi_babylm.corpus.ledger import Ledger
from hindi_babylm.corpus.reading import COMPRESSIONS, FORMATS, Fault, Row, format_of, read_rows
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from datasets import Dataset

BUNDLED_CORPUS = Path(__file__).parent.parent / "data" / "corpus"
# Of a stream: the hub's files hold a crawl in its own order, so documents are drawn from a window that moves along.
SHUFFLE_BUFFER = 10_000


def load_source(
    source: Mapping[str, Any],
    *,
    hygiene: Sequence[str] = tuple(STEPS),
    min_words: int = 1,
    max_document_words: int = 50_000,
    near_duplicates: bool = False,
    seed: int = 0,
    stop_after: tuple[str, float] | None = None,
    workers: int | None = None,
) -> "tuple[Dataset, Ledger]":
    """Read one source into clean documents, and account for what the cleaning took.

    `path` is a file, a folder or a glob of `.txt .jsonl .csv .tsv .parquet` files, plain or compressed; `hub_id` is a
    dataset of the hub (or a local folder laid out like one) with `config`, `split`, `revision` and `streaming`;
    `bundled` is "all" or the name of a file of the bundled corpus. `text_column` names the text ("text"); columns
    `id`, `work` and `source` are used where present. A `.txt` file is cut into documents at blank lines unless
    `sample_by` says "line" or "document"; of a folder or glob each file is one work, of a file that is named itself
    each document.
    A stream is read in an order drawn with `seed`, until `stop_after`, a unit and an amount, has been kept.

    Returns documents with columns `text, source, document_id, work, words, bytes, aksharas` and the hashes that
    `build_corpus` works with. Raises UserError, naming the source, when nothing is there or no row has the column.

    >>> _ = Path("kahani.txt").write_text("राम घर गया ।\\n\\nसीता ने आम खाया ।", encoding="utf-8")
    >>> documents, ledger = load_source({"path": "kahani.txt"})
    >>> print(*documents["text"], sep=" / ")
    राम घर गया । / सीता ने आम खाया ।
    >>> print(documents[0]["source"], documents[0]["words"], documents[0]["aksharas"], ledger.read["words"])
    kahani.txt 4 7 9
    """
    settings: dict[str, Any] = {
        "text_column": source.get("text_column", "text"),
        "hygiene": hygiene,
        "min_words": min_words,
        "max_document_words": max_document_words,
        "near_duplicates": near_duplicates,
        "workers": workers,
    }
    if "hub_id" in source:
        label = str(source["hub_id"])
        dataset, identity = _open_hub(label, source, seed=seed)
        return clean_rows(
            lambda: _hub_rows(label, dataset),
            identity=identity,
            label=label,
            name=source.get("name", label),
            stop_after=stop_after if source.get("streaming") else None,
            **settings,
        )
    try:
        label, files = _find_files(source)
        stamps = {file: _stamp(file) for file in files}
        digests = {file: _digest(Path(file)) for file in files}
    except (OSError, RuntimeError) as error:  # a path too long, a home that nobody has, a file that cannot be read
        raise UserError(
            f"corpus: cannot read {name_of(source)!r}: {' '.join(str(error).split())}; mend it or leave it out"
        ) from error
    # One file is a collection of documents; in a folder or glob, whatever it holds today, each file is a work.
    are_works = len(files) > 1 or files[0] != str(Path(str(source.get("path", ""))).expanduser())

    def rows() -> Iterator[Row | Fault]:
        for file in files:
            is_work = are_works and format_of(Path(file).name) == ".txt"
            for row in read_rows(file, source):
                # By its content: the name and place of a file do not decide over its split.
                yield {**row, "work": digests[file]} if is_work and not isinstance(row, Fault) else row
            # Splits and cache hang on the digest, which is of the file as it was before.
            if _stamp(file) != stamps[file]:
                raise UserError(f"corpus: {file} was changed while it was read; start again when it is whole")

    contents = sorted((format_of(Path(file).name), digest) for file, digest in digests.items())
    return clean_rows(
        rows,
        identity=str([contents, are_works, source.get("sample_by")]),
        label=label,
        name=source.get("name", label),
        stop_after=None,
        **settings,
    )


def check_weights(sources: Sequence[Mapping[str, Any]], *, limit: int | None) -> None:
    """Raise UserError for weights without a budget to share out, and for a source with neither weight nor cap."""
    weighted = [source for source in sources if source.get("weight") is not None]
    if weighted and limit is None:
        raise UserError("corpus: weights share out a budget: give max_words or max_bytes too, or leave the weights out")
    bare = [source for source in sources if source.get("weight") is None and source.get("max_words") is None]
    for source in sources:
        if source.get("streaming") and source in bare and (limit is None or len(sources) > 1):
            raise UserError(
                f"corpus: a stream has no end of its own: give {name_of(source)!r} a max_words"
                + (" or a weight" if len(sources) > 1 else ", or the corpus a max_words or max_bytes")
            )
    if weighted and bare:
        raise UserError(
            f"corpus: source {name_of(bare[0])!r} has no weight, but {name_of(weighted[0])!r} has one: give every "
            "source a weight or a max_words"
        )


def name_of(source: Mapping[str, Any]) -> str:
    """Return what a person calls a source."""
    return str(source.get("name") or source.get("path") or source.get("hub_id") or source.get("bundled"))


def _find_files(source: Mapping[str, Any]) -> tuple[str, list[str]]:
    if "bundled" in source:
        name = str(source["bundled"])
        available = {path.name.split(".")[0]: str(path) for path in sorted(BUNDLED_CORPUS.glob("*.jsonl.xz"))}
        if name != "all" and name not in available:
            raise UserError(f"corpus: no bundled corpus {name!r}; there are all, {', '.join(available)}")
        return f"bundled {name}", list(available.values()) if name == "all" else [available[name]]
    label = str(source["path"])
    path = Path(label).expanduser()
    found, passed_over = [str(path)], list[str]()
    if path.is_dir():
        found, passed_over = _walk(path)
    elif not path.is_file():
        matches = glob.glob(str(path), recursive=True)
        found = [match for match in matches if Path(match).is_file()]
        passed_over = [match for match in matches if not Path(match).is_file()] if "**" not in label else []
    if not found:
        raise UserError(
            f"corpus: {label!r} matches no readable file; a source is a file, a folder or a glob of "
            f"{' '.join(FORMATS)} files (plain or {' '.join(COMPRESSIONS)}), or a dataset id of the hub"
        )
    for file in found:
        format_of(file)
    if passed_over:
        shown = ", ".join(sorted(os.path.relpath(name, path.parent) for name in passed_over)[:3])
        say(f"Reading {label}: passed over {len(passed_over):,} of no known format: {shown}")
    return label, sorted(found)


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files of a folder and its subfolders that are to be read, and the others; hidden ones are neither."""
    found, passed_over, seen = list[str](), list[str](), set[Path]()
    for name, folders, files in os.walk(folder, followlinks=True):
        place = Path(name)
        seen.add(place.resolve())
        folders[:] = [sub for sub in folders if not sub.startswith(".") and (place / sub).resolve() not in seen]
        for file in [place / file for file in files if not file.startswith(".")]:
            (found if _is_ours(file) else passed_over).append(str(file))
    return found, passed_over


def _is_ours(file: Path) -> bool:
    """Tell whether a file is there and its name says a format."""
    try:
        format_of(file.name)
    except UserError:
        return False
    return file.is_file()


def _stamp(file: str) -> tuple[int, int]:
    """Return size and time of the last change of a file."""
    facts = Path(file).stat()
    return facts.st_size, facts.st_mtime_ns


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _open_hub(label: str, source: Mapping[str, Any], *, seed: int) -> tuple[Any, str]:
    """Open a dataset of the hub, and name its content: by its commit, or by its files where it is a local folder."""
    import datasets
    import huggingface_hub

    streaming, local = bool(source.get("streaming")), Path(label).is_dir()
    # The cache of `datasets` takes local folders of one name for one dataset, whatever lies in them.
    anew: Any = {"download_mode": "force_redownload", "verification_mode": "no_checks"} if local else {}
    options = [source.get("config"), source.get("split", "train")]
    try:
        dataset = datasets.load_dataset(
            label, options[0], split=options[1], revision=source.get("revision"), streaming=streaming, **anew
        )
        if local:
            files = sorted(path for path in Path(label).rglob("*") if path.is_file())
            content: Any = [(str(path.relative_to(label)), _digest(path)) for path in files]
        elif streaming:
            content = huggingface_hub.HfApi().dataset_info(label, revision=source.get("revision")).sha
        else:  # the paths name the commit
            content = [(file["filename"], Path(file["filename"]).stat().st_mtime_ns) for file in dataset.cache_files]
    except Exception as error:  # every builder raises its own types: all are told, none is swallowed
        raise _hub_error(label, error) from error
    if streaming:
        dataset = dataset.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
    return dataset, str([label, content, options, seed if streaming else None])


def _hub_rows(label: str, dataset: Any) -> Iterator[Row]:
    try:
        yield from dataset
    except Exception as error:  # a connection that ends, a file that is broken: all are told, none is swallowed
        raise _hub_error(label, error) from error


def _hub_error(label: str, error: Exception) -> UserError:
    cause = error.__cause__ or error
    reason = " ".join(f"{type(cause).__name__}: {cause}".split())
    return UserError(
        f"corpus: cannot read source {label!r} from the hub: {reason[:300].rstrip('. ')}; check its name and the "
        'connection, or download it elsewhere and give the files as "path"'
    )
