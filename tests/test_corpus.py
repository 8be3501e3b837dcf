import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import os
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.corpus.assembly import build_corpus
from hindi_babylm.corpus.ledger import Ledger
from hindi_babylm.corpus.sources import BUNDLED_CORPUS, load_source
from hindi_babylm.corpus.splits import split_of
from hindi_babylm.storage import UserError

SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
COMPRESSIONS = ("", ".gz", ".xz", ".zst", ".bz2")
TEXTS = ("राम ने आम खाया।\nवह मीठा था।", "सीता, लक्ष्मण और राम वन गए।", "क्षत्रिय विद्यार्थी 12.5 किलो")
COLUMNS = {"text", "source", "document_id", "work", "words", "bytes", "aksharas"}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterable[None]:
    """Keep the cache of `datasets` out of the user's home, and its bars out of the log."""
    import datasets

    cache = tmp_path_factory.mktemp("datasets")
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    patch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", cache / "downloads")
    datasets.disable_progress_bars()
    yield
    patch.undo()


def compress(data: bytes, compression: str) -> bytes:
    """Compress `data` as the file ending says."""
    import zstandard

    compressors: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.compress,
        ".bz2": bz2.compress,
    }
    return compressors[compression](data)


def render(rows: Sequence[dict[str, Any]], suffix: str) -> bytes:
    """Write rows in the format of `suffix`; a text file holds their texts, separated by blank lines."""
    if suffix == ".txt":
        return "\n\n".join(str(row["text"]) for row in rows).encode()
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if suffix == ".parquet":
        import datasets

        sink = io.BytesIO()
        datasets.Dataset.from_list(list(rows)).to_parquet(sink)
        return sink.getvalue()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows to a file whose name says format and compression."""
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    suffix = Path(path.stem).suffix if compression else path.suffix
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(render(rows, suffix), compression))
    return path


def numbered(count: int, *, works: int | None = None, prefix: str = "doc") -> list[dict[str, str]]:
    """Return `count` documents of 1 to 9 words with ids, and with works where asked for."""
    rows = []
    for number in range(count):
        row = {"text": " ".join([*["शब्द"] * (number % 9), f"क{number}"]), "id": f"{prefix}-{number}"}
        rows.append(row | ({"work": f"{prefix}-work-{number % works}"} if works else {}))
    return rows


def texts_of(source: dict[str, Any]) -> list[str]:
    """Return the texts that a source reads, in order and uncleaned."""
    return list(load_source(source, hygiene=[])[0]["text"])


def split_ids(splits: Any) -> dict[str, set[str]]:
    """Return the ids of the documents in each split."""
    return {name: set(part["document_id"]) for name, part in splits.items()}


def one_line(error: UserError) -> str:
    """Return the text of a user error after checking that it is one line."""
    assert len(str(error).splitlines()) == 1
    assert str(error).startswith("corpus: ")
    return str(error)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_and_compression_gives_the_same_documents(tmp_path: Path, suffix: str, compression: str) -> None:
    """A corpus reads the same from text, JSON lines, CSV, TSV and parquet, plain or compressed."""
    path = write(tmp_path / f"corpus{suffix}{compression}", [{"text": text} for text in TEXTS])
    documents, _ = load_source({"path": str(path)})
    assert set(documents.column_names) >= COLUMNS
    assert list(documents["text"]) == list(TEXTS)
    assert list(documents["words"]) == [len(text.split()) for text in TEXTS]
    assert list(documents["bytes"]) == [len(text.encode()) for text in TEXTS]
    # The id of a document without one hangs on its text, not on the file.
    reference = write(tmp_path / "other.jsonl", [{"text": text} for text in TEXTS])
    assert list(documents["document_id"]) == list(load_source({"path": str(reference)})[0]["document_id"])


def test_a_folder_and_a_glob_of_several_formats(tmp_path: Path) -> None:
    """A folder is read with its subfolders in any mixture of formats, and a glob reads what it matches."""
    rows = numbered(8)
    write(tmp_path / "in" / "a.jsonl", rows[:2])
    write(tmp_path / "in" / "b.csv.gz", rows[2:4])
    write(tmp_path / "in" / "deep" / "c.parquet", rows[4:6])
    write(tmp_path / "in" / "deep" / "d.txt.xz", rows[6:])
    (tmp_path / "in" / "README.md").write_text("not a document")
    (tmp_path / "in" / ".hidden.txt").write_text("not a document")
    expected = {row["text"] for row in rows}
    documents, _ = load_source({"path": str(tmp_path / "in")})
    assert sorted(documents["text"]) == sorted(expected)
    assert set(documents["document_id"]) >= {row["id"] for row in rows[:6]}
    assert sorted(texts_of({"path": str(tmp_path / "in" / "**" / "[a-d].*")})) == sorted(expected)
    assert texts_of({"path": str(tmp_path / "in" / "*.jsonl")}) == [row["text"] for row in rows[:2]]


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` in a path is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "mine.jsonl", [{"text": "राम"}])
    assert texts_of({"path": "~/mine.jsonl"}) == ["राम"]


def test_columns_of_the_source(tmp_path: Path) -> None:
    """Id, work and source are taken where a row has them; else the text, the id and the name or path stand in."""
    rows: list[dict[str, Any]] = [
        {"body": "राम", "id": "1", "work": "रामायण", "source": "epic"},
        {"body": "सीता", "id": "2", "work": "", "source": ""},
        {"body": "वन", "id": "", "work": None, "source": None},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    documents, _ = load_source({"path": str(path), "text_column": "body", "name": "mine"})
    assert list(documents["source"]) == ["epic", "mine", "mine"]
    assert list(documents["document_id"])[:2] == ["1", "2"]
    assert list(documents["work"])[:2] == ["रामायण", "2"]
    assert documents["document_id"][2] == documents["work"][2] != ""
    assert set(load_source({"path": str(path), "text_column": "body"})[0]["source"]) == {"epic", str(path)}


@pytest.mark.parametrize(
    ("sample_by", "expected"),
    [
        (None, ["एक\nदो", "तीन"]),
        ("paragraph", ["एक\nदो", "तीन"]),
        ("line", ["एक", "दो", "तीन"]),
        ("document", ["एक\nदो\n\nतीन"]),
    ],
)
def test_how_a_text_file_is_cut(tmp_path: Path, sample_by: str | None, expected: list[str]) -> None:
    """A text file is cut at blank lines, or at lines, or not at all."""
    path = tmp_path / "a.txt"
    path.write_text("एक\nदो\n\nतीन\n", encoding="utf-8")
    source = {"path": str(path)} | ({"sample_by": sample_by} if sample_by else {})
    assert [text for text in texts_of(source) if text] == expected


def hub_folder(path: Path, texts: Sequence[str]) -> Path:
    """Lay out a dataset as the hub does: a card with a configuration, and parquet files in `data`."""
    write(path / "data" / "train-00000-of-00001.parquet", [{"text": text} for text in texts])
    write(path / "data" / "heldout-00000-of-00001.parquet", [{"text": "अलग " + text} for text in texts])
    card = (
        "---\nlanguage: hi\nconfigs:\n- config_name: hindi\n  data_files:\n  - split: train\n"
        "    path: data/train-*\n  - split: heldout\n    path: data/heldout-*\n---\n# Card\n"
    )
    (path / "README.md").write_text(card, encoding="utf-8")
    return path


def test_a_dataset_laid_out_like_the_hub(tmp_path: Path) -> None:
    """A dataset of the hub is read by its card: configuration and split, `train` unless the source says otherwise."""
    hub_id = str(hub_folder(tmp_path / "dataset", TEXTS))
    assert texts_of({"hub_id": hub_id}) == list(TEXTS)
    assert texts_of({"hub_id": hub_id, "config": "hindi", "split": "heldout"}) == ["अलग " + text for text in TEXTS]
    assert set(load_source({"hub_id": hub_id})[0]["source"]) == {hub_id}


@pytest.mark.parametrize(
    "name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.jsonl.xz", "a.csv.zst", "a.txt.bz2", "a.parquet"]
)
def test_a_changed_file_is_read_again(tmp_path: Path, name: str) -> None:
    """A file that changed under its old name is read anew, not taken from a cache."""
    first, second = ["पहला पाठ", "एक"], ["दूसरा पाठ", "दो", "तीन"]
    path = write(tmp_path / name, [{"text": text} for text in first])
    assert texts_of({"path": str(path)}) == first
    write(path, [{"text": text} for text in second])
    assert texts_of({"path": str(path)}) == second


def test_a_changed_local_hub_folder_is_read_again(tmp_path: Path) -> None:
    """A local folder laid out like a dataset of the hub is read anew when its files change."""
    hub_id = str(hub_folder(tmp_path / "dataset", ["पहला"]))
    assert texts_of({"hub_id": hub_id}) == ["पहला"]
    hub_folder(tmp_path / "dataset", ["दूसरा"])
    assert texts_of({"hub_id": hub_id}) == ["दूसरा"]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv.gz"])
def test_signs_that_python_takes_for_line_ends_do_not_cut_a_text(tmp_path: Path, name: str, sign: str) -> None:
    """Line separators other than the newline stay inside a document and split nothing."""
    rows = [{"text": f"राम{sign}सीता"}, {"text": "वन"}]
    path = write(tmp_path / name, rows)
    source = {"path": str(path)} | ({"sample_by": "line"} if name == "a.txt" else {})
    if name == "a.txt":
        path.write_bytes("\n".join(row["text"] for row in rows).encode())
    assert texts_of(source) == [row["text"] for row in rows]


def test_texts_are_nfc_and_stripped(tmp_path: Path) -> None:
    """Every text is in NFC without whitespace around it, and equal texts get one id however they were written."""
    path = write(tmp_path / "a.jsonl", [{"text": " \u0958लम \n"}, {"text": "क\u093cलम"}, {"text": "न\u093c"}])
    documents, _ = load_source({"path": str(path)})
    assert list(documents["text"]) == ["क\u093cलम", "क\u093cलम", "\u0929"]
    assert all(unicodedata.is_normalized("NFC", text) for text in documents["text"])
    assert documents["document_id"][0] == documents["document_id"][1] != documents["document_id"][2]


def totals(ledger: Ledger) -> dict[str, int]:
    """Return kept + dropped + changed of a ledger in each unit, added up by hand."""
    record = json.loads(json.dumps(ledger.as_dict()))
    sums = {"documents": 0, "words": 0, "bytes": 0}
    entries = [entry for sources in record["kept"].values() for entry in sources.values()]
    for entry in [*entries, *record["dropped"].values(), *record["changed"].values()]:
        for unit in sums:
            sums[unit] += entry[unit]
    return sums


def test_the_ledger_accounts_for_everything(tmp_path: Path) -> None:
    """What was read is what was kept plus what was dropped, in documents, words and bytes, each drop with a reason."""
    first: list[dict[str, Any]] = [
        *numbered(200),
        {"text": "", "id": "blank"},
        {"text": " \n ", "id": "space"},
        {"text": None, "id": "null"},
    ]
    second = [{**row, "text": row["text"] + "ख  ख"} for row in numbered(150, prefix="other")] + numbered(2)
    one = write(tmp_path / "one.jsonl", first)
    two = write(tmp_path / "two.parquet", second)
    splits, ledger = build_corpus(
        sources=[{"path": str(one), "name": "one"}, {"path": str(two), "name": "two", "max_words": 300}],
        max_words=800,
    )
    rows = [str(row["text"] or "") for row in [*first, *second]]
    read = {
        "documents": len(rows),
        "words": sum(len(text.split()) for text in rows),
        "bytes": sum(len(text.encode()) for text in rows),
    }
    assert ledger.read == read == totals(ledger)
    assert set(ledger.dropped) == {"unreadable", "min_words", "duplicate", "source max_words", "max_words"}
    assert {entry["document_id"] for entry in ledger.dropped["min_words"]["examples"]} == {"blank", "space"}
    assert {entry["document_id"] for entry in ledger.dropped["unreadable"]["examples"]} == {"null"}
    assert ledger.dropped["duplicate"]["documents"] == 2
    assert ledger.changed["spaces"]["bytes"] == 150
    assert all(len(entry["examples"]) == min(3, entry["documents"]) for entry in ledger.dropped.values())
    for split, part in splits.items():
        for source in ("one", "two"):
            own = [text for text, name in zip(part["text"], part["source"], strict=True) if name == source]
            assert ledger.kept[split][source]["documents"] == len(own)
            assert ledger.kept[split][source]["words"] == sum(len(text.split()) for text in own)
            assert ledger.kept[split][source]["bytes"] == sum(len(text.encode()) for text in own)
    assert ledger.words() == ledger.budget["used"] == sum(ledger.words(split) for split in splits)
    assert sum(entry["two"]["words"] for entry in ledger.kept.values()) <= 300


def test_rows_without_text_are_dropped_as_unreadable(tmp_path: Path) -> None:
    """A row whose text is no string is booked as unreadable and never turned into the words None or 5."""
    path = tmp_path / "mixed.jsonl"
    rows: list[dict[str, Any]] = [
        *numbered(60),
        {"text": 5, "id": "five"},
        {"text": None, "id": "none"},
        {"id": "missing"},
    ]
    path.write_bytes(render(rows, ".jsonl"))
    splits, ledger = build_corpus(sources=[{"path": str(path)}])
    assert ledger.read["documents"] == 63
    assert ledger.dropped["unreadable"]["documents"] == 3
    assert ledger.dropped["unreadable"]["words"] == 0
    assert all("no text in column 'text'" in entry["text"] for entry in ledger.dropped["unreadable"]["examples"])
    assert not {"five", "none", "missing"} & set().union(*split_ids(splits).values())


def test_a_wrong_ledger_is_found() -> None:
    """A ledger whose sums do not meet raises."""
    ledger = Ledger()
    ledger.verify()
    ledger.read["words"] = 1
    with pytest.raises(AssertionError, match="1 words read, but 0 kept"):
        ledger.verify()


def test_tokens_are_booked_by_split_and_source(tmp_path: Path) -> None:
    """The tokens of documents are added to their split and source."""
    path = write(tmp_path / "a.jsonl", numbered(60))
    splits, ledger = build_corpus(sources=[{"path": str(path), "name": "a"}])
    for split, part in splits.items():
        ledger.add_tokens(split, part["source"], [3] * len(part))
        assert ledger.kept[split]["a"]["tokens"] == 3 * len(part)
    with pytest.raises(ValueError, match="zip"):
        ledger.add_tokens("train", splits["train"]["source"], [1])


def test_the_budget_is_never_passed_and_larger_ones_hold_smaller_ones(tmp_path: Path) -> None:
    """The words kept never pass the budget, are close to it, and a larger budget keeps all of a smaller one."""
    rows = numbered(400)
    path = write(tmp_path / "a.jsonl", rows)
    before: set[str] = set()
    for budget in (300, 500, 501, 1000, 10_000):
        splits, ledger = build_corpus(sources=[{"path": str(path)}], max_words=budget)
        kept = set().union(*split_ids(splits).values())
        words = sum(sum(part["words"]) for part in splits.values())
        assert words == ledger.words() <= budget
        assert words > budget - 9 or len(kept) == len(rows)  # no document has more than 9 words
        assert before <= kept
        before = kept
    assert len(before) == len(rows)


def test_documents_keep_their_split_under_any_budget_and_order(tmp_path: Path) -> None:
    """A document's split hangs on its id: not on the budget, the order of rows or the files they stand in."""
    rows = numbered(300, works=120)
    reference = split_ids(build_corpus(sources=[{"path": str(write(tmp_path / "a.jsonl", rows))}])[0])
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    write(tmp_path / "many" / "b.jsonl", shuffled[:100])
    write(tmp_path / "many" / "a.csv.gz", shuffled[100:])
    sources = [{"path": str(tmp_path / "many")}]
    assert split_ids(build_corpus(sources=sources)[0]) == reference
    small = split_ids(build_corpus(sources=sources, max_words=700)[0])
    assert all(ids and ids <= reference[split] for split, ids in small.items())
    again = split_ids(build_corpus(sources=[{"path": str(tmp_path / "a.jsonl")}], max_words=700)[0])
    assert again == small
    assert split_ids(build_corpus(sources=sources, split_seed=1)[0]) != reference


