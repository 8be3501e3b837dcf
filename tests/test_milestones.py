"""Model folders at word milestones: when they are written, what is in them, and that they change nothing else."""

import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hindi_babylm.console import bar
from hindi_babylm.packing import TokenStore, pack
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.run import dry_run, main
from hindi_babylm.training import advice, callbacks, milestones
from hindi_babylm.training.milestones import milestone_name, milestone_words
from tests.runs import (
    EVERY_OTHER_STEP,
    EVERY_STEP,
    assert_equal_runs,
    back_to,
    events_of,
    finish,
    moved,
    results_of,
)

pytestmark = pytest.mark.usefixtures("unreported")

WriteRecipe = Callable[..., Path]
WORDS = [500, 1000, 1100, 2500, 10**9]
REACHED = ["chck_500", "chck_1K", "chck_1100", "chck_2500"]


def milestones_of(folder: Path) -> list[dict[str, Any]]:
    """Return what results.json says of the milestones."""
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["milestones"]
    return found


def test_the_milestones_of_babylm() -> None:
    """True stands for each million words up to ten and each ten million up to a hundred, 19 in all."""
    names = [milestone_name(words) for words in milestone_words(True)]
    millions = [*range(1, 11), *range(20, 101, 10)]
    assert names == [f"chck_{million}M" for million in millions]
    assert len(names) == 19


def test_milestones_are_written_at_the_first_step_past_them(write_recipe: WriteRecipe) -> None:
    """Each milestone that the run reaches has the weights of the first step with so many words, and no other has."""
    recipe = write_recipe(milestones=WORDS, num_train_epochs=2, save_total_limit=None, **EVERY_STEP)
    main([str(recipe)])
    folder = recipe.parent / "run"
    assert sorted(path.name for path in (folder / "revisions").iterdir()) == sorted(REACHED)
    seen = {event["step"]: event["words_seen"] for event in events_of(folder) if "loss" in event}
    for words, facts in zip(WORDS, milestones_of(folder), strict=False):
        step = min(step for step, amount in seen.items() if amount >= words)
        assert (facts["name"], facts["words"], facts["step"]) == (milestone_name(words), words, step)
        assert facts["words_seen"] == seen[step]
        revision = folder / "revisions" / facts["name"]
        checkpoint = torch.load(folder / "checkpoints" / f"checkpoint_step_{step}.pt", weights_only=True)
        for name, value in load_file(revision / "model.safetensors").items():
            assert torch.equal(value, checkpoint["model_state_dict"][name])
        # At these steps the run evaluates too: the figures are the same.
        (evaluation,) = [event for event in events_of(folder) if event["step"] == step and "eval_loss" in event]
        assert {name: facts[name] for name in ("eval_loss", "eval_perplexity")} == {
            name: evaluation[name] for name in ("eval_loss", "eval_perplexity")
        }
    assert [facts["name"] for facts in milestones_of(folder)] == REACHED


def test_a_revision_opens_and_has_its_perplexity(write_recipe: WriteRecipe) -> None:
    """AutoModel and AutoTokenizer open the folder, and a plain loop over the validation blocks gives its figures."""
    recipe = write_recipe(milestones=[1000], eval_strategy="no", save_strategy="no", architecture="llama")
    main([str(recipe)])
    folder = recipe.parent / "run"
    (facts,) = milestones_of(folder)
    revision = folder / "revisions" / "chck_1K"
    model: Any = AutoModelForCausalLM.from_pretrained(revision)
    assert model.config.use_cache
    tokenizer: Any = AutoTokenizer.from_pretrained(revision)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
    nats, tokens = [], 0
    blocks = pack(TokenStore(folder / "tokens" / "validation"), block_size=32)
    for index in range(len(blocks)):
        ids, labels = blocks[index]["input_ids"], blocks[index]["labels"]
        with torch.no_grad():
            odds = torch.log_softmax(model(ids[None]).logits[0].double(), dim=-1)
        for place in range(1, len(ids)):
            if labels[place] != -100:
                nats.append(-odds[place - 1, ids[place]].item())
                tokens += 1
    assert facts["eval_loss"] == pytest.approx(np.sum(nats) / tokens, rel=1e-5)
    assert facts["eval_perplexity"] == pytest.approx(math.exp(np.sum(nats) / tokens), rel=1e-5)


