"""The plan of --dry_run against the run that follows it."""

import json
import math
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.run import dry_run, main
from tests.runs import command, environment
from tests.test_console import COLUMNS, width

WriteRecipe = Callable[..., Path]


def files_of(folder: Path) -> dict[Path, bytes]:
    """Return the bytes of every file under a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def planned(recipe: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what --dry_run prints of a recipe."""
    capsys.readouterr()
    main([str(recipe), "--dry_run"])
    return capsys.readouterr().out


def figures(pattern: str, table: str) -> list[float]:
    """Return the numbers that the groups of a pattern find in a table."""
    found = re.search(pattern, table, re.M)
    assert found, table
    return [float(group.replace(",", "")) for group in found.groups()]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"num_train_epochs": 2, "eval_strategy": "epoch"}, id="plain"),
        pytest.param(
            {"curriculum": "length", "num_train_epochs": 3, "gradient_accumulation_steps": 4, "warmup_steps": 3},
            id="curriculum",
        ),
        pytest.param(
            {"curriculum": "lexical", "pacing": "competence", "num_train_epochs": 2, "global_batch_size": 16},
            id="competence",
        ),
        pytest.param({"max_steps": 1, "eval_strategy": "no", "save_strategy": "no"}, id="one step"),
    ],
)
def test_the_plan_is_what_the_run_becomes(
    write_recipe: WriteRecipe, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps, warmup, words, tokens, parameters and evaluations of the plan are those of the run."""
    recipe = write_recipe(**settings)
    table = planned(recipe, capsys)
    assert [line for line in table.splitlines() if width(line) > COLUMNS and "corpus.jsonl" not in line] == []
    assert not (recipe.parent / "run").exists()
    main([str(recipe)])
    folder = recipe.parent / "run"
    said = capsys.readouterr().out
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    kept = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["kept"]
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    training = results["training"]

    for split, sources in kept.items():
        amounts = [sum(entry[unit] for entry in sources.values()) for unit in ("documents", "words", "tokens")]
        *counted, ratio, blocks = figures(rf"^{split} +" + r" +".join([r"([\d,.]+)"] * 5) + "$", table)
        assert counted == amounts
        assert ratio == pytest.approx(amounts[2] / amounts[1], abs=0.005)
        assert blocks == -(-(amounts[2] - 1) // 31)  # blocks of 32 tokens share one
    steps, epochs, per_epoch = figures(r"^steps +([\d,]+) = ([\d.]+) epochs of ([\d,]+)$", table)
    assert steps == training["steps"] == max(event["step"] for event in events)
    assert epochs == pytest.approx(training["epochs"], abs=0.005)
    assert per_epoch == next((event["step"] for event in events if event["epoch"] == 1.0), per_epoch)
    assert figures(r"^warmup +([\d,]+) steps$", table) == figures(r"^Schedule: .* warmup (\d+)", said)
    words, tokens = figures(r"^will be seen +([\d,]+) words, ([\d,]+) predicted tokens$", table)
    assert words == round(training["words_seen"])
    assert tokens == training["tokens"]
    assert figures(r"^model +([\d,]+) parameters$", table) == [results["model"]["parameters"]]
    (evaluations,) = figures(r"^evaluations +([\d,]+) of ", table)
    assert evaluations == sum("eval_loss" in event for event in events)


def test_the_stages_of_a_curriculum(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """The stages add up to the run; the first texts of each are of the corpus and get longer, as the plan tells."""
    from hindi_babylm.recipe.parsing import parse_recipe

    recipe = write_recipe(curriculum="length", num_train_epochs=4)
    facts = dry_run(parse_recipe(recipe, ["--stage_epochs", "1", "2", "1"]))
    told = capsys.readouterr().out
    stages = facts["stages"]
    assert [stage["epochs"] for stage in stages] == [1, 2, 1]
    assert sum(stage["steps"] for stage in stages) == facts["steps"]
    assert sum(stage["words_seen"] for stage in stages) == pytest.approx(facts["words_seen"])
    assert sum(stage["blocks"] for stage in stages) == facts["splits"]["train"]["blocks"]
    source = Path(json.loads(recipe.read_text(encoding="utf-8"))["corpus"]["sources"][0]["path"])
    texts = [json.loads(line)["text"].split() for line in source.read_text(encoding="utf-8").splitlines()]
    lengths = []
    for stage in stages:
        assert len(stage["texts"]) == 3
        for beginning in stage["texts"]:
            (found,) = [text for text in texts if text[:8] == beginning.split()]
            lengths.append(len(found))
            assert f"  {beginning if len(beginning) <= 33 else beginning[:30] + '...'}\n" in told
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    correlation = r"^Curriculum: length, rank correlation with the words of documents 1\.00$"
    assert re.search(correlation, told, re.MULTILINE)


def test_the_stages_of_a_cumulative_curriculum(write_recipe: WriteRecipe) -> None:
    """A stage has the blocks of those before it, a pass over n stages takes n epochs, and words add up exactly."""
    from hindi_babylm.recipe.parsing import parse_recipe

    recipe = write_recipe(curriculum="lexical", pacing="cumulative", num_train_epochs=7)
    facts = dry_run(parse_recipe(recipe, ["--stage_epochs", "1", "3"]))
    easy, both = facts["stages"]
    train = facts["splits"]["train"]
    assert (easy["blocks"], both["blocks"]) == (-(-train["blocks"] // 2), train["blocks"])
    assert (easy["epochs"], both["epochs"]) == (1, 6)
    assert easy["steps"] + both["steps"] == facts["steps"]
    assert both["words_seen"] == pytest.approx(3 * train["words"])
    assert facts["words_seen"] == pytest.approx(easy["words_seen"] + both["words_seen"])
    assert set(easy["texts"]).isdisjoint(both["texts"])


def test_competence_at_some_points_of_time(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """The table goes from the easiest block to all, by the formula, with the steps and words until then."""
    from hindi_babylm.recipe.parsing import parse_recipe

    recipe = write_recipe(curriculum="length", pacing="competence", num_train_epochs=3)
    facts = dry_run(parse_recipe(recipe, []))
    assert "stages" not in facts
    rows, blocks = facts["competence"], facts["splits"]["train"]["blocks"]
    assert [row["epoch"] for row in rows] == [0.0, 0.2, 0.5, 1.0, 1.5, 2.0]
    assert [row["step"] for row in rows] == [round(row["epoch"] * facts["steps_per_epoch"]) for row in rows]
    for row in rows:
        share = math.sqrt(row["epoch"] * (1 - 0.01**2) / 2 + 0.01**2)
        assert row["blocks"] == pytest.approx(max(1, share * blocks), abs=1)
        assert row["share"] == row["blocks"] / blocks
    assert rows[-1]["blocks"] == blocks
    seen = [row["words_seen"] for row in rows]
    assert seen == sorted(seen)
    assert seen[0] == 0 < seen[-1] < facts["words_seen"]
    table = capsys.readouterr().out
    assert figures(r"^2\.00 +([\d,]+) +([\d.]+) % +([\d,]+) +([\d,]+)  ", table) == [
        rows[-1]["step"],
        100.0,
        blocks,
        round(seen[-1]),
    ]
    assert [line for line in table.splitlines() if width(line) > COLUMNS and "corpus.jsonl" not in line] == []


def test_a_plan_cut_short_shows_the_competence_that_it_reaches(write_recipe: WriteRecipe) -> None:
    """With max_steps the points of time after the last step are left out."""
    from hindi_babylm.recipe.parsing import parse_recipe

    recipe = write_recipe(curriculum="length", pacing="competence", max_steps=7)
    facts = dry_run(parse_recipe(recipe, []))
    assert [row["step"] for row in facts["competence"]][-1] <= 7
    assert 1 < len(facts["competence"]) < 6


def test_memory_and_time_are_measured(write_recipe: WriteRecipe) -> None:
    """Weights, gradients, moments and logits have their sizes; the hours follow from what a step and a part took."""
    from hindi_babylm.recipe.parsing import parse_recipe

    facts = dry_run(parse_recipe(write_recipe(num_train_epochs=3), ["--per_device_train_batch_size", "4"]))
    memory, parameters = facts["memory"], facts["parameters"]
    assert memory["weights"] == memory["gradients"] == 4 * parameters
    assert 8 * parameters < memory["optimizer"] < 8 * parameters + 4 * 100  # and a step count a tensor
    # A GPT-2 has 12 d^2 + 13 d weights a layer, 2 d at the end, positions, and the vocabulary: here d = 32.
    vocabulary = (parameters - 2 * (12 * 32**2 + 13 * 32) - 2 * 32 - 32 * 32) // 32
    assert memory["logits"] == 2 * 4 * 4 * 32 * vocabulary
    assert memory["peak"] > memory["weights"] + memory["gradients"] + memory["optimizer"] + memory["logits"]
    assert memory["activations"] > 0
    assert memory["together"] == sum(bytes for part, bytes in memory.items() if part not in ("peak", "together"))
    assert 1 <= facts["timed_steps"] < facts["steps"]
    times = facts["steps"] * facts["seconds_per_step"] + 3 * facts["seconds_per_evaluation"]
    assert facts["seconds"] == pytest.approx(times)
    assert min(facts["seconds_per_step"], facts["seconds_per_evaluation"]) > 0


def test_the_state_of_muon_is_half_of_adamws(write_recipe: WriteRecipe) -> None:
    """Muon keeps 4 bytes a weight of the hidden matrices, AdamW 8 of every other, an average of weights 4."""
    from hindi_babylm.recipe.parsing import parse_recipe

    recipe = parse_recipe(write_recipe(muon_learning_rate=0.01, ema_decay=0.9), ["--gradient_checkpointing", "true"])
    facts = dry_run(recipe)
    assert facts["memory"]["average"] == 4 * facts["parameters"]
    matrices = 2 * 12 * 32**2
    found = facts["memory"]["optimizer"]
    assert 0 <= found - (4 * matrices + 8 * (facts["parameters"] - matrices)) < 4 * 100  # and step counts
    plain = dry_run(parse_recipe(write_recipe(), []))["memory"]
    assert facts["memory"]["activations"] < plain["activations"]


def test_the_memory_of_a_sharded_tensor_is_that_of_its_shard() -> None:
    """A sharded tensor counts with the bytes of this process, an unsharded one with all of its bytes."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from hindi_babylm.training.plan import _bytes_here

    # The first of two processes, the other of which need not be there.
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        sharded = distribute_tensor(torch.ones(8, 3), mesh, [Shard(0)])
        assert _bytes_here([sharded]) == 4 * 3 * 4
        assert _bytes_here([sharded, torch.ones(8, 3)]) == 4 * 3 * 4 + 8 * 3 * 4
    finally:
        torch.distributed.destroy_process_group()


def test_a_dry_run_leaves_nothing(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A dry run over a finished run of another recipe touches no file, leaves none, and starts no tracker."""
    recipe = write_recipe()
    main([str(recipe)])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(tmp_path)
    before = files_of(tmp_path)
    main([str(recipe), "--dry_run", "--learning_rate", "0.5", "--report_to", "wandb", "--overwrite"])
    assert "Dry run: nothing was trained" in capsys.readouterr().out
    assert files_of(tmp_path) == before
    assert list(scratch.iterdir()) == []


def test_a_dry_run_that_resumes_is_refused(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint to resume from has no place in a plan, and is refused in one line."""
    recipe = write_recipe()
    checkpoint = recipe.with_name("x.pt")
    checkpoint.touch()
    with pytest.raises(SystemExit) as stop:
        main([str(recipe), "--dry_run", "--resume_from_checkpoint", str(checkpoint)])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: command line: --resume_from_checkpoint: --dry_run plans a whole run: leave resume_from_checkpoint out\n"
    )


def test_memory_that_does_not_suffice_is_told(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan whose steps run out of memory ends in one line with the key to lower."""
    import torch

    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

    def burst(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", burst)
    with pytest.raises(SystemExit) as stop:
        main([str(write_recipe()), "--dry_run"])
    assert stop.value.code == 2
    assert (
        "out of memory with per_device_train_batch_size 8 and block_size 32: set per_device_train_batch_size 4"
        in capsys.readouterr().err
    )


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_two_processes_plan_together(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    """Two processes stop after the same step, print one table, and leave nothing behind."""
    recipe, scratch = write_recipe(), tmp_path / "scratch"
    scratch.mkdir()
    words = [*command(recipe, processes=2), "--dry_run", "--per_device_train_batch_size", "2"]
    surroundings = environment(TMPDIR=str(scratch))
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=surroundings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Dry run: nothing was trained") == done.stdout.count("Corpus: ") == 1
    assert "find_unused_parameters" not in done.stderr
    assert not (recipe.parent / "run").exists()
    assert [path.name for path in scratch.iterdir() if path.name.startswith("hindi-babylm-plan")] == []
