"""The whole pipeline through its command, against independent computations from the files on disk."""

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hindi_babylm.run import main
from tests.conftest import TINY_GPT2

WriteRecipe = Callable[..., Path]


def train(recipe: Path, *flags: str) -> dict[str, Any]:
    """Run a recipe and return its results."""
    main([str(recipe), *flags])
    folder = json.loads(recipe.read_text(encoding="utf-8"))["training"]["output_dir"]
    if "--output_dir" in flags:
        folder = flags[flags.index("--output_dir") + 1]
    results: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    return results


def step_losses(folder: Path) -> list[float]:
    """Return the training loss of each step from `metrics.jsonl`."""
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event["loss"] for event in events if "loss" in event]


def documents_of_split(recipe: Path, split: str) -> list[dict[str, Any]]:
    """Return the raw rows of a split, chosen with nothing but the hash rule of the documentation."""
    import hashlib

    content = json.loads(recipe.read_text(encoding="utf-8"))["corpus"]
    rows = [json.loads(line) for line in Path(content["sources"][0]["path"]).read_text(encoding="utf-8").splitlines()]
    chosen = []
    for row in rows:
        digest = hashlib.blake2b(f"split:0:{row['id']}".encode(), digest_size=8).digest()
        position = int.from_bytes(digest, "big") / 2**64
        test, validation = content["test_fraction"], content["test_fraction"] + content["validation_fraction"]
        name = "test" if position < test else "validation" if position < validation else "train"
        if name == split:
            chosen.append(row)
    return chosen


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_headline_equals_a_plain_loop_from_the_files_on_disk(write_recipe: WriteRecipe, architecture: str) -> None:
    """Bits per byte and perplexity of results.json equal a token-by-token loop over raw text and final_model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    recipe = write_recipe(architecture=architecture)
    results = train(recipe)
    folder = recipe.parent / "run"
    model = AutoModelForCausalLM.from_pretrained(folder / "final_model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "final_model")

    nats = size = tokens = words = 0.0
    for row in documents_of_split(recipe, "test"):
        text = row["text"]
        ids = [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        for position in range(1, len(ids)):
            # Windows of 32 that slide by 16: a token's context starts where the first window that predicts it does.
            start = 16 * max(0, math.ceil((position - 32) / 16))
            with torch.no_grad():
                logits = model(torch.tensor([ids[start:position]])).logits[0, -1]
            nats -= torch.log_softmax(logits.double(), dim=-1)[ids[position]].item()
        tokens += len(ids) - 1
        size += len(text.encode("utf-8"))
        words += len(text.split())

    test = results["test"]
    assert (test["tokens"], test["bytes"], test["words"]) == (tokens, size, words)
    assert test["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
    assert test["token_perplexity"]["value"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert test["word_perplexity"]["value"] == pytest.approx(math.exp(nats / words), rel=1e-4)
    assert test["loss"] == pytest.approx(nats / tokens, rel=1e-4)
    assert test["bits_per_byte"]["low"] < test["bits_per_byte"]["value"] < test["bits_per_byte"]["high"]


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "deberta-v2"])
def test_accumulation_does_not_change_the_losses(write_recipe: WriteRecipe, architecture: str) -> None:
    """A batch of 8 and 8 accumulated batches of 1 give the same loss at every step, the short last batch included."""
    recipe = write_recipe(
        architecture=architecture,
        num_train_epochs=2,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    train(recipe, "--output_dir", str(recipe.parent / "whole"), "--per_device_train_batch_size", "8")
    train(recipe, "--output_dir", str(recipe.parent / "split"), "--gradient_accumulation_steps", "8")
    whole, split = step_losses(recipe.parent / "whole"), step_losses(recipe.parent / "split")
    blocks = len(np.fromfile(recipe.parent / "whole" / "tokens" / "train" / "tokens.bin", dtype=np.uint16))
    assert len(whole) == 2 * math.ceil(math.ceil((blocks - 1) / 31) / 8)
    assert math.ceil((blocks - 1) / 31) % 8, "the corpus must leave a short batch for this test to mean anything"
    assert split == pytest.approx(whole, abs=1e-5)


def test_first_loss_is_the_mean_over_predicted_tokens(write_recipe: WriteRecipe) -> None:
    """The first logged loss equals a hand-made mean over the batch's shifted labels under the initial weights."""
    from torch.nn import functional
    from transformers import AutoTokenizer

    from hindi_babylm.curriculum.sampler import CurriculumSampler
    from hindi_babylm.modeling import build_model
    from hindi_babylm.packing import TokenStore, pack

    recipe = write_recipe()
    train(recipe)
    folder = recipe.parent / "run"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer")
    blocks = pack(TokenStore(folder / "tokens" / "train"), block_size=32)
    model = build_model(
        architecture="gpt2",
        tokenizer=tokenizer,
        block_size=32,
        dropout=0.0,
        model_config=TINY_GPT2,
        seed=42,
    ).eval()
    rows = CurriculumSampler(blocks.words(), seed=42).order(0)[:8]
    ids = torch.stack([blocks[int(row)]["input_ids"] for row in rows])
    labels = torch.stack([blocks[int(row)]["labels"] for row in rows])
    with torch.no_grad():
        logits = model(ids).logits
    expected = functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))
    assert step_losses(folder)[0] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_repacked_run_trains_on_every_token_once_an_epoch(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """In each epoch every token but the first is predicted once, in other rows, and the words of each step add up."""
    from hindi_babylm.packing import TokenStore, pack
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

    seen: dict[int, list[list[int]]] = {}
    original = HindiLanguageModelTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.setdefault(self.state.global_step, []).extend(inputs["labels"].tolist())
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", training_step)
    recipe = write_recipe(
        repack=True, num_train_epochs=3, gradient_accumulation_steps=2, dataloader_num_workers=workers
    )
    results = train(recipe)
    folder = recipe.parent / "run"
    store = TokenStore(folder / "tokens" / "train")
    per_epoch = results["training"]["steps"] // 3
    epochs = [[row for step in range(e * per_epoch, (e + 1) * per_epoch) for row in seen[step]] for e in range(3)]
    for epoch, rows in enumerate(epochs):
        predicted = Counter(token for row in rows for token in row[1:] if token != -100)
        assert not predicted - Counter(store.tokens.tolist()), f"epoch {epoch}"
        assert (Counter(store.tokens.tolist()) - predicted).total() == 1
    first, second = (set(map(tuple, epochs[epoch])) for epoch in (0, 1))
    assert len(first & second) < len(first) / 4, "in a long document boundaries may meet by chance"
    assert results["training"]["tokens"] == 3 * (len(store.tokens) - 1)
    assert results["training"]["words_seen"] == pytest.approx(3 * store.words.sum())

    worth: dict[tuple[int, ...], float] = {}  # of each row, found by itself: the share of each token's document
    shares = {document: store.words[document] / store.lengths()[document] for document in range(len(store))}
    blocks = pack(store, block_size=32, repack_seed=42)
    for epoch, rows in enumerate(epochs):
        order, _ = blocks.layout(epoch)
        flat = [(token, shares[n]) for n in order for token in store.tokens[store.offsets[n] : store.offsets[n + 1]]]
        for start in range(0, len(flat) - 1, 31):
            row = flat[start : start + 32]
            labels = [token for token, _ in row] + [-100] * (32 - len(row))
            worth[tuple(labels)] = sum(share for _, share in (row if start == 0 else row[1:]))
        assert set(map(tuple, rows)) <= set(worth)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    total = 0.0
    for event in (event for event in events if "loss" in event):
        total += sum(worth[tuple(row)] for row in seen[event["step"] - 1])
        assert event["words_seen"] == pytest.approx(total, abs=0.06)


def test_run_folder_holds_what_the_documentation_lists(write_recipe: WriteRecipe) -> None:
    """Every file of the run folder is there, is JSON where it says so, and agrees with the others."""
    recipe = write_recipe(num_train_epochs=2)
    results = train(recipe)
    folder = recipe.parent / "run"
    ledger = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if "loss" in event]
    evaluations = [event for event in events if "eval_loss" in event]
    train_words = sum(entry["words"] for entry in ledger["kept"]["train"].values())

    assert [event["step"] for event in steps] == list(range(1, results["training"]["steps"] + 1))
    assert all({"epoch", "words_seen", "loss", "learning_rate", "grad_norm"} <= event.keys() for event in steps)
    assert steps[-1]["words_seen"] == pytest.approx(2 * train_words, abs=0.1)
    assert results["training"]["words_seen"] == pytest.approx(2 * train_words)
    tokens = sum(entry["tokens"] for entry in ledger["kept"]["train"].values())
    assert results["training"]["tokens"] == 2 * (tokens - 1)
    assert ledger["seen"] == {"epochs": 2, "words_seen": pytest.approx(2 * train_words), "tokens": 2 * (tokens - 1)}
    assert len(evaluations) == 2
    assert all(event["eval_perplexity"] == pytest.approx(math.exp(event["eval_loss"])) for event in evaluations)
    assert sum(entry["words"] for entry in ledger["kept"]["test"].values()) == results["test"]["words"]
    assert environment["precision"] == results["training"]["precision"] == "fp32"
    assert len(environment["sha256"]) == 4
    assert (folder / "checkpoints" / "checkpoint_epoch_2.pt").exists()
    assert (folder / "checkpoints" / "checkpoint_best.pt").exists()
    assert not list(folder.rglob("*.tmp"))
    assert not list(folder.rglob("training_args.bin")), "a pickle that holds the hub token"


