"""What CONTRIBUTING.md says of adding things works as it is written, in a run of a recipe."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from hindi_babylm.corpus.hygiene.cleaning import STEPS
from hindi_babylm.corpus.reading import FORMATS
from hindi_babylm.curriculum.difficulty import DIFFICULTIES
from hindi_babylm.curriculum.pacing import PACINGS
from hindi_babylm.evaluation.tasks import TASKS
from hindi_babylm.modeling import ARCHITECTURES
from hindi_babylm.packing import TokenStore, pack
from hindi_babylm.run import main
from hindi_babylm.tokenization.algorithms import TOKENIZERS
from hindi_babylm.training.trackers import TRACKERS
from tests.conftest import tiny_recipe
from tests.logged_run import row_hash
from tests.runs import ROOT

REGISTRIES: list[dict[str, Any]] = [DIFFICULTIES, PACINGS, TOKENIZERS, ARCHITECTURES, TASKS, TRACKERS, FORMATS, STEPS]
HOW_TO = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## How to add\n")[1]
# Heading -> the block of Python, and the flag that uses what it adds.
ADDITIONS: dict[str, tuple[str, list[str]]] = {
    heading: (code, flag.split())
    for heading, code, flag in re.findall(
        r"^### An? (.*?)\n\n```python\n(.*?)^```\n\nUsed by `(--.*?)`", HOW_TO, re.M | re.S
    )
}


@pytest.fixture(autouse=True)
def restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and leave every registry as it was."""
    monkeypatch.chdir(tmp_path)
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


def run_with(addition: str, recipe: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Execute the block of an addition, run a recipe with its flag, and return the run folder and the block's names."""
    code, flag = ADDITIONS[addition]
    names: dict[str, Any] = {}
    before = [len(registry) for registry in REGISTRIES]
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    assert sum(len(registry) for registry in REGISTRIES) == sum(before) + 1
    Path("tiny.json").write_text(json.dumps(recipe), encoding="utf-8")
    main(["tiny.json", *flag])
    return Path("runs/tiny"), names


def results_of(folder: Path) -> dict[str, Any]:
    """Return what stands in results.json."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def test_every_addition_is_tested() -> None:
    """The eight kinds of additions are found, and each has a test here."""
    kinds = ["curriculum", "pacing", "tokenizer", "architecture", "task", "tracker", "source format", "step of hygiene"]
    assert list(ADDITIONS) == kinds


def test_a_curriculum(corpus_file: Path) -> None:
    """The documents are packed in the order of the new difficulty."""
    recipe = tiny_recipe(corpus_file, curriculum="length", num_train_epochs=3)
    folder, _ = run_with("curriculum", recipe)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "final_model")
    store = TokenStore(folder / "tokens" / "train")
    texts = [tokenizer.decode(store.document(index)) for index in range(len(store))]
    # The mean over words by another way than the block's.
    means = [sum(map(len, text.split())) / (text.count(" ") + 1) for text in texts]
    assert len(means) > 20
    assert means == sorted(means)
    assert json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["curriculum"]["curriculum"] == "word_length"


def test_a_pacing(corpus_file: Path, block_log: dict[int, list[str]]) -> None:
    """Each epoch of the run has all blocks in the order of the new pacing."""
    recipe = tiny_recipe(corpus_file, curriculum="length", num_train_epochs=2)
    folder, _ = run_with("pacing", recipe)
    rows = [row for step in sorted(block_log) for row in block_log[step]]
    blocks = pack(TokenStore(folder / "tokens" / "train"), block_size=32)
    expected = [row_hash(blocks[index]["input_ids"]) for index in range(len(blocks))]
    assert rows == 2 * expected


def test_a_tokenizer(corpus_file: Path) -> None:
    """The run's tokenizer is the new one, and loses nothing."""
    folder, _ = run_with("tokenizer", tiny_recipe(corpus_file))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "final_model")
    assert json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]["type"] == "ByteLevel"
    assert 256 + 4 < len(tokenizer) <= 512  # the tiny corpus has no more pairs to merge
    text = "राम ने 12.5 किलो आम खाए । 😀 क्षत्रिय"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    ledger = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    assert ledger["tokenizer"]["validation"]["round_trip"] == 1.0


def test_an_architecture(corpus_file: Path) -> None:
    """The run's model folder opens as the new architecture, of the recipe's size."""
    recipe = tiny_recipe(corpus_file)
    size = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    recipe["model"]["model_config"] = size
    folder, _ = run_with("architecture", recipe)
    model = AutoModelForCausalLM.from_pretrained(folder / "final_model")
    assert type(model).__name__ == "OPTForCausalLM"
    assert (model.config.hidden_size, model.config.max_position_embeddings) == (32, 32)
    assert results_of(folder)["model"]["architecture"] == "opt"


def test_a_task(corpus_file: Path) -> None:
    """The final figures have the accuracy of each phenomenon of the new suite."""
    folder, _ = run_with("task", tiny_recipe(corpus_file))
    suite = results_of(folder)["minimal_pairs"]["agreement"]
    assert {name: entry["pairs"] for name, entry in suite["phenomena"].items()} == {"gender": 1, "number": 1}


def test_a_tracker(corpus_file: Path) -> None:
    """The new tracker gets the loss of every step."""
    folder, _ = run_with("tracker", tiny_recipe(corpus_file))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [f"{event['step']},{event['loss']}" for event in map(json.loads, lines) if "loss" in event]
    assert (folder / "losses.csv").read_text(encoding="utf-8").splitlines() == losses
    assert len(losses) > 2


def test_a_source_format(corpus_file: Path) -> None:
    """The corpus of a run is read from files of the new format."""
    rows = [json.loads(line) for line in corpus_file.read_text(encoding="utf-8").splitlines()]
    Path("stories.json").write_text(json.dumps(rows), encoding="utf-8")
    folder, _ = run_with("source format", tiny_recipe(Path(os.devnull)))
    read = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["read"]
    assert read["documents"] == len(rows)
    assert read["words"] == sum(len(row["text"].split()) for row in rows)


def test_a_step_of_hygiene(corpus_file: Path) -> None:
    """The ledger of a run books what the new step took."""
    rows = [json.loads(line) for line in corpus_file.read_text(encoding="utf-8").splitlines()]
    dotted = [{**row, "text": row["text"] + " और फिर....."} for row in rows]
    Path("dotted.jsonl").write_text("\n".join(map(json.dumps, dotted)), encoding="utf-8")
    folder, _ = run_with("step of hygiene", tiny_recipe(Path("dotted.jsonl")))
    changed = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["changed"]
    assert set(changed) == {"ellipses"}
    assert changed["ellipses"]["touched"] == len(rows)
    assert changed["ellipses"]["bytes"] == 2 * len(rows)
