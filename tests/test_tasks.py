"""The tasks of a recipe: names and paths, the tables they are read from, and what a run writes of them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.evaluation.minimal_pairs import load_pairs
from hindi_babylm.evaluation.tables import HubTable, read_table
from hindi_babylm.evaluation.tasks import KINDS, TASKS, Task, check_tasks, find_task, find_tasks, task_texts
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.run import main
from hindi_babylm.storage import UserError, read_json
from hindi_babylm.tokenization.training import train_tokenizer
from tests.conftest import tiny_recipe

PAIRS = "phenomenon\tsen\twrong_sen\nagreement\tराम है\tराम हैं\ngender\tघर था\tघर थी\nagreement\tनदी है\tनदी हैं\n"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def write(name: str, content: str) -> Path:
    """Write a file and return its path."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_a_task_is_a_name_or_a_path() -> None:
    """A path has the name of its file without the suffix; both are told in recipes and in flags."""
    write("mine/agreement.tsv", PAIRS)
    assert find_task("mine/agreement.tsv") == Task("agreement", "minimal_pairs", Path("mine/agreement.tsv"))
    assert find_task("multiblimp_hin").place == HubTable("jumelet/multiblimp", "hin")
    write("r.json", json.dumps({"evaluation": {"tasks": ["mine/agreement.tsv", "hindi_pairs_pud"]}}))
    assert parse_recipe("r.json").evaluation.tasks == ["mine/agreement.tsv", "hindi_pairs_pud"]
    assert parse_recipe("r.json", ["--tasks", "mine/agreement.tsv"]).evaluation.tasks == ["mine/agreement.tsv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.tsv", "sen\twrong\nक\tख\n", "pairs.tsv lacks the columns wrong_sen; it has sen, wrong$"),
        ("pairs.tsv", "sen\twrong_sen\n", "pairs.tsv has no row$"),
        ("pairs.tsv", "", "pairs.tsv has no row$"),
        ("pairs.tsv", "sen\twrong_sen\nक\tख\tग\n", "pairs.tsv: line 2 has 3 fields, the header 2$"),
        ("pairs.tsv", "sen\twrong_sen\nक\t \n", "pairs.tsv: row 1 has nothing in wrong_sen$"),
        ("pairs.tsv", "sen\twrong_sen\nक\tक\n", "pairs.tsv: row 1: sen and wrong_sen are equal: क$"),
        ("test.tsv", PAIRS, "'test' is the name of a split: rename the file, or leave one out$"),
    ],
)
def test_a_wrong_file_is_refused_with_the_recipe(name: str, content: str, message: str) -> None:
    """What is wrong with the file of a task is told with the place in the recipe, before data are read."""
    write(name, content)
    with pytest.raises(UserError, match=f"^command line: --tasks: .*{message}"):
        parse_recipe(write("r.json", "{}"), ["--tasks", name])


ALL_KINDS = ("pairs.tsv", "cloze.jsonl", "topics")


def write_all_kinds() -> None:
    """Write a task of each kind, a file or folder."""
    write("pairs.tsv", PAIRS)
    write("cloze.jsonl", '{"context": "राम ___ है", "choices": ["घर", "नदी"], "answer": 0}')
    for split in ("train", "dev", "test"):
        write(f"topics/{split}.tsv", f"text\tlabel\nराम {split} है\tघर\nसीता {split} थी\tनदी\n")


def test_every_kind_of_task_is_checked_before_the_training() -> None:
    """A task of each kind goes through the check with a tokenizer, and is refused where the context has no room."""
    write_all_kinds()
    tokenizer = train_tokenizer(["राम घर गया", "सीता ने आम खाया"], vocab_size=512)
    check_tasks(tokenizer, ALL_KINDS, room=64)
    assert {find_task(name).kind for name in ALL_KINDS} == set(KINDS)
    for name in ALL_KINDS:
        with pytest.raises(UserError, match="raise block_size"):
            check_tasks(tokenizer, [name], room=1)


def test_a_folder_has_its_own_name() -> None:
    """A folder is named as it is, with its dots, also where it is told as `.`."""
    write_all_kinds()
    Path("topics").rename("topics.v2")
    assert find_task("topics.v2").name == "topics.v2"
    assert find_task("topics.v2/.").name == "topics.v2"


def test_two_tasks_of_one_name_are_refused() -> None:
    """Two files of one name would have their figures in one place."""
    for name in ("a/pairs.tsv", "b/pairs.tsv"):
        write(name, PAIRS)
    with pytest.raises(UserError, match="'pairs' is the name of two tasks"):
        find_tasks(["a/pairs.tsv", "b/pairs.tsv"])


