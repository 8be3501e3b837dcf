"""EleutherAI's lm-evaluation-harness scores our exported models as we do, and without code of theirs."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.evaluation.harness import load_task, macro_average, score_pair
from hindi_babylm.evaluation.tasks import TASKS
from hindi_babylm.run import main
from hindi_babylm.storage import read_json
from tests.conftest import WORDS

HARNESS = Path(__file__).parent.parent / "hindi_babylm" / "data" / "harness"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Return a TSV of pairs of many lengths, with two phenomena of unequal size, quotation marks and outer spaces."""
    draw = random.Random(5)
    rows = ["phenomenon\tsen\twrong_sen"]
    for number in range(30):
        words = draw.choices(WORDS, k=1 + number % 11)
        wrong = [*words[:-1], draw.choice([word for word in WORDS if word != words[-1]])]
        marks = (' "', '" ') if number % 5 == 0 else ("", "")
        rows.append("\t".join([f"kind_{number % 3 == 0}", *(" ".join(part).join(marks) for part in (words, wrong))]))
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_harness_agrees_pair_for_pair(
    write_recipe: Callable[..., Path], pairs: Path, architecture: str, tmp_path: Path
) -> None:
    """The log-probability of each sentence, the points of each pair and their macro average are those of our run."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    recipe = write_recipe(architecture=architecture)
    content = read_json(recipe)
    content["model"]["block_size"] = 128
    content["evaluation"]["tasks"] = [str(pairs)]
    recipe.write_text(json.dumps(content), encoding="utf-8")
    main([str(recipe)])
    folder = tmp_path / "run"
    items = [json.loads(line) for line in (folder / "items" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]

    results: Any = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder / "final_model"), "dtype": "float32", "trust_remote_code": False},
        tasks=["hindi_pairs_pud"],
        task_manager=TaskManager(include_path=str(HARNESS), metadata={"suite": str(pairs)}),
        batch_size=7,  # rows of many lengths are padded
        device="cpu",
        log_samples=True,
    )
    samples = sorted(results["samples"]["hindi_pairs_pud"], key=lambda sample: sample["doc_id"])
    assert len(samples) == len(items) == 30
    for sample, item in zip(samples, items, strict=True):
        assert sample["doc"]["sen"] == item["sen"]
        theirs = [float(response[0][0]) for response in sample["resps"]]
        assert theirs == pytest.approx([-item["nll"], -item["wrong_nll"]], rel=1e-5)
        assert sample["acc"] == item["points"]
    ours = read_json(folder / "results.json")["minimal_pairs"]["pairs"]
    assert 100 * results["results"]["hindi_pairs_pud"]["macro,none"] == pytest.approx(ours["macro"]["value"])
    assert 0 < ours["macro"]["value"] < 100


def test_the_harness_finds_the_bundled_suites() -> None:
    """Each bundled suite is a task of the harness under its own name, with all of its pairs."""
    tasks = pytest.importorskip("lm_eval.tasks")
    bundled = {name: place for name, place in TASKS.items() if isinstance(place, Path) and place.suffix == ".tsv"}
    assert sorted(path.stem for path in HARNESS.glob("*.yaml")) == sorted(bundled)
    loaded_tasks = tasks.TaskManager(include_path=str(HARNESS), include_defaults=False).load(sorted(bundled))["tasks"]
    for name, place in bundled.items():
        loaded, lines = loaded_tasks[name], place.read_text(encoding="utf-8").splitlines()
        assert len(loaded.test_docs()) == len(lines) - 1
        assert loaded.doc_to_choice(loaded.test_docs()[0])[0] in lines[1]


def test_ties_count_one_half() -> None:
    """Two sentences of one probability are half a point, which the harness's own accuracy counts as right."""
    doc = {"phenomenon": "number"}
    points = [score_pair(doc, [(good, False), (bad, False)])["acc"] for good, bad in ((-1, -2), (-2, -2), (-3, -2))]
    assert points == [1.0, 0.5, 0.0]


def test_the_average_weighs_phenomena_and_not_pairs() -> None:
    """A phenomenon of one pair counts as much as one of nine."""
    assert macro_average([("many", 1.0)] * 9 + [("one", 0.0)]) == 0.5


def test_a_suite_is_a_name_or_a_path(pairs: Path) -> None:
    """What the harness is given are the sentences of the file."""
    rows = load_task(suite=str(pairs), version=1.0)["test"]
    assert rows[1]["sen"] == pairs.read_text(encoding="utf-8").splitlines()[2].split("\t")[1]