def test_a_work_never_straddles_splits(tmp_path: Path) -> None:
    """All documents of one work lie in one split."""
    path = write(tmp_path / "a.jsonl", numbered(400, works=60))
    splits, _ = build_corpus(sources=[{"path": str(path)}], validation_fraction=0.2, test_fraction=0.2)
    works = {name: set(part["work"]) for name, part in splits.items()}
    assert sum(map(len, works.values())) == len(set().union(*works.values())) == 60
    assert sum(map(len, splits.values())) == 400


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.05, 0.2), (0.3, 0.3)])
@pytest.mark.parametrize("seed", [0, 7])
def test_split_fractions_are_about_right(validation: float, test: float, seed: int) -> None:
    """Over 2000 works each split has its share, within four standard errors."""
    counts = Counter(
        split_of(f"work-{number}", validation_fraction=validation, test_fraction=test, seed=seed)
        for number in range(2000)
    )
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    for split, share in shares.items():
        assert abs(counts[split] / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_a_larger_test_split_holds_the_smaller_one() -> None:
    """Raising the test fraction moves no work out of the test split."""
    names = [f"work-{number}" for number in range(500)]
    split = functools.partial(split_of, validation_fraction=0.1, seed=3)
    small = {name for name in names if split(name, test_fraction=0.1) == "test"}
    assert small < {name for name in names if split(name, test_fraction=0.3) == "test"}


def broken_files(folder: Path) -> None:
    """Write files that cannot be read."""
    (folder / "text.pdf").write_text("x")
    (folder / "broken.jsonl").write_text('{"text": "राम"}\n{"text": "सी')
    (folder / "broken.jsonl.gz").write_bytes(b"\x1f\x8bno gzip")
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(os.urandom(2000))[:1000])
    (folder / "cut.csv.xz").write_bytes(lzma.compress(os.urandom(2000))[:1000])
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / "nothing.jsonl").write_bytes(b"")
    (folder / "broken.parquet").write_bytes(b"PAR1")
    write(folder / "good.jsonl", [{"text": "राम", "title": "क"}])
    write(folder / "blank.csv", [{"text": " "}, {"text": ""}])


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ({"path": "missing.jsonl"}, ["'missing.jsonl' matches no readable file", ".parquet", "dataset id of the hub"]),
        ({"path": "*.nothing"}, ["'*.nothing' matches no readable file", "a glob of .txt"]),
        ({"path": "empty_folder"}, ["'empty_folder' matches no readable file"]),
        ({"path": "text.pdf"}, ["cannot read 'text.pdf'", "must end in one of .txt .jsonl", ".gz"]),
        (
            {"path": "good.jsonl", "text_column": "body"},
            ["'good.jsonl'", "no column 'body'", "text, title", "text_column"],
        ),
        ({"path": "broken.jsonl"}, ["the validation split got none of the 1 works"]),
        ({"path": "broken.jsonl.gz"}, ["'broken.jsonl.gz'", "leave it out"]),
        ({"path": "cut.jsonl.gz"}, ["'cut.jsonl.gz'", "leave it out"]),
        ({"path": "cut.csv.xz"}, ["'cut.csv.xz'", "leave it out"]),
        ({"path": "latin.txt"}, ["no document is left of latin.txt", "1 dropped as 'unreadable'", "line 1", "UTF-8"]),
        ({"path": "nothing.jsonl"}, ["'nothing.jsonl' is empty", "leave it out"]),
        ({"path": "broken.parquet"}, ["'broken.parquet'", "leave it out"]),
        ({"path": "blank.csv"}, ["no document is left of blank.csv", "2 dropped"]),
        ({"hub_id": "nobody/nothing"}, ["'nobody/nothing'", "the connection", 'give the files as "path"']),
        ({"bundled": "wikipedia"}, ["no bundled corpus 'wikipedia'", "all, common_voice_sentences, hindi_wikipedia"]),
        ({"path": "good.jsonl"}, ["the validation split got none of the 1 works", "sample_by", "validation_fraction"]),
        ({"path": "good.jsonl", "max_words": 0}, ["max_words of good.jsonl 0 is too small", "raise it"]),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_bad_sources_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], parts: list[str]
) -> None:
    """A source that cannot be used is refused in one line that names it and says the way out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty_folder").mkdir()
    broken_files(tmp_path)
    with pytest.raises(UserError) as caught:
        build_corpus(sources=[source])
    message = one_line(caught.value)
    for part in parts:
        assert part in message


def test_a_budget_smaller_than_a_document_is_refused(tmp_path: Path) -> None:
    """A budget into which no document fits is refused."""
    path = write(tmp_path / "a.jsonl", [{"text": "एक दो तीन"}] * 3)
    with pytest.raises(UserError) as caught:
        build_corpus(sources=[{"path": str(path)}], max_words=2)
    assert one_line(caught.value) == "corpus: max_words 2 is too small for a single document; raise it"


# The bundled corpus ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> dict[str, list[dict[str, str]]]:
    """Return the rows of every bundled file, read without the package."""
    files = {}
    for path in sorted(BUNDLED_CORPUS.glob("*.jsonl.xz")):
        with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
            files[path.name] = [json.loads(line) for line in file]
    return files


def test_bundled_counts_equal_the_card(bundled: dict[str, list[dict[str, str]]]) -> None:
    """Documents, works, words, characters, bytes and file sizes are those in the table of the corpus card."""
    card = (BUNDLED_CORPUS / "README.md").read_text(encoding="utf-8")
    table: dict[str, list[int]] = {}
    for line in card.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if (cells[0].endswith(".jsonl.xz") or cells[0] == "total") and len(cells) == 9:
            table[cells[0]] = [
                int(cell.replace(",", "")) for place, cell in enumerate(cells[:8]) if place not in (0, 4)
            ]
    counted = {}
    for name, rows in bundled.items():
        texts = [row["text"] for row in rows]
        counted[name] = [
            len(rows),
            len({row["work"] for row in rows}),
            sum(len(text.split()) for text in texts),
            sum(map(len, texts)),
            sum(len(text.encode()) for text in texts),
            (BUNDLED_CORPUS / name).stat().st_size,
        ]
    counted["total"] = [sum(column) for column in zip(*counted.values(), strict=True)]
    assert counted == table


def test_bundled_rows_are_whole(bundled: dict[str, list[dict[str, str]]]) -> None:
    """Every row has the seven columns of the card, a source named like its file, and an id of its own."""
    columns = {"text", "source", "work", "id", "licence", "title", "author"}
    ids = [row["id"] for rows in bundled.values() for row in rows]
    assert len(set(ids)) == len(ids)
    for name, rows in bundled.items():
        for row in rows:
            assert set(row) == columns
            assert row["source"] == name.split(".")[0]
            assert row["licence"]
            assert row["work"]
            assert row["text"].strip() == row["text"] != ""


def test_bundled_text_is_clean(bundled: dict[str, list[dict[str, str]]]) -> None:
    """The bundled text is NFC without control characters, invisible spaces, bidi marks or replacement signs."""
    # Cc without the newline; zero-width space, word joiner, BOM, soft hyphen, bidi marks, separators, replacements.
    unwanted = re.compile(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffc\ufffd]"
    )
    for name, rows in bundled.items():
        text = "\n".join(row["text"] for row in rows)
        assert unicodedata.is_normalized("NFC", text), name
        found = unwanted.search(text)
        assert found is None, (name, found)


def test_bundled_corpus_shares_nothing_with_the_bundled_pairs(bundled: dict[str, list[dict[str, str]]]) -> None:
    """No 13-word sequence of a minimal pair occurs in the corpus, with punctuation and without."""
    punctuation = re.compile(r"[^\w\s\u0900-\u0963\u200c\u200d]|[।॥]")
    pairs = (BUNDLED_CORPUS.parent / "pairs" / "hindi_pairs_pud.tsv").read_text(encoding="utf-8").splitlines()
    sentences = [cell for line in pairs[1:] for cell in line.split("\t")[1:3]]
    assert len(sentences) == 1120

    def sequences(words: list[str]) -> set[tuple[str, ...]]:
        return set(zip(*(words[start:] for start in range(13)), strict=False))

    cleaners: list[Callable[[str], str]] = [str, lambda text: punctuation.sub(" ", text)]
    for clean in cleaners:
        wanted = set().union(*(sequences(clean(sentence).split()) for sentence in sentences))
        assert len(wanted) > 5000
        planted = sequences(clean("क " + sentences[0] + " ख").split())
        assert planted & wanted  # the search finds what is there
        for rows in bundled.values():
            for row in rows:
                shared = wanted & sequences(clean(row["text"]).split())
                assert not shared, (row["id"], shared)


def test_bundled_corpus_opens_through_the_stage(bundled: dict[str, list[dict[str, str]]]) -> None:
    """The corpus stage keeps every bundled document, and all but a thousandth of its words as they stand."""
    splits, ledger = build_corpus(sources=[{"bundled": "all"}])
    rows = {row["id"]: row["text"] for rows in bundled.values() for row in rows}
    assert ledger.read["documents"] == len(rows)
    assert ledger.read["words"] == sum(len(text.split()) for text in rows.values())
    assert ledger.read["bytes"] == sum(len(text.encode()) for text in rows.values())
    assert ledger.dropped == {}
    assert ledger.read == totals(ledger)
    assert set().union(*split_ids(splits).values()) == set(rows)
    cleaned = sum(entry["words"] for reason, entry in ledger.changed.items() if reason != "overlap")
    assert abs(cleaned) < 20
    assert 0 < ledger.changed["overlap"]["words"] < 2000
    same = sum(row["text"] == rows[row["document_id"]] for part in splits.values() for row in part)
    assert same > 0.93 * len(rows)
    works = {name: set(part["work"]) for name, part in splits.items()}
    assert sum(map(len, works.values())) == 1145
    for split in splits:
        assert set(ledger.kept[split]) == {name.split(".")[0] for name in bundled}


def test_one_bundled_file_opens_by_name(bundled: dict[str, list[dict[str, str]]]) -> None:
    """A bundled file is named without its ending."""
    rows = bundled["common_voice_sentences.jsonl.xz"]
    assert texts_of({"bundled": "common_voice_sentences"}) == [row["text"] for row in rows]


@pytest.mark.parametrize("unit", ["paragraph", "line", "document"])
def test_text_files_are_works(tmp_path: Path, unit: str) -> None:
    """Of several text files each is one work, whatever its name, so no story straddles two splits."""
    for number in range(6):
        lines = [f"कहानी {number} वाक्य {part} ।" for part in range(5)]
        (tmp_path / f"{number}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    documents, _ = load_source({"path": str(tmp_path), "sample_by": unit})
    assert len(documents) == {"paragraph": 30, "line": 30, "document": 6}[unit]
    stories = {(row["text"].split()[1], row["work"]) for row in documents}
    assert len(stories) == len({work for _, work in stories}) == 6
    (tmp_path / "0.txt").rename(tmp_path / "9.txt")
    again, _ = load_source({"path": str(tmp_path), "sample_by": unit})
    assert set(again["work"]) == set(documents["work"])
