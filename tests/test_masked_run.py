"""A masked model from recipe to figures through the real command."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hindi_babylm.evaluation import pseudo_likelihood
from hindi_babylm.evaluation.tasks import load_final_model
from hindi_babylm.masking import IGNORED, MaskedBlocks
from hindi_babylm.modeling import build_model
from hindi_babylm.packing import TokenStore, pack
from hindi_babylm.run import main
from hindi_babylm.tokenization.training import train_tokenizer
from hindi_babylm.training.checkpoint import load_checkpoint
from tests.conftest import TINY_DEBERTA, tiny_recipe
from tests.runs import events_of, results_of

WriteRecipe = Callable[..., Path]


def masked_blocks(folder: Path, split: str, *, seed: int, probability: float = 0.15) -> MaskedBlocks:
    """Return the masked blocks of a run's split."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer")
    blocks = pack(TokenStore(folder / "tokens" / split), block_size=32)
    return MaskedBlocks(blocks, tokenizer=tokenizer, probability=probability, seed=seed)


def mean_nll(model: Any, rows: list[dict[str, torch.Tensor]]) -> float:
    """Return the mean NLL of the masked tokens of rows, row by row."""
    total, count = 0.0, 0
    for row in rows:
        inputs = {name: row[name][None] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            scores = torch.log_softmax(model.eval()(**inputs).logits[0].double(), dim=-1)
        for place in (row["labels"] != IGNORED).nonzero().flatten().tolist():
            total -= scores[place, row["labels"][place]].item()
            count += 1
    return total / count


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score few tokens, for speed."""
    monkeypatch.setattr(pseudo_likelihood, "SCORED_TOKENS", 100)


@pytest.mark.usefixtures("small_sample")
def test_a_masked_recipe_runs_to_its_figures(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """Losses are those of the masked tokens by hand; model, checkpoint, figures and table are a masked model's."""
    recipe = write_recipe(architecture="deberta-v2", num_train_epochs=2, seed=5)
    main([str(recipe)])
    out, folder = capsys.readouterr().out, recipe.parent / "run"
    results, events = results_of(folder), events_of(folder)

    model: Any = AutoModelForMaskedLM.from_pretrained(folder / "final_model")
    assert type(model).__name__ == type(load_final_model(folder / "final_model")[0]).__name__ == "DebertaV2ForMaskedLM"
    assert not list((folder / "final_model").glob("*.bin"))
    best, tokenizer = load_checkpoint(folder / "checkpoints" / "checkpoint_best.pt")
    ids = tokenizer("राम घर जाता है ।", return_tensors="pt")["input_ids"]
    assert torch.equal(model.eval()(ids).logits, best(ids).logits)

    validation = masked_blocks(folder, "validation", seed=0)
    evaluations = [event for event in events if "eval_loss" in event]
    expected = mean_nll(model, [validation[index] for index in range(len(validation))])
    assert min(event["eval_loss"] for event in evaluations) == pytest.approx(expected, abs=1e-5)

    train = masked_blocks(folder, "train", seed=5)
    fresh = build_model(
        architecture="deberta-v2", tokenizer=tokenizer, block_size=32, dropout=0.0, model_config=TINY_DEBERTA, seed=5
    )
    first = np.random.default_rng([5, 0]).permutation(len(train))[:8]
    assert events[0]["loss"] == pytest.approx(mean_nll(fresh, [train[index] for index in first]), abs=1e-5)

    assert results["model"]["objective"] == "masked"
    assert "continuations" not in results
    for split in ("validation", "test"):
        assert results[split]["scored_tokens"] == 100 < results[split]["tokens"]
        assert not {"perplexity", "loss", "bits_per_byte", "token_perplexity"} & results[split].keys()
    table = out[out.rindex("\nmodel ") :]
    assert f"test pseudo bits/byte    {results['test']['pseudo_bits_per_byte']['value']:.3f}" in table
    assert f"  scored                 100 of {results['test']['tokens']:,} tokens, each masked in turn" in table
    assert "it is no floor of pseudo bits" in table
    assert "perplexity" not in table
    assert "Continuations" not in table
    assert max(len(line) for line in table.splitlines() if str(folder) not in line) <= 80


@pytest.mark.usefixtures("small_sample")
def test_evaluations_do_not_hang_on_epoch_batch_or_seed(write_recipe: WriteRecipe) -> None:
    """A model that stands still has one validation loss, in every epoch and any batch; so has one of another seed."""
    losses = []
    for name, settings in {"one": {}, "rows": {"per_device_eval_batch_size": 1}, "order": {"data_seed": 9}}.items():
        recipe = write_recipe(
            name,
            architecture="deberta-v2",
            num_train_epochs=2,
            learning_rate=1e-30,
            weight_decay=0.0,
            output_dir=str(Path(write_recipe("x")).parent / name),
            **settings,
        )
        main([str(recipe)])
        losses.append([event["eval_loss"] for event in events_of(recipe.parent / name) if "eval_loss" in event])
    assert losses[0] == pytest.approx([losses[0][0]] * 2, abs=1e-9)
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    assert losses[2] == pytest.approx(losses[0], abs=1e-6)


@pytest.mark.parametrize("architecture", ["deberta-v2", "gpt2"])
def test_the_plan_of_a_masked_run(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str], architecture: str
) -> None:
    """A dry run counts the tokens that a masked model reads, and does not say that it predicts them all."""
    main([str(write_recipe(architecture=architecture)), "--dry_run"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("will be seen")]
    assert ("predicted" in line) == (architecture == "gpt2")


def test_a_tokenizer_without_a_mask_is_refused(
    tmp_path: Path, write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tokenizer that cannot mask is refused in one line, before the run folder is touched."""
    whole: Any = train_tokenizer(["राम घर गया"] * 3, vocab_size=512)
    bare = type(whole)(tokenizer_object=whole.backend_tokenizer, eos_token="</s>", pad_token="<pad>")
    bare.save_pretrained(tmp_path / "bare")
    recipe = json.loads(write_recipe(architecture="deberta-v2").read_text(encoding="utf-8"))
    recipe["tokenizer"] = {"tokenizer": str(tmp_path / "bare")}
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main([str(path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert f"error: {path}: tokenizer.tokenizer: '{tmp_path / 'bare'}' has no mask token, which a masked" in error
    assert not (tmp_path / "run" / "recipe.json").exists()


# A word of the first list is always followed by its own of the second.
FIRST = ["राम", "सीता", "घर", "नदी", "पानी", "किताब", "राजा", "चाँद"]
SECOND = ["खाता", "गाती", "बड़ा", "बहती", "मीठा", "पढ़ी", "सोया", "गोल"]


@pytest.mark.usefixtures("small_sample")
def test_a_masked_model_learns(tmp_path: Path) -> None:
    """On a language in which a word tells its neighbour, masked words of the test split are found beyond chance."""
    draw = random.Random(0)
    rows = []
    for number in range(60):
        pairs = [draw.randrange(len(FIRST)) for _ in range(40)]
        text = " ".join(f"{FIRST[pair]} {SECOND[pair]}" for pair in pairs)
        rows.append(json.dumps({"text": text, "id": f"d{number}"}))
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    settings: Any = {"num_train_epochs": 9, "warmup_steps": 10, "muon_learning_rate": 0.02}
    recipe = tiny_recipe(tmp_path / "corpus.jsonl", "deberta-v2", output_dir=str(tmp_path / "run"), **settings)
    recipe["corpus"] |= {"decontaminate": False, "hygiene": []}
    recipe["model"] |= {"mask_probability": 0.3}
    (tmp_path / "r.json").write_text(json.dumps(recipe), encoding="utf-8")
    main([str(tmp_path / "r.json")])

    model: Any = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "final_model").eval()
    blocks = masked_blocks(tmp_path / "run", "test", seed=1)
    counts = Counter(TokenStore(tmp_path / "run" / "tokens" / "train").tokens.tolist())
    del counts[model.config.eos_token_id]
    ((most_frequent, _),) = counts.most_common(1)
    found = guessed = total = 0
    for index in range(len(blocks)):
        row = blocks[index]
        hidden = (row["labels"] != IGNORED) & (row["input_ids"] == blocks.mask_token_id)
        with torch.no_grad():
            logits = model(input_ids=row["input_ids"][None], attention_mask=row["attention_mask"][None]).logits[0]
        found += int((logits.argmax(dim=-1) == row["labels"])[hidden].sum())
        guessed += int((row["labels"] == most_frequent)[hidden].sum())
        total += int(hidden.sum())
    assert total > 100
    assert guessed / total < 0.25
    assert found / total > 0.6
