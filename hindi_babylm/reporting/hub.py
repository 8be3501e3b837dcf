"""The way to the hub: the token, the command that publishes, and what the hub's refusals mean."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from hindi_babylm.storage import RunFolder, UserError, first_line

MAIN = "main"
WAYS_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def check_token(repository: str, *, later: str) -> str:
    """Return the user's token of the hub; raise UserError where there is none, or where the hub is switched off.

    `later` is the command by which to publish another time.
    """
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise UserError(
            f"HF_HUB_OFFLINE is set, so {repository} cannot be reached: unset it, or publish later: {later}"
        )
    token = get_token()
    if not token:
        raise UserError(f"there is no token to publish {repository} with: {WAYS_IN}, or publish later: {later}")
    return token


def command_of(
    folder: RunFolder,
    *,
    hub_model_id: str,
    private: bool = True,
    branch: str = MAIN,
    revisions: bool = False,
    overwrite: bool = False,
) -> str:
    """Return the command that publishes a run in the same way.

    >>> from pathlib import Path
    >>> command_of(RunFolder(Path("runs/my run")), hub_model_id="someone/tiny", branch="seed-5")
    "hindi-babylm publish 'runs/my run' --hub_model_id someone/tiny --hub_revision seed-5"
    """
    words = ["hindi-babylm", "publish", str(folder.path), "--hub_model_id", hub_model_id]
    words += ["--hub_revision", branch] if branch != MAIN else []
    asked = {"--public": not private, "--revisions": revisions, "--overwrite": overwrite}
    return shlex.join([*words, *(flag for flag, given in asked.items() if given)])


@contextmanager
def refusals_told(repository: str, token: str, *, again: str) -> Iterator[None]:
    """Turn what the hub and the network raise into one line that says by which command to go on."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    # Of the network and of the hub, of a card or name that it refuses, of an upload that was cut short.
    except (OSError, ValueError, RuntimeError, _network_error()) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        reason = f"{type(error).__name__}: {first_line(error)}".replace(token, "***")[:300].rstrip(". ")
        raise UserError(
            f"{repository} is not published: {REASONS.get(status, reason)}; nothing of the run is lost, and `{again}` "
            "goes on"
        ) from error


def _network_error() -> type[Exception]:
    """Return what the hub's HTTP library raises, whichever it is: its errors of the hub inherit from it."""
    from huggingface_hub.errors import HfHubHTTPError

    (own, *_) = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    return own


# Status of a refusal -> what it means to a user.
REASONS: dict[int | None, str] = {
    401: f"the hub does not know the token: {WAYS_IN}",
    403: f"the token may not write there: {WAYS_IN}, or choose another owner",
}
