"""What tasks held when a run was cleaned of them and scored on them is recorded, and a change of it is noticed."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm import run as run_module
from hindi_babylm.commands import main
from hindi_babylm.evaluation.provenance import task_sha256
from hindi_babylm.evaluation.tables import HubTable
from hindi_babylm.evaluation.tasks import TASK_SHA256, TASKS
from hindi_babylm.run import main as run_main
from hindi_babylm.storage import read_json, write_json
from tests.conftest import hindi_sentences, tiny_recipe

OLD = "phenomenon\tsen\twrong_sen\nnumber\tराम घर में है\tराम घर में हैं\n"
NEW = "phenomenon\tsen\twrong_sen\nnumber\tसीता घर में है\tसीता घर में हैं\n"
RUN = ["r.json"]


def digest(items: str) -> str:
    """Return the SHA-256 of items that are written out as JSON."""
    return hashlib.sha256(json.dumps(json.loads(items), sort_keys=True).encode()).hexdigest()


def digest_of(good: str, bad: str) -> str:
    """Return the SHA-256 of a task of one pair in which है became हैं."""
    return digest(f'[{{"phenomenon": "number", "good": "{good}", "bad": "{bad}", "change": "है -> हैं"}}]')


OLD_DIGEST, NEW_DIGEST = digest_of("राम घर में है", "राम घर में हैं"), digest_of("सीता घर में है", "सीता घर में हैं")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Path:
    """Return a folder with a task, a recipe that names it, and its finished run."""
    path = tmp_path_factory.mktemp("trained")
    (path / "mine.tsv").write_text(OLD, encoding="utf-8")
    recipe = tiny_recipe(corpus_file, output_dir="run", max_steps=2)
    write_json(path / "r.json", {**recipe, "evaluation": {"tasks": ["mine.tsv"]}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        run_main(RUN)
    return path


@pytest.fixture
def workplace(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of the folder with the run."""
    path = tmp_path / "workplace"
    shutil.copytree(trained, path)
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return a function that gives what stands on stderr since its last call, without line ends."""
    return lambda: " ".join(capsys.readouterr().err.split())


def unfinish(*files: str) -> None:
    """Let the run be one that was killed: before its evaluation, or before its first checkpoint."""
    for name in files:
        Path("run", name).unlink()


def forget() -> None:
    """Let the run be one of before the content of tasks was recorded."""
    for path in (Path("run/corpus.json"), Path("run/results.json")):
        if path.exists():
            content = read_json(path)
            del content[TASK_SHA256]
            write_json(path, content)


def test_content_is_that_of_the_items_wherever_they_lie(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, its copy, other quotation of it and a hub table have one hash; each kind's is that of its JSON."""
    shutil.copy("mine.tsv", "copy.tsv")
    Path("quoted.tsv").write_text('"phenomenon"\t"sen"\t"wrong_sen"\n"number"\t"राम घर में है"\t"राम घर में हैं"\n', "utf-8")
    # Another name than other tests have: datasets keeps the columns of a folder by its name.
    Path("tables/hin").mkdir(parents=True)
    shutil.copy("mine.tsv", "tables/hin/data.tsv")
    card = '---\nconfigs:\n- config_name: hin\n  data_files: hin/data.tsv\n  sep: "\\t"\n---\n'
    Path("tables/README.md").write_text(card, encoding="utf-8")
    monkeypatch.setitem(TASKS, "of_the_hub", HubTable("./tables", "hin"))
    assert {task_sha256(name) for name in ("mine.tsv", "copy.tsv", "quoted.tsv", "of_the_hub")} == {OLD_DIGEST}
    Path("copy.tsv").write_text(NEW, encoding="utf-8")
    assert task_sha256("copy.tsv") == NEW_DIGEST
    question = '{"context": "राम ___ है", "choices": ["घर", "नदी"], "answer": 0}'
    Path("cloze.jsonl").write_text(question, encoding="utf-8")
    assert task_sha256("cloze.jsonl") == digest(f"[{question}]")
    parts = {}
    for name in ("topics", "same"):
        Path(name).mkdir()
        for split in ("train", "dev", "test"):
            parts[split] = {"texts": [f"राम {split} है", f"नदी {split} थी"], "labels": ["घर", "नदी"]}
            rows = [f"{text}\t{label}" for text, label in zip(*parts[split].values(), strict=True)]
            Path(name, f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]), encoding="utf-8")
    assert {task_sha256(name) for name in ("topics", "same")} == {digest(json.dumps({**parts, "left_out": 0}))}


def test_a_run_records_what_its_tasks_held(workplace: Path) -> None:
    """corpus.json has the hash of a task when train was cleaned of it, results.json that when it was scored."""
    assert read_json("run/corpus.json")[TASK_SHA256] == {"mine": OLD_DIGEST}
    assert read_json("run/results.json")[TASK_SHA256] == {"mine": OLD_DIGEST}
    run_main([*RUN, "--decontaminate", "false", "--output_dir", "dirty"])
    assert read_json("dirty/corpus.json")[TASK_SHA256] == {}
    assert read_json("dirty/results.json")[TASK_SHA256] == {"mine": OLD_DIGEST}


