"""What the tasks of a run held when its training text was cleaned of them, and when it was scored on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.console import warn
from hindi_babylm.evaluation.tasks import KINDS, TASK_SHA256, content_sha256, find_task
from hindi_babylm.storage import RunFolder, UserError, read_json


def task_sha256(name: str) -> str:
    """Return the SHA-256 of what a task, a name or a path, holds now.

    >>> rows = ["sen\\twrong_sen", "लड़के घर हैं\\tलड़के घर है"]
    >>> for name in ("mine.tsv", "copy.tsv"):
    ...     _ = Path(name).write_text("\\n".join(rows), encoding="utf-8")
    >>> task_sha256("mine.tsv") == task_sha256("copy.tsv") != task_sha256("hindi_pairs_pud")
    True
    """
    task = find_task(name)
    return content_sha256(KINDS[task.kind].load(task.place))


def check_unchanged(folder: RunFolder, tasks: Sequence[str]) -> None:
    """Raise UserError where an unfinished run would be scored on other texts than its training text was cleaned of."""
    if changed := _changed_since(folder.corpus, tasks):
        raise UserError(
            f"{folder.path}: its training text was cleaned of {', '.join(changed)}, which has changed since: restore "
            "it, and score what it holds now from another path once the run is finished (`hindi-babylm evaluate "
            f"{folder.path} --tasks PATH`); or choose another --output_dir, or --overwrite to start again"
        )


def tell_changed(folder: RunFolder, tasks: Sequence[str]) -> None:
    """Warn of each task that a finished run was scored on and that holds something else now."""
    for task in _changed_since(folder.results, tasks):
        warn(
            f"{task} has changed since the run was scored on it: `hindi-babylm evaluate {folder.path} --tasks {task}` "
            "scores what it holds now"
        )


def tell_changed_meanwhile(folder: RunFolder, results: Mapping[str, Any]) -> None:
    """Warn of tasks that have changed between the cleaning of the training text and the scoring, in one run."""
    cut_out = read_json(folder.corpus).get(TASK_SHA256, {})
    if late := [task for task, found in results[TASK_SHA256].items() if cut_out.get(task, found) != found]:
        _warn_of_overlap(folder, late)


def tell_not_cut_out(folder: RunFolder, tasks: Sequence[str]) -> None:
    """Warn of tasks whose texts a run did not cut out of its training text: by what they hold, not by their names."""
    recipe = read_json(folder.recipe)
    recorded = read_json(folder.corpus).get(TASK_SHA256) if folder.corpus.exists() else None
    if recorded is None:  # a run of before this was recorded
        cut_out = recipe["evaluation"]["tasks"] if recipe["corpus"]["decontaminate"] else []
        seen = [task for task in tasks if task not in cut_out]
    else:
        seen = [task for task in tasks if task_sha256(task) not in recorded.values()]
    if seen:
        _warn_of_overlap(folder, seen)


def _changed_since(file: Path, tasks: Sequence[str]) -> list[str]:
    """Return the tasks that hold something else now than `file`, corpus.json or results.json, has recorded of them.

    Tables of the hub are not asked for, and of a task that is not recorded nothing is known.
    """
    before = read_json(file).get(TASK_SHA256, {})
    found = {name: find_task(name) for name in tasks}
    known = [name for name, task in found.items() if isinstance(task.place, Path) and task.name in before]
    return [name for name in known if before[found[name].name] != task_sha256(name)]


def _warn_of_overlap(folder: RunFolder, tasks: Sequence[str]) -> None:
    warn(f"the training text of {folder.path} may hold test texts of {', '.join(tasks)}: they were not cut out of it")
