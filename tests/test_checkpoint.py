"""Checkpoint files: what keeps one from being written, which one is the best, and when one is due."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hindi_babylm.run import main
from hindi_babylm.storage import UserError
from hindi_babylm.training.checkpoint import CheckpointWriter

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
