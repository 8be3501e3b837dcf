"""One process at a time in a run folder."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hindi_babylm.storage import UserError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; a process that dies lets go of it.

    Raises UserError when it cannot be made or written, and when another process holds it: two would write into
    each other's files.
    """
    made: list[Path] = []
    try:
        made += [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").write_bytes(b"")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        _remove_empty(made)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder} cannot be the run folder: {reason}: choose another --output_dir") from error
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        try:
            _lock(file)
        except OSError as error:
            raise UserError(
                f"{folder} is in use by another process: wait for it, stop it, or choose another --output_dir"
            ) from error
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [".lock"]:  # refused before anything was written
                (folder / ".lock").unlink()
                _remove_empty(made)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError, ValueError):  # never made, or no longer empty: another run lies beside this one
            folder.rmdir()


def _lock(file: Any) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
