"""A run that was stopped and continued by the same command equals one that never stopped."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hindi_babylm.lock import locked
from hindi_babylm.run import main
from tests.runs import (
    EVERY_FOURTH_STEP,
    EVERY_OTHER_STEP,
    EVERY_STEP,
    assert_equal_runs,
    back_to,
    events_of,
    moved,
    results_of,
)

pytestmark = pytest.mark.usefixtures("unreported")

WriteRecipe = Callable[..., Path]


def cells() -> list[Any]:
    """Return every combination of two choices of five settings; eight that hold every pair of choices are not slow."""
    every = []
    for choice in itertools.product((0, 1), repeat=5):
        architecture, curriculum, accumulation, workers, precision = choice
        pairwise = workers == architecture ^ curriculum and precision == architecture ^ accumulation
        settings = {
            "architecture": ("gpt2", "llama")[architecture],
            "curriculum": ("none", "length")[curriculum],
            "gradient_accumulation_steps": (1, 3)[accumulation],
            "dataloader_num_workers": (0, 2)[workers],
            "precision": ("fp32", "bf16")[precision],
            "muon_learning_rate": (None, 0.01)[curriculum ^ accumulation],
            "ema_decay": (None, 0.9)[architecture ^ accumulation],
            "document_attention": accumulation == 1,
            "repack": curriculum == 0 and workers == 1,
        }
        name = "-".join(str(value) for value in settings.values())
        every.append(pytest.param(settings, id=name, marks=() if pairwise else pytest.mark.slow))
    return every + [pytest.param(settings, id="-".join(map(str, settings.values()))) for settings in MASKED]


# A masked model with and without what acts on masks: workers, parts of a batch, a curriculum; both optimizers.
MASKED = [
    {"architecture": "deberta-v2", "curriculum": "none", "dataloader_num_workers": 2, "precision": "bf16"},
    {
        "architecture": "deberta-v2",
        "curriculum": "length",
        "gradient_accumulation_steps": 3,
        "muon_learning_rate": 0.01,
    },
]


@pytest.mark.parametrize("settings", cells())
def test_resume_is_exact(write_recipe: WriteRecipe, block_log: dict[int, list[str]], settings: dict[str, Any]) -> None:
    """From the middle of an epoch, its end and the middle of a later one: same rows, same bits, same figures."""
    recipe = write_recipe(
        **settings,
        dropout=0.2,
        global_batch_size=6,
        num_train_epochs=3,
        **EVERY_OTHER_STEP,
        save_total_limit=50,
        early_stopping_patience=50,
        seed=7,
    )
    main([str(recipe)])
    whole = recipe.parent / "run"
    seen = dict(block_log)
    steps = results_of(whole)["training"]["steps"]
    per_epoch = steps // 3
    assert per_epoch * 3 == steps
    moments = {"middle": 2, "end": next(step for step in (per_epoch, 2 * per_epoch) if step % 2 == 0)}
    moments["later"] = 2 * per_epoch + 2
    assert moments["middle"] < per_epoch
    assert 2 * per_epoch < moments["later"] < steps
    for moment, step in moments.items():
        folder = recipe.parent / moment
        back_to(whole, folder, step)
        block_log.clear()
        main([str(folder / "recipe.json")])
        assert block_log == {number: rows for number, rows in seen.items() if number >= step}
        assert_equal_runs(whole, folder)


@pytest.mark.parametrize(
    ("curriculum", "settings"),
    [
        pytest.param("length", {"num_train_epochs": 3}, id="staged"),
        pytest.param(
            "lexical", {"pacing": "cumulative", "num_train_epochs": 6, "global_batch_size": 18}, id="cumulative"
        ),
        pytest.param(
            "morphology", {"pacing": "competence", "num_train_epochs": 3, "global_batch_size": 36}, id="competence"
        ),
    ],
)
def test_resume_is_exact_from_every_step(
    write_recipe: WriteRecipe, block_log: dict[int, list[str]], curriculum: str, settings: dict[str, Any]
) -> None:
    """Whichever step of a small run it goes on from, under a curriculum: same rows, same bits, same figures."""
    recipe = write_recipe(
        curriculum=curriculum,
        dropout=0.2,
        ema_decay=0.9,
        **{"global_batch_size": 9, **settings},
        gradient_accumulation_steps=3,
        save_total_limit=50,
        **EVERY_STEP,
    )
    main([str(recipe)])
    whole = recipe.parent / "run"
    seen = dict(block_log)
    steps = results_of(whole)["training"]["steps"]
    assert steps >= 6
    for step in range(1, steps):
        folder = recipe.parent / f"from-{step}"
        back_to(whole, folder, step)
        block_log.clear()
        main([str(folder / "recipe.json")])
        assert block_log == {number: rows for number, rows in seen.items() if number >= step}
        assert_equal_runs(whole, folder)


def test_folder_in_use_is_refused(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A second process on a run folder that is being written is refused in one line."""

    recipe = write_recipe()
    with locked(recipe.parent / "run"), pytest.raises(SystemExit) as stop:
        main([str(recipe)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {recipe.parent / 'run'} is in use by another process: ")
    assert not (recipe.parent / "run").exists()


def test_named_checkpoint_of_another_recipe_is_refused(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint would bring its own schedule and rates along: another recipe's is refused with the keys."""
    recipe = write_recipe(**EVERY_FOURTH_STEP)
    main([str(recipe)])
    checkpoint = recipe.parent / "run" / "checkpoints" / "checkpoint_best.pt"
    with pytest.raises(SystemExit):
        main([str(moved(recipe, "other")), "--learning_rate", "0.5", "--resume_from_checkpoint", str(checkpoint)])
    assert "of another recipe (it differs in training.learning_rate)" in capsys.readouterr().err


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    """Leave nothing of a file."""
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    """Put a file of another program in the place of a checkpoint."""
    torch.save({"model": torch.zeros(3)}, path)


class _Code:
    """A pickle that runs code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def pickled_code(path: Path) -> None:
    """Put a file with code in the place of a checkpoint."""
    torch.save({"format": 1, "code": _Code(path.with_name("ran"))}, path)


@pytest.mark.parametrize("damage", [truncate, flip, empty, foreign, pickled_code])
def test_damaged_checkpoint_is_passed_over_by_name(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    """A newest checkpoint that is not usable is named in one line, nothing in it is run, and the next one is used."""
    recipe = write_recipe(num_train_epochs=2, **EVERY_OTHER_STEP)
    main([str(recipe)])
    folder = recipe.parent / "run"
    newest = max((folder / "checkpoints").glob("checkpoint_step_*.pt"), key=lambda path: path.stat().st_mtime_ns)
    shutil.copytree(folder, recipe.parent / "whole")
    newest.unlink()  # the best one may be the same file
    shutil.copy(recipe.parent / "whole" / "checkpoints" / newest.name, newest)
    damage(newest)
    for name in ("results.json", "training.json"):
        (folder / name).unlink()
    capsys.readouterr()
    main([str(recipe)])
    out, err = capsys.readouterr()
    assert len([line for line in err.splitlines() if line.startswith(f"Warning: passed over {newest}: not a")]) == 1
    assert f"Resuming from {folder / 'checkpoints' / 'checkpoint_step_'}" in out
    assert not (folder / "checkpoints" / "ran").exists()
    assert_equal_runs(recipe.parent / "whole", folder)


def test_named_checkpoint_that_is_damaged_is_refused(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume_from_checkpoint of a damaged, missing or alien file ends the command in one line with code 2."""
    recipe = write_recipe(**EVERY_FOURTH_STEP, save_total_limit=50)
    main([str(recipe)])
    checkpoint = recipe.parent / "run" / "checkpoints" / "checkpoint_step_4.pt"
    torch.save(torch.load(checkpoint, weights_only=True) | {"model_state_dict": {}}, recipe.parent / "alien.pt")
    truncate(checkpoint)
    for path, message in (
        (checkpoint, "not a usable checkpoint"),
        (recipe.parent / "missing.pt", "there is no such file; "),
        (recipe.parent / "alien.pt", "the checkpoint is of another model"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(moved(recipe, "other")), "--overwrite", "--resume_from_checkpoint", str(path)])
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
        assert line.startswith("error: ")
        assert str(path) in line
        assert message in line


def test_resume_from_a_named_file(write_recipe: WriteRecipe) -> None:
    """--resume_from_checkpoint continues another folder's run exactly, and is no part of the recipe."""
    recipe = write_recipe(
        num_train_epochs=2,
        **EVERY_FOURTH_STEP,
        save_total_limit=50,
    )
    main([str(recipe)])
    checkpoint = recipe.parent / "run" / "checkpoints" / "checkpoint_step_8.pt"
    copy = moved(recipe, "fork")
    before = {path: path.stat().st_mtime_ns for path in (recipe.parent / "run").rglob("*") if path.is_file()}
    main([str(copy), "--resume_from_checkpoint", str(checkpoint)])
    after = {path: path.stat().st_mtime_ns for path in (recipe.parent / "run").rglob("*") if path.is_file()}
    assert after == before, "the run that the checkpoint is taken from is left alone"
    assert events_of(recipe.parent / "run") == events_of(recipe.parent / "fork")
    main([str(copy)])  # finished: the flag does not make another recipe of it


def test_load_checkpoint_gives_model_and_tokenizer(write_recipe: WriteRecipe) -> None:
    """A checkpoint opens as a model and tokenizer that score like the exported ones, best for best."""
    from transformers import AutoModelForCausalLM

    from hindi_babylm.training.checkpoint import load_checkpoint

    recipe = write_recipe(architecture="llama")
    main([str(recipe)])
    model, tokenizer = load_checkpoint(recipe.parent / "run" / "checkpoints" / "checkpoint_best.pt")
    exported = AutoModelForCausalLM.from_pretrained(recipe.parent / "run" / "final_model")
    ids = tokenizer("राम घर जाता है ।", return_tensors="pt")["input_ids"]
    assert torch.equal(model(ids).logits, exported(ids).logits)


def test_early_stopping_is_not_undone_by_a_kill(write_recipe: WriteRecipe) -> None:
    """A run that had stopped early and was killed before its export does not train on when it is continued."""
    recipe = write_recipe(num_train_epochs=9, learning_rate=1e-30, weight_decay=0.0, early_stopping_patience=2)
    main([str(recipe)])
    folder = recipe.parent / "run"
    shutil.copytree(folder, recipe.parent / "whole")
    shutil.rmtree(folder / "final_model")
    for name in ("results.json", "training.json"):
        (folder / name).unlink()
    main([str(recipe)])
    assert results_of(folder)["training"]["epochs"] == 3
    assert_equal_runs(recipe.parent / "whole", folder)


def test_kill_between_the_two_names_of_the_best_checkpoint(write_recipe: WriteRecipe) -> None:
    """A best checkpoint whose second name was not made before the kill is the best one all the same."""
    recipe = write_recipe(
        learning_rate=1e-2,
        **EVERY_FOURTH_STEP,
        save_total_limit=50,
    )
    main([str(recipe)])
    back_to(recipe.parent / "run", recipe.parent / "again", 8)
    checkpoints = recipe.parent / "again" / "checkpoints"
    assert torch.load(checkpoints / "checkpoint_best.pt", weights_only=True)["step"] == 8
    shutil.copy(checkpoints / "checkpoint_step_4.pt", checkpoints / "checkpoint_best.pt")
    # No later evaluation is better, so what stands under the second name decides what is exported.
    state = torch.load(checkpoints / "checkpoint_step_8.pt", weights_only=True)
    state["finished"] = True
    torch.save(state, checkpoints / "checkpoint_step_8.pt")
    main([str(recipe.parent / "again" / "recipe.json")])
    weights = load_file(recipe.parent / "again" / "final_model" / "model.safetensors")
    assert all(torch.equal(value, state["model_state_dict"][name]) for name, value in weights.items())


def test_leftovers_of_a_killed_write_are_swept(write_recipe: WriteRecipe) -> None:
    """The temporary file of a write that a kill cut short is gone once the run is continued."""
    recipe = write_recipe(**EVERY_FOURTH_STEP)
    main([str(recipe)])
    leftover = recipe.parent / "run" / "checkpoints" / ".checkpoint_step_9.pt.x1y2.tmp"
    leftover.write_bytes(b"half a checkpoint")
    for name in ("results.json", "training.json"):
        (recipe.parent / "run" / name).unlink()
    main([str(recipe)])
    assert not leftover.exists()


def test_patience_survives_a_resume(write_recipe: WriteRecipe) -> None:
    """A run that waits for a better evaluation stops at the same step whether or not it was resumed in between."""
    recipe = write_recipe(
        num_train_epochs=9,
        learning_rate=1e-30,
        weight_decay=0.0,
        early_stopping_patience=3,
        **EVERY_OTHER_STEP,
        save_total_limit=50,
    )
    main([str(recipe)])
    assert results_of(recipe.parent / "run")["training"]["steps"] == 8
    back_to(recipe.parent / "run", recipe.parent / "again", 6)
    main([str(recipe.parent / "again" / "recipe.json")])
    assert_equal_runs(recipe.parent / "run", recipe.parent / "again")
