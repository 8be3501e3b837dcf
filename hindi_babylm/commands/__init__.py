"""The commands of `hindi-babylm`, one module each, and their dispatch."""

import importlib
import sys
from collections.abc import Callable, Sequence

from hindi_babylm.console import say
from hindi_babylm.signals import EXIT_INTERRUPTED, exit_on_signal
from hindi_babylm.storage import UserError, exit_on_user_error, suggestion

# Name -> (module with a `main(argv)`, one line of help).
COMMANDS: dict[str, tuple[str, str]] = {
    "compare": (
        "hindi_babylm.commands.compare",
        "compare runs and evaluations, with paired tests over seeds and items",
    ),
    "compare-tokenizers": (
        "hindi_babylm.commands.compare_tokenizers",
        "train tokenizers on one corpus and measure them side by side",
    ),
    "evaluate": (
        "hindi_babylm.commands.evaluate",
        "score any causal or masked model on texts and tasks, with intervals and floors",
    ),
    "find-lr": ("hindi_babylm.commands.find_lr", "sweep learning rates over a recipe's first steps and suggest one"),
    "publish": ("hindi_babylm.commands.publish", "put a finished run on the hub, and open it from there"),
    "run": ("hindi_babylm.run", "train a model from a recipe, from raw text to final figures"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Dispatch `hindi-babylm COMMAND ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<20}{text}" for name, (_, text) in COMMANDS.items()]
        sys.stdout.write("\n".join(["usage: hindi-babylm COMMAND ...", "", *lines, "", "Each has a --help.", ""]))
        return
    with exit_on_user_error():
        if words[0] not in COMMANDS:
            raise UserError(f"unknown command {words[0]!r}; {suggestion(words[0], COMMANDS)}")
    importlib.import_module(COMMANDS[words[0]][0]).main(words[1:])


def carry_out(
    argv: Sequence[str] | None,
    do: Callable[[Sequence[str]], object],
    *,
    page: Callable[[], str],
    interrupted: str = "Interrupted.",
) -> None:
    """Show the help page of a command, or `do` what its words ask for; a user's error and a signal end it in a line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--help" in words or "-h" in words:
        sys.stdout.write(page() + "\n")
        return
    try:
        with exit_on_user_error(), exit_on_signal():
            do(words)
    except SystemExit as stop:
        if stop.code == EXIT_INTERRUPTED:
            say(interrupted)
        raise
