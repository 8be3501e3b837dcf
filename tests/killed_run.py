"""Kill a run before each of its changes of the disk in turn, finish it, and compare it with one that was left alone.

Run `python -m tests.killed_run RECIPE [EVERY [FIRST]]`: RECIPE's run folder holds the finished run, and every EVERY-th
change is tried, from the FIRST. A line on stdout names each change. Processes are forked from one that has imported
everything, so a try costs a training and not the seconds of the imports.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import datasets
import transformers

from hindi_babylm.run import main
from hindi_babylm.training import export
from tests.runs import assert_equal_runs, moved

IMPORTED = datasets, transformers, export
# https://docs.python.org/3/library/audit_events.html
CHANGES = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}


def kill_before(number: int, folder: Path) -> None:
    """Let SIGKILL end this process instead of its change `number`, counted from 0, of what is in `folder`."""
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in CHANGES or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        writes = event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path = os.fsdecode(arguments[0])
        # A tree is removed by names relative to an open folder.
        if writes and (path.startswith(str(folder)) or not Path(path).is_absolute()):
            if seen == number:
                os.write(1, f"{number} {event} {os.path.relpath(path, folder)}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(watch)


def in_a_child(recipe: Path, *, kill: int | None = None) -> bool:
    """Run a recipe in a forked process; return whether it was killed."""
    child = os.fork()
    if child == 0:
        log = os.open(recipe.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        code = 1
        try:
            if kill is not None:
                kill_before(kill, recipe.with_suffix(""))
            sys.stdout = sys.stderr = os.fdopen(log, "w")
            main([str(recipe)])
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status:
        raise SystemExit(f"exit status {status}: {recipe.with_suffix('.log').read_text(encoding='utf-8')}")
    return False


if __name__ == "__main__":
    source = Path(sys.argv[1])
    every, number = (int(word) for word in [*sys.argv[2:], "1", "0"][:2])
    whole = source.parent / "run"
    in_a_child(source)
    copy = moved(source, "killed")
    while in_a_child(copy, kill=number):
        in_a_child(copy)
        assert_equal_runs(whole, whole.with_name("killed"))
        shutil.rmtree(whole.with_name("killed"))
        number += every
