"""Paths of a recipe that lead nowhere: the run folder, the tasks, the checkpoint to resume from."""

from pathlib import Path

from hindi_babylm.evaluation.tasks import find_tasks
from hindi_babylm.recipe.given import Given
from hindi_babylm.storage import UserError, suggestion


def check_files(given: Given) -> None:
    """Raise UserError for a folder that cannot be the run's, for what is no task, and for no checkpoint."""
    where, folder = f'{given.at("output_dir")} = "{given.recipe.output_dir}"', given.recipe.output_dir
    for path in (folder, *folder.parents):
        try:
            is_file = path.exists() and not path.is_dir()
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise UserError(f"{where}: {error.strerror or error}: choose another --output_dir") from error
        if is_file:
            raise UserError(f"{where}: {path} is a file: choose another --output_dir")
    with given.recipe.blamed("tasks"):
        find_tasks(given.recipe.evaluation.tasks)
    checkpoint = given.values["resume_from_checkpoint"]
    if checkpoint is None:
        return
    if not checkpoint.endswith(".pt"):
        raise UserError(f"{given.first('resume_from_checkpoint')}: expected the .pt file of a checkpoint")
    if not Path(checkpoint).is_file():
        near = suggestion(checkpoint, map(str, sorted(Path(checkpoint).parent.glob("*.pt"))))
        advice = near if near != "there are " else "its folder holds no checkpoint"
        raise UserError(f'{given.at("resume_from_checkpoint")} = "{checkpoint}": there is no such file; {advice}')
