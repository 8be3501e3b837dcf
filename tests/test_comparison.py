"""Runs side by side: what is compared, with which numbers, and what is refused."""

import csv
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from sklearn.metrics import f1_score

from hindi_babylm.commands.compare import compare, main
from hindi_babylm.comparison import significance
from hindi_babylm.comparison.curves import learning_curves
from hindi_babylm.comparison.figures import compare_conditions
from hindi_babylm.comparison.runs import Condition, group, read_run
from hindi_babylm.evaluation.fine_tuning import PROTOCOL
from hindi_babylm.reporting import comparison_plots
from hindi_babylm.run import main as run_main
from tests.conftest import TINY_DEBERTA, TINY_GPT2, hindi_sentences, tiny_recipe

Rows = list[dict[str, Any]]
NOUNS = ["घर", "नदी", "पानी", "किताब", "लड़का", "गाँव", "राजा", "फल", "माँ", "भाई"]
PAIRS = "phenomenon\tsen\twrong_sen\n" + "".join(
    f"number\tराम {noun} है\tराम {noun} हैं\n{'gender' if place < 4 else 'number'}\t{noun} का था\t{noun} की था\n"
    for place, noun in enumerate(NOUNS)
)
RECIPES: dict[str, dict[str, Any]] = {
    **{f"slow-{seed}": {"learning_rate": 1e-3, "seed": seed} for seed in (1, 2)},
    **{f"fast-{seed}": {"learning_rate": 1e-2, "seed": seed, "milestones": [1000]} for seed in (1, 2)},
    "coarse": {"learning_rate": 1e-3, "seed": 1},
    "masked": {"learning_rate": 1e-3, "seed": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Path:
    """Return a folder of six finished runs, trained through the real command."""
    folder = tmp_path_factory.mktemp("runs")
    monkeypatch = pytest.MonkeyPatch()
    for name in ("report.write_report", "card.write_card"):  # which take half of the time, and are not compared
        monkeypatch.setattr(f"hindi_babylm.reporting.{name}", lambda *_, **__: None)
    (folder / "pairs.tsv").write_text(PAIRS, encoding="utf-8")
    for name, training in RECIPES.items():
        recipe = tiny_recipe(corpus_file, output_dir=str(folder / name), **training)
        recipe["training"] |= {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
        recipe["evaluation"]["tasks"] = [str(folder / "pairs.tsv")]
        if name == "coarse":
            recipe["tokenizer"]["algorithm"] = "character"
        if name == "masked":
            recipe["model"] |= {"architecture": "deberta-v2", "model_config": TINY_DEBERTA}
        (folder / f"{name}.json").write_text(json.dumps(recipe), encoding="utf-8")
        run_main([str(folder / f"{name}.json")])
    monkeypatch.undo()
    return folder


@pytest.fixture
def runs(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of runs as `drawn`, where nothing is drawn: it takes most of the time of a comparison."""
    for name in ("draw_differences", "draw_learning_curve"):
        draw = getattr(comparison_plots, name)
        monkeypatch.setattr(comparison_plots, name, Mock(spec=draw, return_value="<svg/>"))
    return drawn


@pytest.fixture
def drawn(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a copy of the runs that a test may change."""
    folder = tmp_path / "work"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("checkpoints", "tokens", "*.safetensors"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw little: that enough is drawn is tested in test_significance.py."""
    monkeypatch.setattr(significance, "PERMUTATIONS", 199)
    monkeypatch.setattr(significance, "BOOTSTRAP_SAMPLES", 100)


def rows_of(*names: str) -> Rows:
    """Return the rows of a comparison of runs with the first of them."""
    conditions = group([read_run(Path(name)) for name in names])
    return compare_conditions(conditions, conditions[0])[0]


def items_of(run: str, name: str) -> Rows:
    """Return the items of a run."""
    lines = Path(run, "items", f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write_items(run: str, name: str, rows: Rows) -> None:
    """Write the items of a run."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(run, "items", f"{name}.jsonl").write_text(text, encoding="utf-8")


def change(path: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit a JSON file in place."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    edit(content)
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def accuracies(results: dict[str, Any], value: float) -> None:
    """Give all pairs of a results.json one accuracy."""
    suite = results["minimal_pairs"]["pairs"]
    suite["macro"]["value"] = value
    for entry in suite["phenomena"].values():
        entry["accuracy"] = value


def row_of(rows: Rows, figure: str, condition: int = 1) -> dict[str, Any]:
    """Return the row of a figure, of the condition at a place."""
    return [row for row in rows if row["figure"] == figure][condition]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which a command line is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert not Path("runs").exists()
    return captured.err


def test_the_command_writes_the_tables_and_plots(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two recipes with two seeds each are two conditions, named by what differs, in every file and on the screen."""
    main(["slow-1", "fast-1", "slow-2", "fast-2", "--output_dir", "out"])
    captured = capsys.readouterr()
    names = {path.name for path in Path("out").iterdir()}
    assert {"comparison.md", "comparison.csv", "comparison.tex", "differences.svg", "curve-loss.svg"} <= names
    assert {line for line in captured.out.splitlines() if line.startswith("out/")} == {f"out/{name}" for name in names}
    for place in ("A  learning_rate=0.001 (2 runs", "B  learning_rate=0.01 (2 runs", "test, bits a byte ("):
        assert place in captured.out
    assert captured.err == ""
    with open("out/comparison.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["condition"] for row in table} == {"learning_rate=0.001", "learning_rate=0.01"}
    assert {row["seeds"] for row in table} == {"1; 2"}
    assert len(table) == len({(row["figure"], row["condition"]) for row in table})
    document = Path("out/comparison.md").read_text(encoding="utf-8")
    assert "| test, bits a byte | learning_rate=0.01 | 2 |" in document
    for name in re.findall(r"\]\((.*?\.svg)\)", document):
        svg = Path("out", name).read_text(encoding="utf-8")
        assert ElementTree.fromstring(svg[svg.index("<svg") :]).tag.endswith("svg")
        assert "<script" not in svg
    assert {name for name in names if name.endswith(".svg")} == set(re.findall(r"\]\((.*?\.svg)\)", document))


def test_equal_inputs_give_equal_bytes(drawn: Path) -> None:
    """A comparison made again writes the same files, byte for byte, and leaves none of an earlier one behind."""
    compare(["slow-1", "fast-1", "--output_dir", "one"])
    Path("two").mkdir()
    Path("two/curve-of-old.svg").write_text("", encoding="utf-8")
    compare(["slow-1", "fast-1", "--output_dir", "two"])
    first, second = ({path.name: path.read_bytes() for path in Path(name).iterdir()} for name in ("one", "two"))
    assert first == second


def test_figures_of_one_run_each_by_hand(runs: Path) -> None:
    """Value, difference and effect of bits, perplexity and macro accuracy follow from the items in plain sums."""
    rows = rows_of("slow-1", "fast-1")
    slow, fast = (items_of(run, "test") for run in ("slow-1", "fast-1"))
    size = sum(item["bytes"] for item in slow)
    bits = [sum(item["nll"] for item in items) / math.log(2) / size for items in (slow, fast)]
    row = row_of(rows, "test.bits_per_byte")
    assert row_of(rows, "test.bits_per_byte", 0)["value"] == pytest.approx(bits[0], rel=1e-12)
    assert row["value"] == pytest.approx(bits[1], rel=1e-12)
    assert row["difference"] == pytest.approx(bits[1] - bits[0], rel=1e-12)
    assert row["effect_size"] == pytest.approx(100 * (bits[1] / bits[0] - 1))
    assert row["difference_low"] < row["difference"] < row["difference_high"] < 0
    assert (row["items"], row["item"]) == (len({item["work"] for item in slow}), "works")
    words = sum(item["words"] for item in slow)
    ratio = math.exp(sum(b["nll"] - a["nll"] for a, b in zip(slow, fast, strict=True)) / words)
    assert row_of(rows, "test.word_perplexity")["difference"] == pytest.approx(100 * (ratio - 1))
    reported = json.loads(Path("fast-1/results.json").read_text(encoding="utf-8"))
    assert (row["low"], row["high"]) == tuple(reported["test"]["bits_per_byte"][end] for end in ("low", "high"))
    macros = []
    for run in ("slow-1", "fast-1"):
        points: dict[str, list[float]] = {}
        for item in items_of(run, "pairs"):
            points.setdefault(item["phenomenon"], []).append(item["points"])
        assert {len(own) for own in points.values()} == {4, 16}
        macros.append(100 * np.mean([np.mean(own) for own in points.values()]))
    row = row_of(rows, "minimal_pairs.pairs.macro")
    assert row["difference"] == pytest.approx(macros[1] - macros[0])
    assert (row["items"], row["item"]) == (20, "sentences")
    h = [2 * math.asin(math.sqrt(value / 100)) for value in macros]
    assert (row["effect"], row["effect_size"]) == ("Cohen's h", pytest.approx(h[1] - h[0]))
    assert {row["test"] for row in rows if row["test"]} == {"permutation"}


def test_seeds_are_replicates(runs: Path) -> None:
    """Value and spread are those over seeds, and the test is the one that knows of seeds."""
    rows = rows_of("slow-1", "fast-1", "slow-2", "fast-2")
    row = row_of(rows, "test.bits_per_byte")
    told = [
        json.loads(Path(f"fast-{seed}/results.json").read_text(encoding="utf-8"))["test"]["bits_per_byte"]["value"]
        for seed in (1, 2)
    ]
    assert row["value"] == pytest.approx(np.mean(told))
    assert row["sd"] == pytest.approx(abs(told[0] - told[1]) / math.sqrt(2))
    assert (row["runs"], row["test"]) == (2, "t over runs and items")
    assert row["low"] < row["value"] < row["high"]


def rewrite_pairs(run: str, names: list[str], points: list[float]) -> None:
    """Give a run pairs of these phenomena, a sentence for each name, with points by the row and by byte in results."""
    rows: Rows = []
    for number, name in enumerate(names):
        for phenomenon in name.split("+"):
            point, wrong = points[len(rows)], f"w{len(rows)}"
            sides = {"nll": 10.0 + number % 7, "wrong_nll": 10.0 + number % 7 + 2 * point - 1}
            sizes = {"bytes": 10 + number % 5, "wrong_bytes": 10 + len(rows) % 3}
            rows.append({"phenomenon": phenomenon, "sen": f"s{number}", "wrong_sen": wrong, **sides, **sizes})
            rows[-1] |= {"index": len(rows) - 1, "points": point}
    write_items(run, "pairs", rows)
    by_row: dict[str, list[float]] = {}
    by_byte: dict[str, list[float]] = {}
    for row in rows:
        good, bad = row["nll"] / row["bytes"], row["wrong_nll"] / row["wrong_bytes"]
        by_row.setdefault(row["phenomenon"], []).append(100 * row["points"])
        by_byte.setdefault(row["phenomenon"], []).append(50.0 if good == bad else 100.0 * (good < bad))
    ends = {"low": 0.0, "high": 100.0}
    suite: dict[str, Any] = {"phenomena": {name: {"accuracy": np.mean(own), **ends} for name, own in by_row.items()}}
    suite["macro"] = {"value": np.mean([np.mean(own) for own in by_row.values()]), **ends}
    suite["per_byte"] = {"macro": {"value": np.mean([np.mean(own) for own in by_byte.values()]), **ends}}
    change(f"{run}/results.json", lambda results: results["minimal_pairs"].update(pairs=suite))


def test_pairs_of_one_sentence_are_exchanged_together(runs: Path) -> None:
    """Accuracies are those of pairs, p that of all exchanges of whole sentences in a plain loop, by byte its own."""
    names = ["a+b", "b+a", "a", "a+a", "b", "b", "a+b+b"]
    draw = np.random.default_rng(1)
    for run in ("slow-1", "fast-1"):
        rewrite_pairs(run, names, draw.choice([0.0, 1.0], p=[0.4, 0.6], size=12).tolist())
    rows = rows_of("slow-1", "fast-1")
    read = [items_of(run, "pairs") for run in ("slow-1", "fast-1")]

    def macro(points: list[float]) -> float:
        by_name: dict[str, list[float]] = {}
        for item, point in zip(read[0], points, strict=True):
            by_name.setdefault(item["phenomenon"], []).append(point)
        return 100 * float(np.mean([np.mean(own) for own in by_name.values()]))

    def points_by_byte(item: dict[str, Any]) -> float:
        good, bad = item["nll"] / item["bytes"], item["wrong_nll"] / item["wrong_bytes"]
        return 0.5 if good == bad else float(good < bad)

    sides = {
        "minimal_pairs.pairs.macro": [[item["points"] for item in items] for items in read],
        "minimal_pairs.pairs.per_byte.macro": [[points_by_byte(item) for item in items] for items in read],
    }
    assert sides["minimal_pairs.pairs.macro"] != sides["minimal_pairs.pairs.per_byte.macro"]
    for figure, (slow, fast) in sides.items():
        row = row_of(rows, figure)
        assert row["value"] == pytest.approx(macro(fast))
        assert row["difference"] == pytest.approx(macro(fast) - macro(slow))
        assert (row["items"], row["item"]) == (7, "sentences")
        found = []
        for bits in range(2**7):
            swapped = [bool(bits >> int(item["sen"][1:]) & 1) for item in read[0]]
            two = [
                macro([pair[turn ^ side] for pair, turn in zip(zip(slow, fast, strict=True), swapped, strict=True)])
                for side in (0, 1)
            ]
            found.append(abs(two[1] - two[0]))
        assert row["p"] == pytest.approx(np.mean(np.asarray(found) >= found[0] - 1e-9))
    assert row_of(rows, "minimal_pairs.pairs.phenomena.a.accuracy")["items"] == 5
    assert row_of(rows, "minimal_pairs.pairs.phenomena.b.accuracy")["items"] == 5


def test_shares_that_all_agree_have_exact_limits(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All right or all wrong in every run, an accuracy has Clopper's and Pearson's limits over the sentences."""
    names = ["a+b"] * 10 + ["a"] * 20 + ["b"] * 5
    wrong, right = 100 * (1 - 0.025 ** (1 / 30)), 100 * 0.025 ** (1 / 15)
    for words, count in ((["slow-1", "fast-1"], 1), (["slow-1", "fast-1", "slow-2", "fast-2"], 2)):
        for run in words:
            points = [0.0 if place % 2 == 0 else 1.0 for place in range(20)] + [0.0] * 20 + [1.0] * 5
            rewrite_pairs(run, names, points)
        rows = compare(words)
        for condition in (0, 1):
            a, b = (row_of(rows, f"minimal_pairs.pairs.phenomena.{name}.accuracy", condition) for name in "ab")
            assert (a["runs"], a["value"], a["low"], a["high"]) == pytest.approx((count, 0, 0, wrong))
            assert (b["runs"], b["value"], b["low"], b["high"]) == pytest.approx((count, 100, right, 100))
        macro = row_of(rows, "minimal_pairs.pairs.macro")
        ends = macro["value"], macro["low"], macro["high"]
        assert ends == pytest.approx((50, right / 2, 50 + wrong / 2))
        assert (macro["difference"], macro["difference_low"], macro["difference_high"], macro["p"]) == (0, 0, 0, 1)
        assert "Where the interval of a difference has no width" in capsys.readouterr().out


def test_holm_counts_one_likelihood_once(runs: Path) -> None:
    """All figures of one likelihood have one p; it is corrected for the other evidence of its table, not for them."""
    rows = [row for row in rows_of("slow-1", "fast-1", "coarse") if row["p"] is not None]
    for name in {row["condition"] for row in rows}:
        own = [row for row in rows if row["condition"] == name and row["figure"].startswith("test.")]
        assert len(own) == 4  # without the perplexity per token
        assert len({(row["p"], row["p_holm"]) for row in own}) == 1
    main_table = {
        (row["evidence"], row["condition"]): (row["p"], row["p_holm"]) for row in rows if row["family"] == "figures"
    }
    assert len(main_table) == 6  # likelihood, pairs, and pairs by byte, of two conditions
    ordered = sorted(main_table.values())
    running = 0.0
    for rank, (p, adjusted) in enumerate(ordered):
        running = max(running, min(1.0, (6 - rank) * p))
        assert adjusted == pytest.approx(running)
    phenomena = {(row["evidence"], row["condition"]) for row in rows if row["family"] == "phenomena"}
    assert len(phenomena) == 4


def test_two_equal_runs_differ_by_nothing(runs: Path) -> None:
    """A run and its copy under two names have differences of 0 with empty intervals, and p is 1."""
    shutil.copytree("slow-1", "copy")
    rows = compare(["slow-1", "copy", "--names", "this", "that"])
    compared = [row for row in rows if row["condition"] == "that"]
    assert compared
    for row in compared:
        assert (row["difference"], row["difference_low"], row["difference_high"]) == (0, 0, 0)
        assert (row["p"], row["p_holm"]) == (1, 1)


def test_figures_per_token_compare_with_one_tokenizer_only(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Perplexity per token, and curves of it, are there with one tokenizer; with two a line says why they are not."""
    rows = compare(["slow-1", "fast-1", "--output_dir", "same"])
    assert row_of(rows, "test.token_perplexity")["difference"] is not None
    assert {"curve-eval_perplexity.svg", "curve-loss.svg"} <= {path.name for path in Path("same").iterdir()}
    told = capsys.readouterr().out
    assert "left out" not in told
    assert "different numbers of words" not in told
    rows = compare(["slow-1", "coarse", "--output_dir", "other"])
    assert not [row for row in rows if "token" in row["figure"]]
    curves = {path.name for path in Path("other").glob("curve-*")}
    assert curves == {"curve-bits_per_byte.svg", "curve-learning_rate.svg", "curve-grad_norm.svg"}
    told = capsys.readouterr().out
    hashes = [read_run(Path(run)).tokenizer for run in ("slow-1", "coarse")]
    assert "Loss and perplexity per token of test are left out: they do not compare across tokenizers" in told
    assert all(found is not None and found[:12] in told for found in hashes)
    assert "Curves of loss, perplexity and throughput per token are left out" in told


def test_masked_models_stand_by_themselves(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pseudo figures have rows of their own without a difference to a causal model; pairs are compared, with a line."""
    rows = compare(["slow-1", "masked", "fast-1"])
    by_figure: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_figure.setdefault(row["figure"], []).append(row)
    assert len(by_figure["test.bits_per_byte"]) == 2
    (pseudo,) = by_figure["test.pseudo_bits_per_byte"]
    assert pseudo["difference"] is None
    assert "masked" not in str(by_figure["test.bits_per_byte"])
    assert "deberta" in pseudo["condition"]
    assert len(by_figure["minimal_pairs.pairs.macro"]) == 3
    told = capsys.readouterr().out
    assert "masked, so scored by pseudo-likelihood" in told
    assert not Path("runs/comparison/curve-eval_loss.svg").exists()
    svg = Path("runs/comparison/curve-bits_per_byte.svg").read_text(encoding="utf-8")
    assert "deberta" not in svg


def test_an_evaluation_has_no_facts_of_training(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of an evaluation is a condition of its own, under its name, without words seen and curves."""
    shutil.copytree("fast-1", "foreign", ignore=shutil.ignore_patterns("recipe.json", "metrics.jsonl", "corpus.json"))
    change("foreign/results.json", lambda results: [results.pop(key) for key in ("training", "milestones")])
    rows = compare(["slow-1", "foreign"])
    row = row_of(rows, "test.bits_per_byte")
    assert (row["condition"], row["words_seen"], row["seeds"]) == ("foreign", None, "unknown")
    told = capsys.readouterr().out
    assert "foreign (1 run, unknown words seen)" in told
    assert "Learning curves are left out of what has no metrics.jsonl: foreign." in told
    assert "How many words were seen is not known" in told


def test_an_evaluation_of_a_run_is_of_its_condition(runs: Path) -> None:
    """The folder of an evaluation of a final model has recipe, seed, words seen and curves of the run."""
    Path("scored").mkdir()
    shutil.copytree("slow-2/items", "scored/items", ignore=shutil.ignore_patterns("validation*"))
    results = json.loads(Path("slow-2/results.json").read_text(encoding="utf-8"))
    for name in ("training", "milestones"):
        del results[name]
    results["model"] = {"name": "slow-2/final_model", "objective": "causal"}
    Path("scored/results.json").write_text(json.dumps(results), encoding="utf-8")
    scored, run = read_run(Path("scored")), read_run(Path("slow-2"))
    for name in ("recipe", "seed", "words_seen", "tokenizer", "events", "validation"):
        assert getattr(scored, name) == getattr(run, name)
        assert getattr(scored, name)
    conditions = group([read_run(Path("slow-1")), scored])
    assert [len(own.runs) for own in conditions] == [2]
    curves, notes = learning_curves(conditions)
    assert "eval_loss" in curves
    assert notes == []
    shutil.rmtree("slow-2")
    assert read_run(Path("scored")).recipe is None


def test_tasks_that_some_lack_are_left_out(runs: Path) -> None:
    """What all runs were scored on is compared; for the rest a line names it and the runs without it."""
    Path("fast-1/items/pairs.jsonl").unlink()
    conditions = group([read_run(Path(name)) for name in ("slow-1", "fast-1")])
    rows, notes = compare_conditions(conditions, conditions[0])
    assert {row["figure"].split(".")[0] for row in rows} == {"test"}
    assert "pairs is left out: fast-1 has no scores of it." in notes


def test_words_seen_are_shown_and_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the words that each condition has seen, and a line when they differ."""
    change("fast-1/results.json", lambda results: results["training"].update(words_seen=7e5))
    rows = compare(["slow-1", "fast-1"])
    assert row_of(rows, "test.bits_per_byte")["words_seen"] == 7e5
    told = capsys.readouterr().out
    assert "different numbers of words" in told
    assert "700,000 words seen" in told


def test_multiple_choice_and_fine_tuning_by_hand(runs: Path) -> None:
    """Accuracy of choices is a plain mean, macro-F1 and accuracy are scikit-learn's, means over the fine-tunings."""
    draw = np.random.default_rng(0)
    labels = [str(label) for label in draw.choice(["खेल", "कला", "देश"], size=24)]
    expected: dict[str, dict[str, float]] = {}
    for run in ("slow-1", "fast-1"):
        points = draw.choice([0.0, 0.5, 1.0], size=12).tolist()
        asked = {"choices": ["ख", "ग"], "answer": 0}
        rows = [{"index": n, "context": f"क{n // 2}", **asked, "points": own} for n, own in enumerate(points)]
        write_items(run, "cloze", rows)
        # Seed 1 of one run calls a class that no text has: it counts for that seed alone.
        predicted = [
            {seed: label if draw.random() < 0.7 else ("कला", "वन")[seed == "1" and run == "fast-1"] for seed in "01"}
            for label in labels
        ]
        rows = [
            {"index": n, "text": f"t{n}", "label": label, "predicted": found, "points": 0}
            for n, (label, found) in enumerate(zip(labels, predicted, strict=True))
        ]
        write_items(run, "topics", rows)
        scores = [f1_score(labels, [found[seed] for found in predicted], average="macro") for seed in "01"]
        hits = sum(found[seed] == label for found, label in zip(predicted, labels, strict=True) for seed in "01")
        expected[run] = {"cloze": 100 * sum(points) / 12, "topics": 100 * sum(scores) / 2, "hits": 100 * hits / 48}

        def edit(results: dict[str, Any], own: dict[str, float] = expected[run]) -> None:
            ends = {"low": 0.0, "high": 100.0}
            results["multiple_choice"] = {"cloze": {"accuracy": {"value": own["cloze"], **ends}}}
            topics = {"macro_f1": {"value": own["topics"], **ends}, "accuracy": {"value": own["hits"], **ends}}
            results["fine_tuning"] = {"topics": topics}

        change(f"{run}/results.json", edit)
    rows = rows_of("slow-1", "fast-1")
    for figure, name, items in (
        ("multiple_choice.cloze.accuracy", "cloze", (6, "contexts")),
        ("fine_tuning.topics.macro_f1", "topics", (24, "texts")),
        ("fine_tuning.topics.accuracy", "hits", (24, "texts")),
    ):
        row = row_of(rows, figure)
        assert row["value"] == pytest.approx(expected["fast-1"][name])
        assert row["difference"] == pytest.approx(expected["fast-1"][name] - expected["slow-1"][name])
        assert (row["difference_unit"], row["items"], row["item"]) == ("points", *items)
        assert 0 < row["p"] <= 1
    evidence = {row["evidence"] for row in rows if row["figure"].startswith("fine_tuning")}
    assert len(evidence) == 2  # macro-F1 and accuracy have a p each


@pytest.mark.slow
def test_multiple_choice_and_fine_tuning_of_real_runs(
    tmp_path: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What evaluations write of choices and classifiers is read, with the values that results.json has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PROTOCOL, "num_train_epochs", 1)
    asked = [{"context": "राम", "choices": [f"{noun} है", f"{noun} हैं"], "answer": 0} for noun in NOUNS]
    Path("cloze.jsonl").write_text("".join(json.dumps(question) + "\n" for question in asked), encoding="utf-8")
    Path("topics").mkdir()
    for seed, (split, labels) in enumerate({"train": "कखग", "dev": "कख", "test": "कख"}.items()):
        texts = [f"{label} {hindi_sentences(1, seed=100 * seed + n)}\t{label}" for n, label in enumerate(labels * 6)]
        Path(f"topics/{split}.tsv").write_text("\n".join(["text\tlabel", *texts]), encoding="utf-8")
    for name, rate in (("slow", 1e-3), ("fast", 1e-2)):
        recipe = tiny_recipe(corpus_file, output_dir=name, learning_rate=rate)
        recipe["evaluation"]["tasks"] = ["cloze.jsonl", "topics"]
        Path(f"{name}.json").write_text(json.dumps(recipe), encoding="utf-8")
        run_main([f"{name}.json"])
    rows = rows_of("slow", "fast")
    for place, name in enumerate(("slow", "fast")):
        results = json.loads(Path(name, "results.json").read_text(encoding="utf-8"))
        topics = {
            f"fine_tuning.topics.{key}": results["fine_tuning"]["topics"][key] for key in ("macro_f1", "accuracy")
        }
        told = {"multiple_choice.cloze.accuracy": results["multiple_choice"]["cloze"]["accuracy"], **topics}
        for figure, entry in told.items():
            row = row_of(rows, figure, place)
            expected = [entry[key] for key in ("value", "low", "high")]
            assert [row[key] for key in ("value", "low", "high")] == pytest.approx(expected)


def test_learning_curves_have_every_metric_by_hand(runs: Path) -> None:
    """Curves hold the events of metrics.jsonl and milestones; bits a byte are the loss by tokens and bytes."""
    conditions = group([read_run(Path(name)) for name in ("slow-1", "fast-1", "fast-2")])
    curves, notes = learning_curves(conditions)
    assert notes == []
    assert {"loss", "learning_rate", "grad_norm", "eval_loss", "eval_perplexity", "bits_per_byte"} <= set(curves)
    lines = Path("fast-2/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    (name,) = (own.name for own in conditions if len(own.runs) == 2)
    assert curves["loss"][name][1] == [(e["step"], e["words_seen"], e["loss"]) for e in events if "loss" in e]
    measured = {
        event["step"]: (event["words_seen"], event.get("eval_loss", event.get("eval_milestone_loss")))
        for event in events
        if "eval_loss" in event or "eval_milestone_loss" in event
    }
    milestone = [event["step"] for event in events if "eval_milestone_loss" in event]
    assert milestone
    assert set(milestone) <= set(measured)
    assert curves["eval_loss"][name][1] == [(step, words, loss) for step, (words, loss) in sorted(measured.items())]
    kept = json.loads(Path("fast-2/corpus.json").read_text(encoding="utf-8"))["kept"]["validation"].values()
    tokens, size = (sum(entry[unit] for entry in kept) for unit in ("tokens", "bytes"))
    for (step, _, bits), (_, _, loss) in zip(
        curves["bits_per_byte"][name][1], curves["eval_loss"][name][1], strict=True
    ):
        assert bits == pytest.approx(loss * (tokens - 1) / size / math.log(2)), step


def test_other_validation_texts_have_no_common_curve(runs: Path) -> None:
    """Curves of the validation split are left out, with a line, when it is another."""
    rows = items_of("fast-1", "validation")
    write_items("fast-1", "validation", rows[1:])
    curves, notes = learning_curves(group([read_run(Path(name)) for name in ("slow-1", "fast-1")]))
    assert set(curves) == {"loss", "learning_rate", "grad_norm", "epoch_train_loss", "tokens_per_second"}
    assert notes == ["Curves of the validation split are left out: the runs have other validation texts."]


def test_a_condition_is_named_by_what_is_its_own(runs: Path) -> None:
    """Keys that train alike on all sides, seeds and folders are not in a name; those that differ all are."""
    for run in ("slow-1", "fast-1"):
        change(f"{run}/recipe.json", lambda recipe: recipe["training"].update(run_name="mine", report_to=["wandb"]))
    change("fast-2/recipe.json", lambda recipe: recipe["training"].update(logging_steps=7))
    change("fast-2/recipe.json", lambda recipe: recipe["evaluation"].update(tasks=[]))
    change("coarse/recipe.json", lambda recipe: recipe["model"]["model_config"].update(n_layer=3))
    read = {name: read_run(Path(name)) for name in RECIPES}
    found = group([read[name] for name in ("slow-1", "fast-1", "fast-2")])
    assert [(own.name, len(own.runs)) for own in found] == [("learning_rate=0.001", 1), ("learning_rate=0.01", 2)]
    found = group([read["slow-1"], read["coarse"]])
    assert [own.name for own in found] == ["algorithm=bpe, n_layer=2", "algorithm=character, n_layer=3"]
    assert [own.name for own in group([read["slow-1"], read["slow-2"]])] == ["slow-1"]
    assert TINY_GPT2["n_layer"] == 2


def test_a_key_that_a_recipe_lacks_has_its_default(runs: Path) -> None:
    """A recipe of an older version, and one that asks for what is the default, are of the same condition."""
    change("slow-1/recipe.json", lambda recipe: [recipe.pop("reporting"), recipe["model"].pop("mask_probability")])
    change("slow-2/recipe.json", lambda recipe: recipe["training"].update(adam_beta1=0.9, seed=3))
    rows = compare(["slow-1", "slow-2", "fast-1"])
    assert {(row["condition"], row["runs"]) for row in rows} == {("learning_rate=0.001", 2), ("learning_rate=0.01", 1)}


def test_differences_of_shares_stay_within_100_points(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs that swing have a wide interval, cut at what can be, and a line says that two are few."""
    for run, points in (("slow-1", 0.0), ("slow-2", 1.0), ("fast-1", 0.0), ("fast-2", 1.0)):
        write_items(run, "pairs", [{**item, "points": points} for item in items_of(run, "pairs")])
        change(f"{run}/results.json", partial(accuracies, value=100 * points))
    row = row_of(compare(["slow-1", "fast-1", "slow-2", "fast-2"]), "minimal_pairs.pairs.macro")
    assert (row["low"], row["high"], row["difference_low"], row["difference_high"]) == (0, 100, -100, 100)
    assert "Two runs hardly tell their spread" in capsys.readouterr().out


def test_names_make_conditions_of_any_runs(runs: Path) -> None:
    """Runs of one name are one condition, whatever their recipes; those of other recipes may share a seed."""
    rows = compare(["slow-1", "fast-1", "slow-2", "--names", "first", "first", "second"])
    assert {(row["condition"], row["runs"]) for row in rows} == {("first", 2), ("second", 1)}


def test_the_baseline_is_chosen_by_name_or_folder(runs: Path) -> None:
    """Differences are to the first condition, or to the one that is asked for by its name or a folder of it."""
    assert {row["baseline"] for row in rows_of("slow-1", "fast-1")} == {None, "learning_rate=0.001"}
    for asked in ("learning_rate=0.01", "./fast-1/"):
        rows = compare(["slow-1", "fast-1", "--baseline", asked])
        assert {row["baseline"] for row in rows} == {None, "learning_rate=0.01"}
        assert rows[0]["condition"] == "learning_rate=0.01"


def test_runs_of_one_condition_have_means_alone(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds of one recipe give values with their spread, and nothing to compare."""
    rows = compare(["slow-1", "slow-2"])
    assert {row["condition"] for row in rows} == {"slow-1"}
    assert all(row["difference"] is None and row["sd"] is not None for row in rows)
    assert "Nothing was compared" in capsys.readouterr().out
    assert not Path("runs/comparison/differences.svg").exists()


def test_what_cannot_be_compared_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each wrong command line or folder ends with exit code 2 and one line with the way out; nothing is written."""
    shutil.copytree("slow-1", "copy")
    for words, told in {
        (): "takes two folders or more",
        ("slow-1",): "takes two folders or more",
        ("slow-1", "./slow-1/"): "is given twice: leave one out",
        ("slow-1", "slow-3"): "slow-3: there is no such folder; did you mean 'slow-",
        ("slow-1", "slow-1.json"): "slow-1.json: there is no such folder",
        ("slow-1", "slow-1/items"): "holds no results.json",
        ("slow-1", "copy"): "runs of one recipe and one seed",
        ("slow-1", "fast-1", "--baseline", "learning_rate=0.1"): "did you mean 'learning_rate=0.01'?",
        ("slow-1", "fast-1", "--names", "a"): "expected a name for each of 2 folders, got 1",
        ("slow-1", "masked", "--names", "a", "a"): "a masked and a causal model",
        ("slow-1", "fast-1", "--plot"): "--plot: compare has no such flag",
        ("slow-1", "fast-1", "--output_dir"): "--output_dir: expected one value, got 0",
        ("slow-1", "fast-1", "--output_dir", "slow-1.json"): "slow-1.json cannot be written",
    }.items():
        assert told in refused(list(words), capsys), words


def test_unfinished_and_older_runs_are_refused_with_the_way_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without results is to be finished, one without items or with others of an evaluation to be evaluated."""
    Path("fast-2/results.json").unlink()
    assert "finish it: hindi-babylm run fast-2/recipe.json" in refused(["slow-1", "fast-2"], capsys)
    shutil.rmtree("slow-2/items")
    assert "hindi-babylm evaluate slow-2 writes a folder with them" in refused(["fast-1", "slow-2"], capsys)
    change("coarse/results.json", lambda results: results["test"]["bits_per_byte"].update(value=0.5))
    told = refused(["slow-1", "coarse"], capsys)
    assert "coarse: items/ and results.json are of two evaluations (test.bits_per_byte is" in told
    change("fast-1/results.json", lambda results: results["minimal_pairs"].clear())
    assert "fast-1/results.json lacks minimal_pairs.pairs.macro" in refused(["slow-1", "fast-1"], capsys)
    Path("masked/results.json").write_text("{", encoding="utf-8")
    assert "masked/results.json cannot be read" in refused(["slow-1", "masked"], capsys)


@pytest.mark.parametrize("edit", ["other", "fewer", "order"])
@pytest.mark.parametrize("name", ["test", "pairs"])
def test_other_texts_are_refused(runs: Path, capsys: pytest.CaptureFixture[str], name: str, edit: str) -> None:
    """Items of other texts, fewer of them or in another order end with one line that names both files."""
    rows = items_of("fast-1", name)
    if edit == "other":
        rows[3]["document_id" if name == "test" else "sen"] = "another"
    write_items("fast-1", name, {"other": rows, "fewer": rows[:-1], "order": rows[::-1]}[edit])
    told = refused(["slow-1", "fast-1"], capsys)
    assert told.startswith(f"error: slow-1/items/{name}.jsonl and fast-1/items/{name}.jsonl are scores of other texts")
    assert {"other": "line 4 is another", "fewer": "they begin alike", "order": "line 1 is another"}[edit] in told
    assert "hindi-babylm evaluate RUN" in told


def test_runs_with_nothing_in_common_are_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that share neither a text nor a task end with one line that names what there is."""
    Path("fast-1/items/test.jsonl").unlink()
    Path("slow-1/items/pairs.jsonl").unlink()
    assert "scored on nothing in common (test, pairs)" in refused(["slow-1", "fast-1"], capsys)


def test_conditions_are_values_from_python(runs: Path) -> None:
    """The stage works without the command, on conditions that were made by hand."""
    conditions = [Condition("a", [read_run(Path("slow-1"))]), Condition("b", [read_run(Path("fast-1"))])]
    rows, notes = compare_conditions(conditions, conditions[1])
    assert {row["baseline"] for row in rows} == {None, "b"}
    assert any("one of these two models" in line for line in notes)
