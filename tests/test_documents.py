import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.corpus import documents
from hindi_babylm.corpus.assembly import build_corpus
from hindi_babylm.corpus.sources import load_source
from hindi_babylm.preparation import prepare
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.storage import RunFolder
from tests.conftest import hindi_sentences
from tests.test_corpus import hub_folder, numbered, write

WriteRecipe = Callable[..., Path]


def is_reused(source: dict[str, Any], capsys: pytest.CaptureFixture[str], **settings: Any) -> bool:
    """Load a source and say whether the console told that its clean documents were reused."""
    capsys.readouterr()
    load_source(source, **settings)
    return "reused: unchanged" in capsys.readouterr().out


def test_an_unchanged_source_is_reused_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second read of a source is the first one's table and ledger, under whatever file names."""
    source = {"path": str(tmp_path / "texts")}
    write(tmp_path / "texts" / "a.jsonl", numbered(50))
    write(tmp_path / "texts" / "b.jsonl", [*numbered(50, prefix="b"), {"text": ""}])
    first, ledger = load_source(source)
    assert "reused" not in capsys.readouterr().out
    (tmp_path / "texts" / "a.jsonl").rename(tmp_path / "texts" / "z.jsonl")
    again, ledger_again = load_source(source)
    assert "Reading" in (out := capsys.readouterr().out)
    assert "101 documents, reused: unchanged" in out
    assert first.to_dict() == again.to_dict()
    assert ledger.as_dict() == ledger_again.as_dict()


def test_what_changed_is_read_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another text, another setting of the cleaning or of the source reads again; the number of workers does not."""
    path = write(tmp_path / "a.jsonl", numbered(50))
    source = {"path": str(path)}
    assert not is_reused(source, capsys)
    assert is_reused(source, capsys, workers=2)
    settings: dict[str, Any]
    for settings in ({"hygiene": []}, {"min_words": 3}, {"max_document_words": 100}):
        assert not is_reused(source, capsys, **settings)
        assert is_reused(source, capsys, **settings)
    assert not is_reused({**source, "name": "other"}, capsys)
    write(path, numbered(51))
    assert not is_reused(source, capsys)


def test_changed_code_of_the_stage_reads_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every module of the stage decides over the reuse: a changed one reads again."""
    source = {"path": str(write(tmp_path / "a.jsonl", numbered(50)))}
    assert not is_reused(source, capsys)
    names = {path.name for path in documents.CODE}
    assert {"documents.py", "reading.py", "danda.py", "orthography.py"} <= names
    for path in documents.CODE:
        changed = tmp_path / "changed" / path.name
        changed.parent.mkdir(exist_ok=True)
        shutil.copy(path, changed)
        changed.write_text(f"{changed.read_text(encoding='utf-8')}\n# {path}\n", encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(documents, "CODE", [changed if other == path else other for other in documents.CODE])
            assert not is_reused(source, capsys)


def test_a_kill_while_reading_leaves_nothing_to_reuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table whose ledger was never written is not taken for whole."""
    source = {"path": str(write(tmp_path / "a.jsonl", numbered(50)))}

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(documents, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            load_source(source)
    assert not is_reused(source, capsys)
    assert is_reused(source, capsys)


def test_a_stream_ends_when_it_has_enough(tmp_path: Path, prompt_streams: None) -> None:
    """Of a stream no more is read than the budget needs; the same seed draws the same documents, another others."""
    texts = [hindi_sentences(8, seed=seed) for seed in range(12_000)]
    hub_id = str(hub_folder(tmp_path / "dataset", texts))
    source = {"hub_id": hub_id, "streaming": True}
    kept = {}
    for seed in (0, 1):
        splits, ledger = build_corpus(sources=[source], max_words=20_000, split_seed=seed)
        assert ledger.read["documents"] < 6_000
        assert 20_000 - 100 < ledger.words() <= 20_000
        kept[seed] = {text for part in splits.values() for text in part["text"]}
        assert kept[seed] <= set(texts)
    assert kept[0] != kept[1]
    again, _ = build_corpus(sources=[{**source, "name": "anew"}], max_words=20_000)
    assert {text for part in again.values() for text in part["text"]} == kept[0]


def stores_of(recipe: Path, run: Path) -> dict[str, bytes]:
    """Prepare the data of a recipe, and return the token stores, file by file."""
    prepare(parse_recipe(recipe, ["--output_dir", str(run)]), RunFolder(run))
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "tokens").rglob("*.*"))}


def test_the_token_store_hangs_on_the_texts_alone(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    """1 or 4 workers, files renamed, rows shuffled and divided otherwise: the same token store, byte for byte."""
    rows = [
        {"text": hindi_sentences(2 + number % 40, seed=number), "id": f"d{number}", "source": "s"}
        for number in range(2500)
    ]
    recipe = write_recipe()
    write(tmp_path / "one" / "a.jsonl", rows)
    random.Random(1).shuffle(rows)
    write(tmp_path / "two" / "z.jsonl", rows[:1000])
    write(tmp_path / "two" / "b.jsonl.gz", rows[1000:])
    stores = {}
    for folder, workers in (("one", 1), ("one", 4), ("two", 1), ("two", 4)):
        settings = json.loads(recipe.read_text(encoding="utf-8"))
        settings["corpus"] |= {
            # Another name of the source for each: a reused table would prove nothing.
            "sources": [{"path": str(tmp_path / folder), "name": f"{folder} {workers}"}],
            "preprocessing_num_workers": workers,
        }
        recipe.write_text(json.dumps(settings), encoding="utf-8")
        stores[folder, workers] = stores_of(recipe, tmp_path / f"{folder}-{workers}")
    assert len(stores["one", 1]) > 6
    assert all(store == stores["one", 1] for store in stores.values())
