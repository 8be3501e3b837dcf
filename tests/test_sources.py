import bz2
import json
import lzma
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from hindi_babylm.corpus import sources as sources_module
from hindi_babylm.corpus.assembly import build_corpus
from hindi_babylm.corpus.reading import read_rows
from hindi_babylm.corpus.sources import load_source
from hindi_babylm.run import main
from hindi_babylm.storage import UserError
from tests.conftest import hindi_sentences
from tests.runs import ROOT
from tests.test_corpus import hub_folder, numbered, write


def texts_by_split(splits: Any) -> dict[str, set[str]]:
    """Return the texts of each split."""
    return {name: set(part["text"]) for name, part in splits.items()}


def lines_of(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def test_a_file_under_another_ending_is_read_anew(tmp_path: Path) -> None:
    """The ending says how a file is read, so it decides over the reuse of a clean table."""
    path = tmp_path / "x.txt"
    path.write_bytes(lines_of(numbered(3)))
    source = {"name": "same"}
    assert load_source({**source, "path": str(path)})[0]["text"][0].startswith("{")
    path.rename(tmp_path / "x.jsonl")
    documents, _ = load_source({**source, "path": str(tmp_path / "x.jsonl")})
    assert list(documents["text"]) == [row["text"] for row in numbered(3)]


def test_zero_is_a_name_and_nan_is_none(tmp_path: Path) -> None:
    """A work or id of 0 is one like any other; null and NaN mean that there is none."""
    rows = [{"text": f"शब्द {number}", "work": number % 2, "id": number} for number in range(6)]
    documents, _ = load_source({"path": str(write(tmp_path / "a.jsonl", rows))})
    assert list(documents["work"]) == ["0", "1"] * 3
    assert list(documents["document_id"]) == [str(number) for number in range(6)]
    table = pyarrow.table({"text": ["एक दो", "तीन चार"], "id": [float("nan")] * 2, "work": [None, float("nan")]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    documents, _ = load_source({"path": str(tmp_path / "a.parquet")})
    assert len(set(documents["document_id"])) == len(set(documents["work"])) == 2
    assert "nan" not in documents["work"][0]


def test_no_column_of_a_user_is_taken_for_a_fault(tmp_path: Path) -> None:
    """Whatever a table's columns are called, its rows are read."""
    rows = [{"text": f"शब्द {number}", "unreadable": False, "fault": "x", "why": "y"} for number in range(4)]
    documents, ledger = load_source({"path": str(write(tmp_path / "a.jsonl", rows))})
    assert len(documents) == 4
    assert ledger.dropped == {}


def test_a_folder_is_read_through_links_and_big_letters_and_tells_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Linked folders and endings in capitals are read, hidden folders are not, and other files are named."""
    rows = numbered(8)
    write(tmp_path / "in" / "a.jsonl", rows[:2]).rename(tmp_path / "in" / "A.JSONL")
    write(tmp_path / "elsewhere" / "b.jsonl", rows[2:4])
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    write(tmp_path / "in" / ".git" / "c.jsonl", rows[4:6])
    (tmp_path / "in" / "notes.pdf").write_text("not ours")
    documents, _ = load_source({"path": str(tmp_path / "in")})
    assert sorted(documents["text"]) == sorted(row["text"] for row in rows[:4])
    said = capsys.readouterr().out
    assert "passed over 2 of no known format: in/gone.jsonl, in/notes.pdf" in said


def test_a_stream_of_a_compressed_file_that_is_damaged_is_no_garbage(tmp_path: Path) -> None:
    """Of a file of two compressed streams both are read, and a second one that is damaged or cut short is refused."""
    first, second = (lines_of(numbered(40, prefix=prefix)) for prefix in "ab")
    for suffix, compress in ((".xz", lzma.compress), (".bz2", bz2.compress)):
        path = tmp_path / f"two.jsonl{suffix}"
        path.write_bytes(compress(first) + compress(second))
        assert len(load_source({"path": str(path)})[0]) == 80
        path.write_bytes(compress(first) + compress(second)[:-40])
        with pytest.raises(UserError, match=r"two.jsonl.*compressed data end in the middle"):
            load_source({"path": str(path)})
        path.write_bytes(compress(first) + b"\x01" + compress(second)[1:])
        with pytest.raises(UserError, match=r"two.jsonl.*damaged"):
            load_source({"path": str(path)})
    path = tmp_path / "padded.jsonl.xz"
    path.write_bytes(lzma.compress(first) + b"\0" * 8 + lzma.compress(second) + b"\0" * 4)
    assert len(load_source({"path": str(path)})[0]) == 80


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,text,text\n1,x,y\n", "column 'text' stands twice"),
        ("a.csv", b"id,te\xff\n1,x\n", "its header is broken: line 1"),
        ("a.csv", b"\n\n", "is empty"),
    ],
)
def test_a_table_with_a_bad_header_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A header with a name twice or broken bytes says nothing certain about its rows."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_source({"path": str(tmp_path / name)})


def test_a_blank_line_before_the_header_is_none(tmp_path: Path) -> None:
    """Empty lines at the head of a table are passed over."""
    (tmp_path / "a.csv").write_text("\n\ntext,id\nराम गया,1\n", encoding="utf-8")
    assert list(load_source({"path": str(tmp_path / "a.csv")})[0]["text"]) == ["राम गया"]


def test_parquet_is_read_for_the_columns_that_are_used(tmp_path: Path) -> None:
    """A column that nobody asked for may hold what Python has no value for."""
    beyond = pyarrow.array([2**60], type=pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["राम गया"], "when": beyond}), tmp_path / "a.parquet")
    assert list(load_source({"path": str(tmp_path / "a.parquet")})[0]["text"]) == ["राम गया"]
    with pytest.raises(UserError, match=r"cannot read .*a.parquet"):
        load_source({"path": str(tmp_path / "a.parquet"), "text_column": "when2"})


def test_half_a_surrogate_in_a_name_is_a_fault(tmp_path: Path) -> None:
    """An id, work or source that no file can hold makes its row unreadable."""
    for key in ("id", "work", "source"):
        path = tmp_path / f"{key}.jsonl"
        path.write_text(
            '{"text": "राम गया", "KEY": "x\\ud83d"}\n{"text": "सीता गई"}\n'.replace("KEY", key), encoding="utf-8"
        )
        documents, ledger = load_source({"path": str(path)})
        assert len(documents) == 1
        assert ledger.dropped["unreadable"]["documents"] == 1


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "x" * 5000, "loop"])
def test_a_path_that_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A home of nobody, a name too long and a link in a circle are told with the source."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(UserError) as refused:
        load_source({"path": path})
    assert path[:20] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where clean documents cannot be kept, the line names the folder and the variable that moves it."""
    source = {"path": str(write(tmp_path / "a.jsonl", numbered(5)))}
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    with pytest.raises(UserError, match=r"cannot write clean documents to .*HF_DATASETS_CACHE"):
        load_source(source)


def test_a_table_that_was_deleted_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache cleaner that takes the table and leaves its facts costs a read, not the run."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = {"path": str(write(tmp_path / "a.jsonl", numbered(5)))}
    first = load_source(source)[0].to_dict()
    for table in (tmp_path / "cache" / "hindi_babylm").glob("*.arrow"):
        table.unlink()
    assert load_source(source)[0].to_dict() == first


def test_equal_ids_in_several_files_do_not_make_names_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files whose rows have the same ids give the same splits under swapped names, read anew."""
    pair = [
        [{"text": f"{hindi_sentences(3, seed=n)}{space}।", "id": str(n), "work": f"{work}{n % 30}"} for n in range(100)]
        for work, space in (("a", " "), ("b", ""))
    ]
    kept = []
    for names in (("1", "2"), ("2", "1")):
        folder = tmp_path / "-".join(names)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        for name, rows in zip(names, pair, strict=True):
            write(folder / "texts" / f"{name}.jsonl", rows)
        splits, _ = build_corpus(sources=[{"path": str(folder / "texts"), "name": "same"}])
        kept.append({split: list(part["text"]) for split, part in splits.items()})
    assert kept[0] == kept[1]


def test_more_text_files_move_no_text_from_the_test_split(tmp_path: Path) -> None:
    """A file of a folder is one work however many stand beside it."""
    for number in range(30):
        lines = [hindi_sentences(2, seed=100 * number + part) for part in range(4)]
        (tmp_path / "one" / f"{number}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / "one" / f"{number}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    shutil.copytree(tmp_path / "one", tmp_path / "alone")
    for path in (tmp_path / "alone").glob("[1-9]*.txt"):
        path.unlink()
    documents, _ = load_source({"path": str(tmp_path / "alone")})
    assert len(documents) == 4
    assert len(set(documents["work"])) == 1
    many, _ = load_source({"path": str(tmp_path / "one")})
    assert set(documents["work"]) <= set(many["work"])
    single, _ = load_source({"path": str(tmp_path / "one" / "0.txt")})
    assert len(set(single["work"])) == 4


def test_a_larger_budget_of_a_stream_moves_no_document(tmp_path: Path, prompt_streams: None) -> None:
    """Read further for a larger budget, a stream keeps what it gave, and displaces nothing of other sources."""
    texts = [hindi_sentences(6, seed=seed) for seed in range(3000)]
    hub_id = str(hub_folder(tmp_path / "dataset", texts))
    draw = random.Random(3)
    shared = [{"text": text, "id": f"file-{number}"} for number, text in enumerate(draw.sample(texts, 300))]
    path = write(tmp_path / "shared.jsonl", shared)
    for sources in (
        [{"hub_id": hub_id, "streaming": True}],
        [{"hub_id": hub_id, "streaming": True, "weight": 3.0}, {"path": str(path), "weight": 1.0}],
    ):
        before: dict[str, set[str]] = {}
        for budget in (20_000, 50_000, 90_000):  # a stream is read in batches of 1,000 rows
            splits, _ = build_corpus(sources=sources, max_words=budget, decontaminate=False)
            now = texts_by_split(splits)
            assert all(kept <= now[split] for split, kept in before.items())
            before = now


def test_a_stream_without_an_end_is_refused(tmp_path: Path) -> None:
    """A stream needs a bound: its own, or, when it is alone, the corpus's."""
    stream = {"hub_id": str(hub_folder(tmp_path / "dataset", ["एक"])), "streaming": True}
    with pytest.raises(UserError, match=r"a stream has no end of its own: give .* a max_words, or the corpus"):
        build_corpus(sources=[stream])
    with pytest.raises(UserError, match=r"give .* a max_words or a weight"):
        build_corpus(sources=[stream, {"bundled": "pratham_storyweaver"}], max_words=100)


def test_train_without_a_text_of_its_own_is_refused(tmp_path: Path) -> None:
    """When all of train is overlap, the command ends instead of training on nothing."""
    passage = hindi_sentences(1, seed=1).removesuffix(" ।") + " और राजा ने रानी से कहा कि अब हम सब घर चलें और खाना खाएँ"
    rows = [{"text": f"{passage} {number} ।", "id": str(number)} for number in range(60)]
    with pytest.raises(UserError, match="every training document shares a passage"):
        build_corpus(sources=[{"path": str(write(tmp_path / "a.jsonl", rows))}])


def test_a_document_that_the_cut_leaves_too_short_is_dropped(tmp_path: Path) -> None:
    """`min_words` holds of the training split as it is trained on."""
    passage = "और राजा ने रानी से कहा कि अब हम सब घर चलें और खाना खाएँ"
    rows = [{"text": f"{passage} ।\nशब्द{number} नदी पानी ।", "id": str(number)} for number in range(60)]
    rows += [{"text": hindi_sentences(6, seed=seed), "id": f"long-{seed}"} for seed in range(60)]
    splits, ledger = build_corpus(sources=[{"path": str(write(tmp_path / "a.jsonl", rows))}], min_words=10)
    assert ledger.dropped["overlap"]["documents"] > 30
    assert min(len(text.split()) for text in splits["train"]["text"]) >= 10


def test_a_budget_that_stays_almost_empty_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document that does not fit ends the filling, and the line says so with its size."""
    rows = [*numbered(300), *({"text": hindi_sentences(1200, seed=seed), "id": f"b{seed}"} for seed in range(20))]
    path = write(tmp_path / "a.jsonl", rows)
    build_corpus(sources=[{"path": str(path)}], max_words=3000, decontaminate=False)
    warned = capsys.readouterr().err
    assert "max_words 3,000 is filled with" in warned
    assert "lower max_document_words to split it" in warned


def test_wrong_arguments_of_the_function_are_refused() -> None:
    """From Python too a budget in two units and an unknown step are one line."""
    with pytest.raises(UserError, match="one budget in two units"):
        build_corpus(sources=[{"bundled": "all"}], max_words=5, max_bytes=5)
    with pytest.raises(UserError, match="no step of hygiene 'nfd'; did you mean 'nfc'"):
        build_corpus(sources=[{"bundled": "all"}], hygiene=["nfd"])


def test_text_files_bear_the_name_of_the_text_column(tmp_path: Path) -> None:
    """Beside tables with another text column, text files are read all the same."""
    write(tmp_path / "in" / "a.jsonl", [{"content": "राम गया"}])
    (tmp_path / "in" / "b.txt").write_text("सीता गई", encoding="utf-8")
    documents, _ = load_source({"path": str(tmp_path / "in"), "text_column": "content"})
    assert sorted(documents["text"]) == ["राम गया", "सीता गई"]


def test_the_recipe_of_the_hub_says_offline_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a network strict_small ends in one line with the dataset and the ways out, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main([str(ROOT / "recipes" / "strict_small.json")])
    assert stopped.value.code == 2
    error = capfd.readouterr().err
    assert len(error.splitlines()) == 1
    assert "corpus.sources: cannot read source 'HuggingFaceFW/fineweb-2' from the hub: " in error
    assert 'give the files as "path"' in error
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_of_the_hub_draws_its_mix_from_streams(tmp_path: Path) -> None:
    """With its datasets as local folders strict_small mixes the web and Wikipedia 2 to 1, exact to a document."""
    corpus = json.loads((ROOT / "recipes" / "strict_small.json").read_text(encoding="utf-8"))["corpus"]
    for number, source in enumerate(corpus["sources"]):
        if "hub_id" in source:
            texts = [hindi_sentences(12, seed=10_000 * number + text) for text in range(2500)]
            source["hub_id"] = str(hub_folder(tmp_path / source.pop("config"), texts))
        else:
            source["max_words"] = 5_000
    assert corpus.pop("max_words") == 10_000_000
    splits, ledger = build_corpus(
        sources=corpus["sources"], max_words=100_000, near_duplicate_threshold=0.8, decontaminate=False
    )
    words: Counter[str] = Counter()
    for split in splits:
        words.update({source: entry["words"] for source, entry in ledger.kept[split].items()})
    rest = 100_000 - words["premchand_stories"] - words["pratham_storyweaver"]
    for name, weight in (("fineweb-2", 2), ("wikipedia", 1)):
        assert rest * weight / 3 - 12 * 10 < words[name] <= rest * weight / 3


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built is the file whose digest names its split and its cache."""
    path = write(tmp_path / "a.jsonl", [{"text": hindi_sentences(3, seed=seed)} for seed in range(5)])

    def read_and_change(file: str, source: Any) -> Iterator[Any]:
        yield from read_rows(file, source)
        with open(file, "a", encoding="utf-8") as more:
            more.write('{"text": "और"}\n')

    monkeypatch.setattr(sources_module, "read_rows", read_and_change)
    with pytest.raises(UserError, match=r"a\.jsonl was changed while it was read; start again when it is whole"):
        load_source({"path": str(path)})


def test_a_stream_that_ends_before_its_cap_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cap of a stream says how much to draw, so less than that is worth a warning."""
    write(tmp_path / "hub" / "train.jsonl", [{"text": hindi_sentences(3, seed=seed)} for seed in range(50)])
    source = {"hub_id": str(tmp_path / "hub"), "streaming": True, "max_words": 1_000_000}
    _, ledger = build_corpus(sources=[source])
    told = capsys.readouterr().err
    assert f"ended with {ledger.words():,} words, fewer than its max_words 1,000,000" in told
