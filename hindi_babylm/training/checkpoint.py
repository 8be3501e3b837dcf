"""Checkpoint files: one `.pt` of plain tensors and plain Python types each, written in a thread, found, rotated."""

import math
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from hindi_babylm.console import say, warn
from hindi_babylm.masking import auto_class
from hindi_babylm.storage import UserError, first_line, write_atomically
from hindi_babylm.training.averaging import evaluated_weights
from hindi_babylm.training.callbacks import ends_epoch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FORMAT = 1
BEST = "checkpoint_best.pt"
_NUMBERED = re.compile(r"checkpoint_(?:epoch|step)_(\d+)\.pt")


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write `checkpoint` so that the file under its final name is always whole.

    Raises OSError when it cannot be written.

    >>> save_checkpoint(Path("checkpoint_epoch_1.pt"), {"epoch": 1, "val_loss": 3.9856})
    >>> read_checkpoint("checkpoint_epoch_1.pt")["val_loss"]
    3.9856
    """
    with write_atomically(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"format": FORMAT, **checkpoint}, file)
        except RuntimeError as error:  # the archive's end, which torch cannot write after the disk's error
            raise error.__context__ or error from None


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU, without running any code that a foreign file may hold.

    The file is a zip archive with a CRC-32 of each record, which are checked first. Raises UserError when it is
    missing, damaged or not one of ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise UserError(f"{path}: not a usable checkpoint (its record {damaged} is damaged)")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a damaged archive raises one of many types: all are told, none is swallowed
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{path}: not a usable checkpoint ({reason})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of hindi_babylm (format {FORMAT})")
    return checkpoint


def load_checkpoint(path: str | os.PathLike[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Return the model of a checkpoint, ready for use, and the tokenizer of its run folder.

    Where the run averaged its weights, the model has the averages.

    Raises UserError for a file that is no checkpoint of ours, or one that was moved out of its run folder. An example:
    README.md, "The results in Python".
    """
    from transformers import AutoConfig, AutoTokenizer

    checkpoint = read_checkpoint(path)
    folder = Path(path).resolve().parent.parent / "tokenizer"
    if not folder.is_dir():
        raise UserError(f"{path}: its tokenizer is not at {folder}: leave checkpoints inside their run folder")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    settings = dict(checkpoint["model_config"])
    (architecture,) = settings["architectures"] or [None]  # a file of before there were masked models names none
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model: Any = auto_class(architecture).from_config(config)
    model.load_state_dict(evaluated_weights(checkpoint))
    return model.eval(), tokenizer


def newest_checkpoint(folder: Path, *, until: float = math.inf) -> tuple[Path | None, list[str]]:
    """Return the newest whole numbered checkpoint of `folder`, and a line on each newer one that is not whole.

    Those of steps after `until` are passed over without a line.
    """
    refused = []
    for path in sorted(_numbered(folder), key=_age, reverse=True):
        try:
            step = read_checkpoint(path)["step"]
        except UserError as error:
            refused.append(str(error))
        else:
            if step <= until:
                return path, refused
    return None, refused


def copy_as_best(path: Path, folder: Path) -> Path:
    """Give the checkpoint at `path` the name `checkpoint_best.pt` in `folder`, without writing its bytes again."""
    best = folder / BEST
    with write_atomically(best) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(path, temporary)
    return best


def adopt_best(checkpoint: Mapping[str, Any], path: Path, folder: Path, *, write: bool, needed: bool) -> None:
    """Let `folder` hold the best checkpoint that the state of `checkpoint`, read from `path`, speaks of.

    A kill may have come between the two names of the best checkpoint, and a named checkpoint may be of another
    folder, which is left as it is. Only the process that may `write` touches files. Raises UserError when the best
    checkpoint is `needed` and nowhere to be had; where it is not, none may have been written at the best evaluation.
    """
    state = checkpoint["trainer_state"]
    step = state["best_global_step"]
    # The stock Trainer forgets a best checkpoint that is not a folder: it gets the folder of the best file.
    state["best_model_checkpoint"] = str(folder) if step else None
    if not step or not write:
        return
    if checkpoint["step"] == step:  # read already, whole
        copy_as_best(path, folder)
        return
    for candidate in dict.fromkeys((folder / BEST, path.with_name(BEST), *_numbered(path.parent))):
        try:
            found = candidate.exists() and read_checkpoint(candidate)["step"] == step
        except UserError as damaged:
            warn(f"passed over {damaged}")
            continue
        if found:
            if candidate != folder / BEST:
                copy_as_best(candidate, folder)
            return
    if needed:
        raise UserError(
            f"{path}: its best evaluation was at step {step}, but no whole checkpoint of that step is beside it: "
            "take a later checkpoint, or begin again with --overwrite"
        )


def rotate_checkpoints(folder: Path, *, limit: int | None) -> None:
    """Delete the oldest numbered checkpoints past `limit`; the best one is none of them."""
    if limit is not None:
        # By time and not by number: a run that saves by epochs and was interrupted has names of both kinds.
        for path in sorted(_numbered(folder), key=_age)[:-limit]:
            path.unlink()


class CheckpointWriter(TrainerCallback):
    """Write checkpoints in a thread, one at a time, so that training does not wait for the disk."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None
        self._postponed = False

    def submit(self, path: Path, state: Mapping[str, Any], *, is_best: bool, limit: int | None) -> None:
        """Copy `state` and write it to `path`, and as the best one if it is; then delete those past `limit`."""
        self.wait()
        self._pending = self._thread.submit(self._write, path, _copied(state, {}), is_best, limit)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the evaluation of an epoch come before a checkpoint at its end, which a resumed run would else miss."""
        if control.should_save and ends_epoch(state) and args.eval_strategy == IntervalStrategy.EPOCH:
            control.should_save, self._postponed = False, True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what was put off to the end of the epoch."""
        control.should_save, self._postponed = control.should_save or self._postponed, False

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let no training end before its last checkpoint is whole."""
        self.wait()

    def wait(self) -> None:
        """Return when what was submitted is on the disk; raise UserError for what kept it from getting there."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            try:
                pending.result()
            except OSError as error:  # a full disk, most of all
                raise UserError(
                    f"a checkpoint could not be written: {error}: make room, and the same command continues from the "
                    "last whole one"
                ) from error

    @staticmethod
    def _write(path: Path, state: Mapping[str, Any], is_best: bool, limit: int | None) -> None:
        save_checkpoint(path, state)
        if is_best:
            copy_as_best(path, path.parent)
        rotate_checkpoints(path.parent, limit=limit)
        say(f"Checkpoint saved: {path}{' (best so far)' if is_best else ''}")


def _copied(value: Any, seen: dict[tuple[Any, ...], torch.Tensor]) -> Any:
    """Copy the tensors of nested dicts and lists to the CPU; tied ones stay one, as they are in the file."""
    if isinstance(value, torch.Tensor):
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() == 0 or key not in seen:
            seen[key] = value.detach().to("cpu", copy=True)
        return seen[key]
    if isinstance(value, Mapping):
        return {name: _copied(item, seen) for name, item in value.items()}
    return [_copied(item, seen) for item in value] if isinstance(value, list) else value


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint_*.pt") if _NUMBERED.fullmatch(path.name)]
