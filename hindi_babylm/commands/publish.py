"""`hindi-babylm publish RUN`: a finished run on the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.commands import carry_out
from hindi_babylm.console import quiet_warnings, show
from hindi_babylm.lock import locked
from hindi_babylm.recipe.parsing import read_flags
from hindi_babylm.recipe.publishing import check_branch, check_repository
from hindi_babylm.recipe.sections import FLAGS, ReportingSection
from hindi_babylm.storage import RunFolder, UserError, read_json, suggestion

USAGE = """\
usage: hindi-babylm publish RUN [--hub_model_id OWNER/NAME] [--public]
           [--revisions] [--hub_revision BRANCH] [--overwrite] [--dry_run]

Upload the finished run in the folder RUN to the Hugging Face Hub: weights
(safetensors), configuration, tokenizer, model card and the figures of
results.json, nothing else. Then open the model from there and compare ids and
logits with RUN's.

  --hub_model_id X   the repository [hub_model_id of the run's recipe]
  --public           make it public [private, unless the recipe says otherwise]
  --revisions        also upload the milestones in RUN/revisions, each to a
                     branch of its name: from_pretrained(X, revision="chck_1M")
  --hub_revision B   upload to the branch B instead of main, for another seed
  --overwrite        replace whatever the repository holds
  --dry_run          list what would be uploaded, and upload nothing
  --help             this page

Log in with `hf auth login`, or set HF_TOKEN: the token needs to write.
The same command continues an interrupted upload, and makes no commit where
nothing has changed. A repository that exists keeps its visibility."""
VALUES = ("hub_model_id", "hub_revision")
SWITCHES = ("public", "revisions", "overwrite", "dry_run")


def main(argv: Sequence[str] | None = None) -> None:
    """Run `hindi-babylm publish RUN [--hub_model_id OWNER/NAME] [...]`."""
    carry_out(argv, publish_run, page=lambda: USAGE, interrupted="Interrupted. The same command continues.")


def publish_run(words: Sequence[str]) -> None:
    """Publish the run that the command line names, or list what would be published."""
    if not words or words[0].startswith("-"):
        raise UserError("no run: hindi-babylm publish runs/base --hub_model_id owner/name (see --help)")
    folder = RunFolder(Path(words[0]).expanduser())
    flags = read_flags(words[1:])
    for name, values in flags.items():
        if name not in (*VALUES, *SWITCHES):
            raise UserError(f"command line: --{name}: unknown flag; {suggestion(name, [*VALUES, *SWITCHES])}")
        if name in SWITCHES and values:
            raise UserError(f"command line: --{name} takes no value, got {' '.join(values)}")
        if name in VALUES and len(values) != 1:
            raise UserError(f"command line: --{name}: expected one value, got {len(values)}")
    target = _target(folder, flags)
    quiet_warnings()
    if "dry_run" in flags:
        _show_plan(folder, **target)
        return
    from hindi_babylm.reporting.publish import publish

    with locked(folder.path):
        publish(folder, **target, overwrite="overwrite" in flags)


def _target(folder: RunFolder, flags: dict[str, list[str]]) -> dict[str, Any]:
    """Return where the recipe of the run, and the flags over it, want it to be published."""
    from hindi_babylm.reporting.publish import check_finished

    check_finished(folder)
    target = ReportingSection(**read_json(folder.recipe).get("reporting", {})).target()
    if "hub_model_id" in flags:
        target["hub_model_id"] = flags["hub_model_id"][0]
    if "hub_revision" in flags:
        target["branch"] = flags["hub_revision"][0]
        check_branch(f"{FLAGS}--hub_revision {target['branch']}", target["branch"])
        target["revisions"] &= target["branch"] == "main"  # to which the recipe's milestones belong
    if target["hub_model_id"] is None:
        raise UserError(f"{FLAGS}--hub_model_id is missing, and the run's recipe names none: give owner/name")
    check_repository(f"{FLAGS}--hub_model_id {target['hub_model_id']}", target["hub_model_id"])
    if "public" in flags:
        target["private"] = False
    if "revisions" in flags:
        if target["branch"] != "main":
            raise UserError(
                f"{FLAGS}--revisions contradicts --hub_revision {target['branch']}: the branches of milestones belong "
                "to the model on main: leave one of them out"
            )
        if not read_json(folder.results)["milestones"]:
            raise UserError(f"{FLAGS}--revisions: {folder.path} has no milestones: leave it out")
        target["revisions"] = True
    return target


def _show_plan(folder: RunFolder, *, hub_model_id: str, private: bool, branch: str, revisions: bool) -> None:
    """Print each file that would be uploaded, by branch, with its size in bytes."""
    from hindi_babylm.reporting.publish import check_private, milestones, planned

    names = list(milestones(folder)) if revisions else []
    show(f"{hub_model_id}, {'private' if private else 'public'} where it is new")
    for name, files in planned(folder, hub_model_id=hub_model_id, branch=branch, revisions=names).items():
        check_private(files, folder, token=None, where=name)
        for file, content in sorted(files.items()):
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            show(f"{name:<12}{file:<36}{size:>14,}")
    show("Dry run: nothing was uploaded.")
