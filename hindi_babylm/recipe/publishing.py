"""Keys of section reporting that the hub would refuse at the end of a run."""

import re

from hindi_babylm.recipe.given import Given
from hindi_babylm.storage import UserError


def check_publishing(given: Given) -> None:
    """Raise UserError for a repository or branch that cannot be, and for two runs that would share branches."""
    reporting = given.recipe.reporting
    if reporting.hub_model_id is not None:
        check_repository(given.first("hub_model_id"), reporting.hub_model_id)
    if reporting.hub_revision is not None:
        check_branch(given.first("hub_revision"), reporting.hub_revision)
        if reporting.publish_revisions and reporting.hub_revision != "main":
            raise UserError(
                f"{given.first('publish_revisions')} contradicts {given.other('hub_revision', 'publish_revisions')}: "
                "the branches of milestones belong to the model on main: leave one of them out"
            )


def check_repository(where: str, name: str) -> None:
    """Raise UserError, which `where` begins, for what is no `owner/name` of the hub's.

    >>> check_repository("--hub_model_id", "someone/hindi-base")
    """
    import huggingface_hub.errors
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # of its public listing

    try:
        validate_repo_id(name)
    except huggingface_hub.errors.HFValidationError as error:
        raise UserError(f"{where}: {' '.join(str(error).split()).rstrip('.')}") from error
    if name.count("/") != 1:
        raise UserError(f"{where}: expected owner/name: yourself or an organization, and the name of the model")


def check_branch(where: str, name: str) -> None:
    """Raise UserError for a name that is no branch, or that is kept for milestones."""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", name) or ".." in name or name.endswith((".", ".lock")):
        raise UserError(f"{where}: expected the name of a branch, of letters, digits and . _ - /")
    if name.startswith(("chck_", "refs/")):
        raise UserError(f"{where}: such names are those of milestones and of the hub: choose another")
