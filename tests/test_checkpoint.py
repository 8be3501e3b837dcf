"""Checkpoint files: what keeps one from being written, which one is the best, and when one is due."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hindi_babylm.run import main
from hindi_babylm.storage import UserError
from hindi_babylm.training.checkpoint import CheckpointWriter, read_checkpoint
from tests.runs import assert_equal_runs, back_to, events_of

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