@pytest.mark.parametrize("files", [("results.json",), ("results.json", "training.json")])
def test_an_unfinished_run_is_not_scored_on_what_was_not_cut_out(
    workplace: Path, files: tuple[str, ...], told: Callable[[], str]
) -> None:
    """With a changed task it is refused in one line and nothing is touched; restored, the task is scored."""
    unfinish(*files)
    Path("mine.tsv").write_text(NEW, encoding="utf-8")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    told()
    with pytest.raises(SystemExit) as stopped:
        run_main(RUN)
    assert stopped.value.code == 2
    line = told()
    assert line.endswith(
        "error: run: its training text was cleaned of mine.tsv, which has changed since: restore it, and score what it "
        "holds now from another path once the run is finished (`hindi-babylm evaluate run --tasks PATH`); or choose "
        "another --output_dir, or --overwrite to start again"
    )
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    Path("mine.tsv").write_text(OLD, encoding="utf-8")
    run_main(RUN)
    assert read_json("run/results.json")[TASK_SHA256] == {"mine": OLD_DIGEST}
    assert "mine" not in told()


def test_starting_again_cleans_of_what_the_task_holds(workplace: Path) -> None:
    """After --overwrite the training text was cleaned of the new content."""
    unfinish("results.json")
    Path("mine.tsv").write_text(NEW, encoding="utf-8")
    run_main([*RUN, "--overwrite"])
    for name in ("corpus", "results"):
        assert read_json(f"run/{name}.json")[TASK_SHA256] == {"mine": NEW_DIGEST}


def test_a_run_that_was_not_cleaned_goes_on(workplace: Path, told: Callable[[], str]) -> None:
    """With decontaminate off a changed task spoils nothing: an unfinished run is scored on what it holds."""
    dirty = [*RUN, "--decontaminate", "false", "--output_dir", "dirty"]
    run_main(dirty)
    Path("dirty/results.json").unlink()
    Path("mine.tsv").write_text(NEW, encoding="utf-8")
    told()
    run_main(dirty)
    assert read_json("dirty/results.json")[TASK_SHA256] == {"mine": NEW_DIGEST}
    assert "mine" not in told()


def test_a_finished_run_says_that_its_task_has_changed(workplace: Path, told: Callable[[], str]) -> None:
    """Its summary comes with a warning and the command that scores the new content; its results stay."""
    before = Path("run/results.json").read_bytes()
    told()
    run_main(RUN)
    assert "mine" not in told()
    Path("mine.tsv").write_text(NEW, encoding="utf-8")
    run_main(RUN)
    warning = (
        "Warning: mine.tsv has changed since the run was scored on it: `hindi-babylm evaluate run --tasks mine.tsv` "
        "scores what it holds now"
    )
    assert warning in told()
    assert Path("run/results.json").read_bytes() == before


def test_a_change_between_cleaning_and_scoring_is_told(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], str]
) -> None:
    """A task that changes while the model is trained is scored, with a warning, and both hashes are recorded."""
    train = run_module.train

    def slow_train(*args: Any, **kwargs: Any) -> None:
        train(*args, **kwargs)
        Path("mine.tsv").write_text(NEW, encoding="utf-8")

    monkeypatch.setattr(run_module, "train", slow_train)
    run_main([*RUN, "--output_dir", "slow"])
    assert read_json("slow/corpus.json")[TASK_SHA256] == {"mine": OLD_DIGEST}
    assert read_json("slow/results.json")[TASK_SHA256] == {"mine": NEW_DIGEST}
    assert "the training text of slow may hold test texts of mine: they were not cut out of it" in told()


def test_an_evaluation_compares_content_and_not_names(workplace: Path, told: Callable[[], str]) -> None:
    """`evaluate` warns of a task of the same name with new content, and not of the same content elsewhere."""
    Path("texts.txt").write_text("\n\n".join(hindi_sentences(2, seed=n) for n in range(2)), encoding="utf-8")
    shutil.copy("mine.tsv", "elsewhere.tsv")
    words = ["evaluate", "run", "--texts", "texts.txt", "--output_dir", "out", "--tasks"]
    told()
    main([*words, "elsewhere.tsv"])
    assert "not cut out" not in told()
    assert read_json("out/results.json")[TASK_SHA256] == {"elsewhere": OLD_DIGEST}
    Path("mine.tsv").write_text(NEW, encoding="utf-8")
    main([*words, "mine.tsv", "elsewhere.tsv"])
    assert "the training text of run may hold test texts of mine.tsv: they were not cut out of it" in " ".join(
        told().replace(str(workplace) + "/", "").split()
    )
    assert read_json("out/results.json")[TASK_SHA256] == {"mine": NEW_DIGEST, "elsewhere": OLD_DIGEST}


def test_a_run_without_hashes_is_taken_as_before(workplace: Path, told: Callable[[], str]) -> None:
    """Of a run that recorded none nothing is known: it is told as finished, goes on, and is warned of by names."""
    forget()
    Path("mine.tsv").write_text(NEW, encoding="utf-8")
    told()
    run_main(RUN)
    main(["evaluate", "run", "--output_dir", "out", "--tasks", "mine.tsv"])
    assert "mine" not in told()
    shutil.copy("mine.tsv", "elsewhere.tsv")
    main(["evaluate", "run", "--output_dir", "out", "--tasks", "elsewhere.tsv"])
    assert "may hold test texts of elsewhere.tsv" in told()
    unfinish("results.json")
    run_main(RUN)
    assert read_json("run/results.json")[TASK_SHA256] == {"mine": NEW_DIGEST}
    assert "mine" not in told()
