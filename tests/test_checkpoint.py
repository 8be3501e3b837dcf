"""Checkpoint files: what keeps one from being written, which one is the best, and when one is due."""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hindi_babylm.run import main
from hindi_babylm.storage import UserError
from hindi_babylm.training.checkpoint import CheckpointWriter, adopt_best, read_checkpoint, save_checkpoint
from tests.runs import assert_equal_runs, back_to, events_of, moved, results_of
from tests.test_training import Make, make

__all__ = ["make"]

WriteRecipe = Callable[..., Path]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow past `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_finds_no_room_ends_the_run_in_one_line(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that does not take a checkpoint is told in one line, and the same command goes on once there is room."""
    recipe = write_recipe(num_train_epochs=2)
    with files_up_to(200_000), pytest.raises(SystemExit) as stop:
        main([str(recipe)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a checkpoint could not be written: [Errno 27] File too large: make room, and the ")
    assert list((recipe.parent / "run" / "checkpoints").iterdir()) == []
    main([str(recipe)])
    assert (recipe.parent / "run" / "results.json").exists()


def test_a_folder_that_takes_no_checkpoint_is_told_by_the_next_call(tmp_path: Path) -> None:
    """What keeps the thread from writing is raised as a user's error by the next wait, and by no later one."""
    (tmp_path / "checkpoints").touch()
    writer = CheckpointWriter()
    writer.submit(tmp_path / "checkpoints" / "checkpoint_step_1.pt", {"step": 1}, is_best=False, limit=None)
    with pytest.raises(UserError, match=r"a checkpoint could not be written: .*File exists.*: make room"):
        writer.wait()
    writer.wait()


@pytest.mark.parametrize(
    ("length", "ends", "start"), [({"num_train_epochs": 2}, [9, 18], 9), ({"max_steps": 13}, [9, 13], 13)], ids=str
)
def test_a_checkpoint_at_the_end_of_an_epoch_holds_its_evaluation(
    write_recipe: WriteRecipe, length: dict[str, int], ends: list[int], start: int
) -> None:
    """Saved by steps and evaluated by epochs, the checkpoint of an epoch's or the run's end has seen its evaluation."""
    recipe = write_recipe(
        **length,
        dropout=0.2,
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=3,
        save_total_limit=50,
        load_best_model_at_end=False,
    )
    main([str(recipe)])
    whole = recipe.parent / "run"
    evaluations = {event["step"]: event for event in events_of(whole) if "eval_loss" in event}
    assert list(evaluations) == ends
    for step, evaluation in evaluations.items():
        checkpoint = read_checkpoint(whole / "checkpoints" / f"checkpoint_step_{step}.pt")
        assert (checkpoint["epoch"], checkpoint["step"]) == (step // 9, step)
        assert checkpoint["val_loss"] == evaluation["eval_loss"]
        assert checkpoint["perplexity"] == evaluation["eval_perplexity"]
        assert checkpoint["train_loss"] == evaluation["epoch_train_loss"]
        assert checkpoint["finished"] == (step == max(evaluations))
    back_to(whole, recipe.parent / "again", start)
    main([str(recipe.parent / "again" / "recipe.json")])
    assert_equal_runs(whole, recipe.parent / "again")


def of_step(path: Path, step: int, *, best: int) -> dict[str, Any]:
    """Write what `adopt_best` reads of a checkpoint, and return it."""
    save_checkpoint(path, {"step": step, "trainer_state": {"best_global_step": best}})
    return read_checkpoint(path)


def test_a_damaged_best_checkpoint_is_replaced_by_the_numbered_one_of_its_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `checkpoint_best.pt` that does not open is named, and the whole file of the best step takes its place."""
    newest = tmp_path / "checkpoint_step_6.pt"
    for step in (2, 4):
        of_step(tmp_path / f"checkpoint_step_{step}.pt", step, best=step)
    checkpoint, best = of_step(newest, 6, best=4), tmp_path / "checkpoint_best.pt"
    best.write_bytes((tmp_path / "checkpoint_step_4.pt").read_bytes()[:100])
    adopt_best(checkpoint, newest, tmp_path, write=True, needed=True)
    assert best.read_bytes() == (tmp_path / "checkpoint_step_4.pt").read_bytes()
    assert checkpoint["trainer_state"]["best_model_checkpoint"] == str(tmp_path)
    assert capsys.readouterr().err.startswith(f"Warning: passed over {best}: not a usable checkpoint (")


def test_a_best_checkpoint_that_is_nowhere_is_refused_by_name(tmp_path: Path) -> None:
    """Without a whole file of the best step, the checkpoint is refused with a way out where the best one is needed."""
    newest = tmp_path / "checkpoint_step_6.pt"
    of_step(tmp_path / "checkpoint_step_2.pt", 2, best=2)
    checkpoint = of_step(newest, 6, best=4)
    shutil.copy(tmp_path / "checkpoint_step_2.pt", tmp_path / "checkpoint_best.pt")
    with pytest.raises(UserError) as refused:
        adopt_best(checkpoint, newest, tmp_path, write=True, needed=True)
    assert str(refused.value) == (
        f"{newest}: its best evaluation was at step 4, but no whole checkpoint of that step is beside it: "
        "take a later checkpoint, or begin again with --overwrite"
    )
    adopt_best(checkpoint, newest, tmp_path, write=True, needed=False)
    adopt_best(checkpoint, newest, tmp_path, write=False, needed=True)  # left to the process that may write


def test_the_best_evaluation_has_a_checkpoint_between_the_saves(write_recipe: WriteRecipe) -> None:
    """Evaluated more often than saved, a run saves its best evaluation too: it is exported, and it can be resumed."""
    recipe = write_recipe(
        num_train_epochs=3,
        learning_rate=0.2,
        lr_scheduler_type="constant",
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=6,
        save_total_limit=50,
    )
    main([str(recipe)])
    whole = recipe.parent / "run"
    losses = {event["step"]: event["eval_loss"] for event in events_of(whole) if "eval_loss" in event}
    best = min(losses, key=lambda step: losses[step])
    assert best % 6
    assert results_of(whole)["model"]["which"] == "best"
    assert results_of(whole)["model"]["step"] == best
    checkpoint = read_checkpoint(whole / "checkpoints" / "checkpoint_best.pt")
    assert checkpoint["step"] == best
    exported = load_file(whole / "final_model" / "model.safetensors")
    assert all(torch.equal(value, checkpoint["model_state_dict"][name]) for name, value in exported.items())
    bests = {step: min(range(2, step + 1, 2), key=lambda earlier: losses[earlier]) for step in (6, 12, 18, 24)}
    back_to(whole, recipe.parent / "again", next(step for step, earlier in bests.items() if earlier % 6))
    main([str(recipe.parent / "again" / "recipe.json")])
    assert_equal_runs(whole, recipe.parent / "again")


def test_a_best_evaluation_without_a_checkpoint_hinders_nothing_where_the_last_model_is_wanted(
    write_recipe: WriteRecipe,
) -> None:
    """Saved by steps, evaluated by epochs, the last model exported: every checkpoint can be resumed."""
    recipe = write_recipe(
        num_train_epochs=2, save_strategy="steps", save_steps=4, save_total_limit=50, load_best_model_at_end=False
    )
    main([str(recipe)])
    whole, again = recipe.parent / "run", recipe.parent / "again"
    assert {path.name for path in (whole / "checkpoints").iterdir()} >= {"checkpoint_step_12.pt"}
    checkpoint = read_checkpoint(whole / "checkpoints" / "checkpoint_step_12.pt")
    assert checkpoint["trainer_state"]["best_global_step"] == 9
    shutil.copytree(whole, again)
    for name in ("results.json", "training.json", "checkpoints/checkpoint_best.pt"):
        (again / name).unlink()
    for step in (16, 18):
        (again / "checkpoints" / f"checkpoint_step_{step}.pt").unlink()
    main([str(moved(recipe, "again"))])
    assert_equal_runs(whole, again)


def test_the_scaler_of_fp16_goes_on_from_the_checkpoint(make: Make, tmp_path: Path) -> None:
    """The scale of a real scaler, which grows by steps, is in the file, and a resumed training ends with the same."""

    def scaled() -> Any:
        trainer = make(save_strategy="steps", save_steps=4, eval_strategy="no", save_total_limit=9)
        # A scaler of the CPU: fp16 itself needs a GPU. Powers of two leave every bit of the weights alone.
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
        return trainer

    whole = scaled()
    whole.train()
    steps = whole.state.global_step
    expected = whole.accelerator.scaler.state_dict()
    assert expected["scale"] == 4.0 * 2 ** (steps // 3)
    path = tmp_path / "run" / "checkpoints" / "checkpoint_step_4.pt"
    saved = torch.load(path, weights_only=True)["scaler_state_dict"]
    assert (saved["scale"], saved["_growth_tracker"]) == (8.0, 1)
    again = scaled()
    again.train(str(path))
    assert again.accelerator.scaler.state_dict() == expected
    weights = again.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.model.state_dict().items())