SENTENCES = ['उसने "घर" कहा', '"घर"', 'कहा "घर', "राम\u2028घर", 'क "" ख', "सादा"]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, None])
def test_quotation_marks_are_read_as_they_were_written(quoting: Any) -> None:
    """Files with fields in quotes and files without give the same sentences, whatever marks stand in them."""
    rows = [["sen", "wrong_sen"], *([text, text + " है"] for text in SENTENCES)]
    with open("pairs.tsv", "w", encoding="utf-8", newline="") as file:
        if quoting is None:
            file.writelines("\t".join(row) + "\r\n" for row in rows)
        else:
            csv.writer(file, delimiter="\t", quoting=quoting).writerows(rows)
    found = read_table(Path("pairs.tsv"), columns=("sen", "wrong_sen"))
    assert [[row["sen"], row["wrong_sen"]] for row in found] == rows[1:]


def test_the_bundled_files_are_read_each_in_its_own_quoting() -> None:
    """MultiBLiMP's file doubles its quotation marks, the other one does not; neither has one too many or too few."""
    multiblimp = load_pairs(TASKS["multiblimp_hin_pud"])
    ours = load_pairs(TASKS["hindi_pairs_pud"])
    assert (len(multiblimp), len(ours)) == (119, 560)
    (said,) = [pair.good for pair in multiblimp if "ट्विटर" in pair.good]
    assert said.endswith('कहा, "यदि कोई व्यक्ति ट्विटर खाता नहीं संभाल सकता, तो वह परमाणविक कोड भी नहीं संभाल सकता है।"')
    assert not any(text.startswith('"') or '""' in text for text in task_texts("multiblimp_hin_pud"))
    lines = Path(str(TASKS["hindi_pairs_pud"])).read_text(encoding="utf-8").splitlines()[1:]
    assert [pair.good for pair in ours] == [line.split("\t")[1] for line in lines]


def test_pairs_of_the_hub_are_those_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table laid out like the hub's gives the pairs of the same TSV, and an unreachable hub one clear line."""
    content = Path(str(TASKS["multiblimp_hin_pud"])).read_text(encoding="utf-8")
    write("hub/hin/data.tsv", content)
    card = '---\nconfigs:\n- config_name: hin\n  data_files: hin/data.tsv\n  sep: "\\t"\n---\n'
    write("hub/README.md", card)
    assert load_pairs(HubTable("./hub", "hin")) == load_pairs(TASKS["multiblimp_hin_pud"])
    with pytest.raises(UserError, match=r"^evaluation: cannot read jumelet/multiblimp \(hin\) from the hub: \w+: .*; "):
        load_pairs(TASKS["multiblimp_hin"])


@pytest.mark.hub
def test_the_published_pairs_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """MultiBLiMP's Hindi is on the hub, with its columns."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert len(load_pairs(TASKS["multiblimp_hin"])) > 100


def test_a_run_writes_what_its_figures_are_made_of(corpus_file: Path) -> None:
    """items/ has a row for each document and pair, whose sums are the figures of results.json."""
    recipe = tiny_recipe(corpus_file, max_steps=2, output_dir="run")
    recipe["evaluation"]["tasks"] = [str(write("agreement.tsv", PAIRS))]
    main([str(write("tiny.json", json.dumps(recipe)))])
    results = read_json("run/results.json")
    items = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in Path("run/items").iterdir()
    }
    assert items.keys() == {"test", "validation", "agreement"}
    for split in ("test", "validation"):
        units = ("tokens", "words", "bytes", "characters", "aksharas")
        for unit in units:
            assert sum(row[unit] for row in items[split]) == results[split][unit], unit
        assert items[split][0].keys() == {"document_id", "source", "work", "nll", "unigram_nll", "trigram_nll", *units}
        assert sum(row["nll"] for row in items[split]) / results[split]["tokens"] == pytest.approx(
            results[split]["loss"], rel=1e-12
        )
    documents = [json.loads(line) for line in Path("run/tokens/test/documents.jsonl").read_text("utf-8").splitlines()]
    assert [row["document_id"] for row in items["test"]] == [row["document_id"] for row in documents]
    pairs = items["agreement"]
    assert [row["sen"] for row in pairs] == ["राम है", "घर था", "नदी है"]
    assert all(row["points"] == (row["nll"] < row["wrong_nll"]) for row in pairs)
    assert [(row["bytes"], row["wrong_bytes"]) for row in pairs] == [(16, 19), (13, 13), (16, 19)]
    phenomena = results["minimal_pairs"]["agreement"]["phenomena"]
    assert phenomena["agreement"]["accuracy"] == 50 * (pairs[0]["points"] + pairs[2]["points"])