def test_final_model_opens_without_the_package(write_recipe: WriteRecipe) -> None:
    """A process that cannot import the package opens final_model with the Auto classes and generates from it."""
    recipe = write_recipe(architecture="llama")
    train(recipe)
    code = (
        "import sys; sys.modules['hindi_babylm'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"path = {str(recipe.parent / 'run' / 'final_model')!r}\n"
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)\n"
        "ids = tokenizer('राम ने', return_tensors='pt')\n"
        "assert set(ids) == {'input_ids', 'attention_mask'}, set(ids)\n"
        "print(len(model.generate(**ids, max_new_tokens=5, min_new_tokens=5)[0]) - ids['input_ids'].shape[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("5"), done.stderr


def test_same_recipe_gives_the_same_weights(write_recipe: WriteRecipe) -> None:
    """Two runs of one recipe, the second from the first's resolved recipe, end with identical weights."""
    from safetensors.torch import load_file

    recipe = write_recipe(num_train_epochs=1)
    train(recipe)
    main([str(recipe.parent / "run" / "recipe.json"), "--output_dir", str(recipe.parent / "again")])
    first = load_file(recipe.parent / "run" / "final_model" / "model.safetensors")
    second = load_file(recipe.parent / "again" / "final_model" / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_finished_run_is_told_and_not_repeated(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command on a finished run prints its summary and trains nothing."""
    recipe = write_recipe()
    train(recipe)
    before = (recipe.parent / "run" / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    train(recipe)
    assert "finished run" in capsys.readouterr().out
    assert (recipe.parent / "run" / "metrics.jsonl").read_bytes() == before


def test_folder_of_another_recipe_is_refused(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds another recipe's run is refused in one line with the differing key, and left alone."""
    recipe = write_recipe()
    train(recipe)
    before = {path: path.stat().st_mtime_ns for path in (recipe.parent / "run").rglob("[!.]*")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(recipe), "--learning_rate", "0.002"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {recipe.parent / 'run'} holds a run of another recipe (it differs in training.learning_rate): "
        "choose another --output_dir, or --overwrite to start again\n"
    )
    assert {path: path.stat().st_mtime_ns for path in (recipe.parent / "run").rglob("[!.]*")} == before


def test_overwrite_starts_again(write_recipe: WriteRecipe) -> None:
    """--overwrite replaces the run and leaves files that are not a run's where they are."""
    recipe = write_recipe()
    train(recipe)
    note = recipe.parent / "run" / "notes.txt"
    note.write_text("mine")
    results = train(recipe, "--learning_rate", "0.002", "--overwrite")
    assert note.read_text() == "mine"
    resolved = json.loads((recipe.parent / "run" / "recipe.json").read_text(encoding="utf-8"))
    assert resolved["training"]["learning_rate"] == 0.002
    assert len(step_losses(recipe.parent / "run")) == results["training"]["steps"]


def test_console_lines_are_the_specification_s(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """The console shows epoch, losses, perplexity and checkpoints, and closes with figures and places."""
    recipe = write_recipe(num_train_epochs=2)
    results = train(recipe)
    out = capsys.readouterr().out
    assert re.search(r"^Epoch 1/2$", out, re.M)
    assert re.search(r"^Epoch 2/2$", out, re.M)
    assert len(re.findall(r"^Train Loss: \d+\.\d{4}$", out, re.M)) == 2
    assert len(re.findall(r"^Val Loss: \d+\.\d{4}$", out, re.M)) == 2
    assert len(re.findall(r"^Perplexity: \d+\.\d{2}$", out, re.M)) == 2
    assert f"Checkpoint saved: {recipe.parent / 'run' / 'checkpoints' / 'checkpoint_epoch_1.pt'}" in out
    assert f"test bits per byte     {results['test']['bits_per_byte']['value']:.3f}" in out
    assert len(results["continuations"]) == 3
    assert all(sample["prompt"] in out for sample in results["continuations"])


def test_data_error_is_one_line(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    """A missing corpus ends the command with exit code 2 and one line, before a run folder is made."""
    recipe = write_recipe()
    done = subprocess.run(
        [sys.executable, "-m", "hindi_babylm.run", str(recipe), "--corpus", "nowhere.txt"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: command line: --corpus: 'nowhere.txt' matches no readable file")
    assert not (tmp_path / "run" / "corpus.json").exists()


def test_diverged_run_says_so(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose weights are no numbers ends in one line that says what to change."""
    recipe = write_recipe(learning_rate=1e30, max_grad_norm=0.0, eval_strategy="no", save_strategy="no")
    with pytest.raises(SystemExit) as stop:
        main([str(recipe)])
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert "lower learning_rate 1e+30, set max_grad_norm 1 or raise warmup_steps, and start again" in line


def test_prompt_longer_than_the_context(write_recipe: WriteRecipe) -> None:
    """A context of a few tokens ends a run with its samples all the same."""
    recipe = write_recipe()
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["model"]["block_size"] = 4
    recipe.write_text(json.dumps(content), encoding="utf-8")
    assert len(train(recipe)["continuations"]) == 3


def test_run_folder_may_be_moved(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run is known under another path to its folder."""
    recipe = write_recipe()
    train(recipe)
    (recipe.parent / "run").rename(recipe.parent / "moved")
    main([str(recipe), "--output_dir", str(recipe.parent / "moved")])
    assert "finished run" in capsys.readouterr().out


def test_curriculum_packs_short_documents_first_and_trains_every_word_once(write_recipe: WriteRecipe) -> None:
    """With one epoch a stage, documents lie in the store from few words to many and each word is seen once."""
    from hindi_babylm.packing import TokenStore

    recipe = write_recipe(curriculum="length", num_train_epochs=3)
    main([str(recipe)])
    words = TokenStore(recipe.parent / "run" / "tokens" / "train").words
    assert words.tolist() == sorted(words)
    assert words[0] < words[-1]
    corpus = json.loads((recipe.parent / "run" / "corpus.json").read_text(encoding="utf-8"))
    assert corpus["curriculum"] == {"name": "length", "rank_correlation_with_length": pytest.approx(1.0, abs=0.02)}
    results = json.loads((recipe.parent / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["training"]["words_seen"] == pytest.approx(words.sum())


def test_a_finished_run_gets_the_report_that_it_lacks(write_recipe: WriteRecipe) -> None:
    """A run writes report.html from its own files; the same command writes it again when it was deleted."""
    recipe = write_recipe()
    main([str(recipe)])
    report = recipe.parent / "run" / "report.html"
    before = report.read_bytes()
    results = json.loads((recipe.parent / "run" / "results.json").read_text(encoding="utf-8"))
    assert f"{results['test']['bits_per_byte']['value']:.3f}".encode() in before
    report.unlink()
    main([str(recipe)])
    assert report.read_bytes() == before


def test_a_new_evaluation_writes_the_report_anew(write_recipe: WriteRecipe) -> None:
    """Results that are computed again do not stand beside a report of the old ones."""
    recipe = write_recipe()
    main([str(recipe)])
    run = recipe.parent / "run"
    before = (run / "report.html").read_bytes()
    (run / "results.json").unlink()
    (run / "report.html").write_text("old", encoding="utf-8")
    main([str(recipe)])
    assert (run / "report.html").read_bytes() == before