@pytest.mark.parametrize("evaluations", [{"eval_strategy": "no"}, {**EVERY_OTHER_STEP, "early_stopping_patience": 2}])
def test_milestones_do_not_change_the_training(write_recipe: WriteRecipe, evaluations: dict[str, Any]) -> None:
    """With dropout and early stopping, a run with milestones has the bits, losses and evaluations of one without."""
    settings = {"dropout": 0.2, "num_train_epochs": 3, "learning_rate": 0.05, **evaluations}
    main([str(write_recipe("with", output_dir="with", milestones=WORDS, **settings))])
    plain = write_recipe("plain", **settings)
    main([str(plain)])
    one, other = Path("with"), plain.parent / "run"
    ours = [event for event in events_of(one) if "eval_milestone_loss" in event]
    assert [event for event in events_of(one) if event not in ours] == events_of(other)
    first, second = (load_file(folder / "final_model" / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {**results_of(one), "milestones": []} == results_of(other)


def test_a_milestone_is_one_line_on_the_console(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each milestone is told in a line with its folder and perplexity, and opens no bar of an evaluation."""
    bars: list[str] = []

    def noted(name: str, *args: Any, **kwargs: Any) -> Any:
        bars.append(name)
        return bar(name, *args, **kwargs)

    monkeypatch.setattr(callbacks, "bar", noted)
    recipe = write_recipe(milestones=WORDS, eval_strategy="no", max_steps=8)
    main([str(recipe)])
    folder = recipe.parent / "run"
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("Milestone")] == [
        f"Milestone saved: {folder / 'revisions' / facts['name']} (perplexity {facts['eval_perplexity']:.2f})"
        for facts in milestones_of(folder)
    ]
    assert bars == ["Training"]


def test_the_time_of_a_milestone_is_none_of_the_training_s_speed(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a step takes a second and a milestone a thousand, every speed that is judged is that of the steps."""
    clock = itertools.count(1.0)
    measured: list[float] = []

    def slow(self: milestones.Milestones) -> dict[str, float]:
        for _ in range(1000):
            next(clock)
        return {"loss": 1.0, "perplexity": math.e}

    monkeypatch.setattr(advice, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(advice, "SPEED_SECONDS", 0.0)
    monkeypatch.setattr(advice, "speed_advice", lambda parameters, speed: measured.append(speed))
    monkeypatch.setattr(milestones.Milestones, "_evaluate", slow)
    recipe = write_recipe(milestones=WORDS, num_train_epochs=2, eval_strategy="no", logging_steps=1)
    main([str(recipe)])
    assert len(milestones_of(recipe.parent / "run")) == len(REACHED)
    assert measured == [8 * 32.0] * len(measured)
    assert measured


@pytest.fixture(autouse=True)
def in_an_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def test_the_log_has_a_line_for_each_step_with_a_milestone(write_recipe: WriteRecipe) -> None:
    """metrics.jsonl has the figures right after the loss of their step, whatever the steps between transfers."""
    recipe = write_recipe(milestones=WORDS, num_train_epochs=2, logging_steps=50)
    main([str(recipe)])
    folder = recipe.parent / "run"
    events = events_of(folder)
    assert [event["step"] for event in events] == sorted(event["step"] for event in events)
    logged = {}
    for before, event in itertools.pairwise(events):
        if "eval_milestone_loss" in event:
            assert "loss" in before
            assert before["step"] == event["step"]
            assert before["words_seen"] == event["words_seen"]
            logged[event["step"]] = (event["eval_milestone_loss"], event["eval_milestone_perplexity"])
    facts = milestones_of(folder)
    assert logged == {entry["step"]: (entry["eval_loss"], entry["eval_perplexity"]) for entry in facts}
    assert facts[1]["step"] == facts[2]["step"], "two milestones of one step have one line"


def killed_after(folder: Path, target: Path, step: int) -> Path:
    """Copy a run as it would be had it been killed after writing the checkpoint of `step`; return its recipe."""
    back_to(folder, target, step)
    for facts in milestones_of(folder):
        if facts["step"] > step:
            shutil.rmtree(target / "revisions" / facts["name"])
    return target / "recipe.json"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_writes_the_same_milestones(write_recipe: WriteRecipe, workers: int) -> None:
    """From before, between and after milestones: the same folders, bit for bit, and the same figures."""
    recipe = write_recipe(
        milestones=WORDS,
        dropout=0.2,
        num_train_epochs=2,
        gradient_accumulation_steps=2,
        dataloader_num_workers=workers,
        save_total_limit=50,
        **EVERY_OTHER_STEP,
    )
    main([str(recipe)])
    whole = recipe.parent / "run"
    steps = [facts["step"] for facts in milestones_of(whole)]
    for step in (2, 4, 6, steps[-1] + steps[-1] % 2):
        main([str(killed_after(whole, recipe.parent / f"from-{step}", step))])
        assert_equal_runs(whole, recipe.parent / f"from-{step}")


def test_a_milestone_that_is_written_again_stays_whole(write_recipe: WriteRecipe) -> None:
    """A run that was killed between a milestone and its next checkpoint writes it again, with the same bits."""
    recipe = write_recipe(milestones=WORDS, num_train_epochs=2, save_total_limit=50, **EVERY_OTHER_STEP)
    main([str(recipe)])
    whole = recipe.parent / "run"
    back_to(whole, recipe.parent / "again", 2)
    half = recipe.parent / "again" / "revisions" / ".chck_500.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    main([str(recipe.parent / "again" / "recipe.json")])
    assert_equal_runs(whole, recipe.parent / "again")
    assert not half.exists()


def test_a_kill_while_a_milestone_is_written_leaves_none(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails before its end leaves no folder under the milestone's name, and the next run writes it."""
    from hindi_babylm.training import export

    recipe = write_recipe(milestones=[1000], num_train_epochs=2, save_total_limit=50, **EVERY_STEP)
    main([str(moved(recipe, "whole"))])

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(export, "write_json", full)
        with pytest.raises(OSError, match="no space"):
            main([str(recipe)])
    assert list((recipe.parent / "run" / "revisions").iterdir()) == []
    main([str(recipe)])
    assert_equal_runs(recipe.parent / "whole", recipe.parent / "run")


def test_a_checkpoint_of_another_folder_brings_no_milestones(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that begins after a milestone says that it is missing, and writes those to come."""
    recipe = write_recipe(milestones=WORDS, num_train_epochs=2, save_total_limit=50, **EVERY_OTHER_STEP)
    main([str(recipe)])
    checkpoint = recipe.parent / "run" / "checkpoints" / "checkpoint_step_6.pt"
    capsys.readouterr()
    main([str(moved(recipe, "fork")), "--resume_from_checkpoint", str(checkpoint)])
    missing = [facts["name"] for facts in milestones_of(recipe.parent / "run") if facts["step"] <= 6]
    told = [line for line in capsys.readouterr().err.splitlines() if "is not there" in line]
    assert told == [
        f"Warning: {recipe.parent / 'fork' / 'revisions' / name} is not there, and this training begins after it"
        for name in missing
    ]
    assert missing
    later = [facts for facts in milestones_of(recipe.parent / "run") if facts["name"] not in missing]
    assert milestones_of(recipe.parent / "fork") == later


def test_overwrite_deletes_the_milestones(write_recipe: WriteRecipe) -> None:
    """Starting again leaves no milestone of the run before; a short run has none of BabyLM's."""
    recipe = write_recipe(milestones=WORDS)
    main([str(recipe)])
    assert (recipe.parent / "run" / "revisions" / "chck_1K").is_dir()
    main([str(recipe), "--overwrite", "--milestones"])
    assert json.loads((recipe.parent / "run" / "recipe.json").read_text(encoding="utf-8"))["training"]["milestones"]
    assert milestones_of(recipe.parent / "run") == []
    assert not (recipe.parent / "run" / "revisions").exists()


def test_the_flag_takes_a_switch_or_words(write_recipe: WriteRecipe) -> None:
    """`--milestones`, with true, false or words, means what the recipe's value does."""
    recipe = write_recipe()
    given: list[list[str]] = [[], ["true"], ["False"], ["1000"], ["2000", "1000"], ["[1000, 3000]"]]
    found = [parse_recipe(recipe, ["--milestones", *words]).training["milestones"] for words in given]
    assert found == [True, True, False, [1000], [2000, 1000], [1000, 3000]]


def test_the_plan_counts_the_milestones(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """--dry_run says how many milestones there will be, of what size, and takes their evaluations into the hours."""
    recipe = write_recipe(milestones=WORDS, num_train_epochs=2)
    facts = dry_run(parse_recipe(recipe))
    assert facts["milestones"] == len(REACHED)
    expected = facts["steps"] * facts["seconds_per_step"]
    expected += (facts["evaluations"] + len(REACHED)) * facts["seconds_per_evaluation"]
    assert facts["seconds"] == pytest.approx(expected)
    line = f"{'milestones':<16}4 of {facts['milestone_bytes'] / 1e6:.1f} MB, with an evaluation each"
    assert line in capsys.readouterr().out.splitlines()
    main([str(recipe)])
    size = (recipe.parent / "run" / "revisions" / "chck_1K" / "model.safetensors").stat().st_size
    assert facts["milestone_bytes"] == pytest.approx(size, rel=0.1)
    dry_run(parse_recipe(recipe, ["--milestones"]))
    assert "milestones" not in capsys.readouterr().out


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_two_processes_write_each_milestone_once(write_recipe: WriteRecipe) -> None:
    """On two processes the first alone writes, a resumed run writes the same bits, and figures are those of one."""
    settings = {"milestones": WORDS, "num_train_epochs": 2, "save_total_limit": 50, **EVERY_OTHER_STEP}
    recipe = write_recipe(**settings)
    done = finish(recipe, processes=2)
    whole = recipe.parent / "run"
    assert [line.split("/")[-1].split()[0] for line in done.stdout.splitlines() if "Milestone saved" in line] == REACHED
    finish(killed_after(whole, recipe.parent / "again", 4), processes=2)
    assert_equal_runs(whole, recipe.parent / "again")
    main([str(moved(recipe, "one"))])
    for one, two in zip(milestones_of(recipe.parent / "one"), milestones_of(whole), strict=True):
        assert [two.pop(key) for key in ("name", "weights")] == [one.pop(key) for key in ("name", "weights")]
        assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_sharded_weights_are_gathered(write_recipe: WriteRecipe) -> None:
    """Under FSDP each milestone opens as a whole model, with the figures of a run that is not sharded."""
    settings = {"milestones": WORDS, "num_train_epochs": 2, **EVERY_OTHER_STEP}
    main([str(write_recipe("plain", output_dir="plain", **settings))])
    recipe = write_recipe(fsdp=True, **settings)
    finish(recipe, processes=2, module="tests.fsdp_run")
    whole = recipe.parent / "run"
    for one, two in zip(milestones_of(Path("plain")), milestones_of(whole), strict=True):
        name = two.pop("name")
        assert (name, two.pop("weights")) == (one.pop("name"), one.pop("weights"))
        assert two == pytest.approx(one, rel=1e-4)
        first, second = (
            load_file(folder / "revisions" / name / "model.safetensors") for folder in (Path("plain"), whole)
        )
        assert first.keys() | {"lm_head.weight"} == second.keys(), "tied weights are two where they were sharded"
        assert all(torch.allclose(first[key], second[key], atol=1e-3) for key in first)
        AutoModelForCausalLM.from_pretrained(whole / "revisions" / name)
