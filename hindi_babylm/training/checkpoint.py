"""Training checkpoints: one `.pt` file of plain tensors and plain Python types, from which a run goes on exactly."""

import json
import math
import os
import random
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy
from transformers.training_args import ParallelMode

from hindi_babylm.console import say, warn
from hindi_babylm.masking import auto_class
from hindi_babylm.storage import UserError, differing_keys, first_line, write_atomically
from hindi_babylm.training.averaging import KEY, evaluated_weights
from hindi_babylm.training.callbacks import checkpoint_path, ends_epoch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hindi_babylm.training.arguments import HindiTrainingArguments
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

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


def write_checkpoint(trainer: "HindiLanguageModelTrainer") -> None:
    """Write the checkpoint of this moment, as the best one too if its evaluation was; every process must call it."""
    trainer.store_flos()
    path = checkpoint_path(trainer.args, trainer.state)
    is_best = trainer.state.best_global_step == trainer.state.global_step
    if is_best:
        trainer.state.best_model_checkpoint = str(path.parent)
    state = collect_state(trainer)
    if trainer.args.should_save:
        trainer.writer.submit(path, state, is_best=is_best, limit=trainer.args.save_total_limit)


def collect_state(trainer: "HindiLanguageModelTrainer") -> dict[str, Any]:
    """Collect the specification's keys and what exact resume needs; every process must call it."""
    state, accelerator = trainer.state, trainer.accelerator
    assert trainer.optimizer is not None
    assert trainer.lr_scheduler is not None
    model = accelerator.unwrap_model(trainer.model)
    exportable = [part for part in trainer.callback_handler.callbacks if isinstance(part, ExportableState)]
    callbacks: dict[str, Any] = {type(part).__name__: part.state() for part in [*exportable, trainer.control]}
    last = {name: values[-1] if values else None for name, values in trainer.metrics.items()}
    return {
        "epoch": int(state.epoch or 0),
        "step": state.global_step,
        "model_state_dict": model.state_dict(),
        **({KEY: trainer.average.state_dict(model)} if trainer.average.decay is not None else {}),
        "optimizer_state_dict": trainer.optimizer.state_dict(),
        "scheduler_state_dict": trainer.lr_scheduler.state_dict(),
        "train_loss": last["train_loss"],
        "val_loss": last["val_loss"],
        "perplexity": last["perplexity"],
        "config": trainer.config,
        "random_state": torch.get_rng_state(),
        "seconds": trainer.seconds,
        "finished": trainer.control.should_training_stop,
        "precision": trainer.args.precision,
        "tracker_run_ids": dict(trainer.trackers.run_ids),
        "model_config": json.loads(model.config.to_json_string(use_diff=False))
        | {"architectures": [type(model).__name__]},
        "trainer_state": {**_plain_state(state), "stateful_callbacks": callbacks},
        "scaler_state_dict": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
        "random_states": gather_object(
            [_random_states(distributed=trainer.args.parallel_mode == ParallelMode.DISTRIBUTED)]
        ),
    }


def check_fit(checkpoint: Mapping[str, Any], trainer: "HindiLanguageModelTrainer", *, path: Any) -> None:
    """Raise UserError unless the checkpoint was trained by the trainer's recipe on a model of its shapes."""
    different = differing_keys(checkpoint["config"], trainer.config)
    if different:
        raise UserError(
            f"{path}: the checkpoint is of another recipe (it differs in {', '.join(different)}), whose optimizer and "
            "schedule it would bring along: give the recipe that it was trained with"
        )
    own, saved = trainer.accelerator.unwrap_model(trainer.model).state_dict(), checkpoint["model_state_dict"]
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in saved.items()}:
        raise UserError(f"{path}: the checkpoint is of another model: give the recipe that it was trained with")
    if checkpoint["precision"] != trainer.args.precision:
        warn(
            f"trained in {checkpoint['precision']} so far and from here in {trainer.args.precision}: "
            "the result is not that of an uninterrupted run"
        )


@contextmanager
def unpacked(checkpoint: Mapping[str, Any], folder: Path, args: "HindiTrainingArguments") -> Iterator[str]:
    """Lay a checkpoint out as the folder that the stock Trainer resumes from, so that the stock code restores it."""
    rank, processes = args.process_index, args.world_size
    states = checkpoint["random_states"]
    if len(states) != processes:
        raise UserError(
            f"the checkpoint was written by {len(states)} processes and cannot be continued exactly by {processes}: "
            f"start {len(states)}, or begin again with --overwrite"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".resumed-", suffix=".tmp") as name:
        folder = Path(name)
        torch.save(checkpoint["model_state_dict"], folder / "pytorch_model.bin")
        torch.save(checkpoint["optimizer_state_dict"], folder / "optimizer.pt")
        torch.save(checkpoint["scheduler_state_dict"], folder / "scheduler.pt")
        if checkpoint["scaler_state_dict"] is not None:
            torch.save(checkpoint["scaler_state_dict"], folder / "scaler.pt")
        own = dict(states[rank])
        own["numpy"] = (own["numpy"][0], own["numpy"][1].numpy().astype(np.uint32), *own["numpy"][2:])
        torch.save(own, folder / ("rng_state.pth" if processes == 1 else f"rng_state_{rank}.pth"))
        (folder / "trainer_state.json").write_text(json.dumps(checkpoint["trainer_state"]), encoding="utf-8")
        yield name


def _plain_state(state: Any) -> dict[str, Any]:
    """Return a TrainerState as JSON would hold it."""
    plain: dict[str, Any] = json.loads(json.dumps(vars(state)))
    return plain


def _random_states(*, distributed: bool) -> dict[str, Any]:
    """Return this process's generators as tensors and plain types: weights_only refuses NumPy's arrays."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # the generator that the Trainer seeds
    states = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all() if distributed else torch.cuda.get_rng_state()
    return states


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint_*.pt") if _NUMBERED.fullmatch(path.name)]
