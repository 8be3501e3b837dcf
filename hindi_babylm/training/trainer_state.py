"""What a checkpoint holds of a trainer: collected from it, held against its recipe, and laid out to go on from."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers.trainer_callback import ExportableState
from transformers.training_args import ParallelMode

from hindi_babylm.console import warn
from hindi_babylm.storage import UserError, differing_keys
from hindi_babylm.training.averaging import KEY
from hindi_babylm.training.callbacks import checkpoint_path

if TYPE_CHECKING:
    from hindi_babylm.training.arguments import HindiTrainingArguments
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer


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
