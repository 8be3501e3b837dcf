"""Training checkpoints: one `.pt` file of plain tensors and plain Python types."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hindi_babylm.storage import UserError, write_atomically

FORMAT = 1
BEST = "checkpoint_best.pt"
_NUMBERED = re.compile(r"checkpoint_(?:epoch|step)_(\d+)\.pt")


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write `checkpoint` so that the file under its final name is always whole."""
    with write_atomically(path) as temporary:
        torch.save({"format": FORMAT, **checkpoint}, temporary)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Open a checkpoint on the CPU without running any code that it may hold.

    Raises UserError when the file is not one of ours.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises one of many types: all are told, none is swallowed
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: not a usable checkpoint ({type(error).__name__}: {reason})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of hindi_babylm (format {FORMAT})")
    return checkpoint


def copy_as_best(path: Path) -> Path:
    """Give the checkpoint at `path` its second name, `checkpoint_best.pt`, without writing its bytes again."""
    best = path.with_name(BEST)
    with write_atomically(best) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
    return best


def rotate_checkpoints(folder: Path, *, limit: int | None) -> None:
    """Delete the oldest numbered checkpoints past `limit`; the best one is none of them."""
    if limit is None:
        return
    numbered = {path: int(match[1]) for path in folder.iterdir() if (match := _NUMBERED.fullmatch(path.name))}
    for path in sorted(numbered, key=numbered.__getitem__)[:-limit]:
        path.unlink()
