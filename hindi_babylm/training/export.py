"""What a training leaves: folders with a model, and the facts of the training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hindi_babylm.storage import RunFolder, replace_folder, write_json
from hindi_babylm.training.advice import Advice
from hindi_babylm.training.arguments import HindiTrainingArguments
from hindi_babylm.training.divergence import check_weights
from hindi_babylm.training.machine import peak_memory_bytes
from hindi_babylm.training.trainer import HindiLanguageModelTrainer


def export(trainer: HindiLanguageModelTrainer, folder: RunFolder) -> None:
    """Write the trainer's weights and tokenizer to `final_model`, then the facts of the training to `training.json`.

    Every process must call it; the main one writes. `training.json` says that `final_model` is whole. Raises
    DivergedError for weights that are not finite.
    """
    check_weights(trainer)
    save_model(trainer, folder.final_model)
    if not trainer.is_world_process_zero():
        return
    trainer.trackers.close(folder.final_model)
    best = trainer.state.best_model_checkpoint is not None and trainer.args.load_best_model_at_end
    step = trainer.state.best_global_step if best else trainer.state.global_step
    advice = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Advice)]
    record = {
        "which": "best" if best else "last",
        "weights": weights_of(trainer.args),
        "step": step,
        "training": facts(trainer),
    }
    write_json(folder.training, {**record, "advice": [entry for part in advice for entry in part.given.values()]})


def weights_of(args: HindiTrainingArguments) -> str:
    """Return which weights are exported: `trained`, or `ema`, their average."""
    return "trained" if args.ema_decay is None else "ema"


def save_model(trainer: HindiLanguageModelTrainer, path: Path, *, files: Mapping[str, Any] | None = None) -> None:
    """Write the trainer's weights and tokenizer to the folder `path`, which is absent or whole, beside JSON `files`.

    Every process must call it; the main one writes.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model)  # gathered from all processes where it is sharded
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    training, model.config.use_cache = model.config.use_cache, model.can_generate()  # wanted by whoever generates
    try:
        with replace_folder(path) as target:
            model.save_pretrained(target, state_dict=weights)
            tokenizer: Any = trainer.processing_class
            tokenizer.save_pretrained(target)
            for name, content in (files or {}).items():
                write_json(target / name, content)
    finally:
        model.config.use_cache = training


def facts(trainer: HindiLanguageModelTrainer) -> dict[str, Any]:
    """Return what was trained on, in epochs, steps, tokens and words, and what it took, in seconds and bytes."""
    amounts = seen(trainer, trainer.state.global_step)
    return {
        "epochs": trainer.state.epoch,
        "steps": trainer.state.global_step,
        **amounts,
        "seconds": trainer.seconds,
        "tokens_per_second": amounts["tokens"] / trainer.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "precision": trainer.args.precision,
    }


def seen(trainer: HindiLanguageModelTrainer, steps: int) -> dict[str, Any]:
    """Return the `tokens` and `words_seen` of the first `steps` steps of the run."""
    assert trainer.train_sampler is not None
    blocks: Any = trainer.train_dataset
    rows = trainer.rows_seen(steps)
    return {
        "tokens": int(trainer.train_sampler.times_seen(rows) @ blocks.tokens()),
        "words_seen": trainer.train_sampler.words_seen(rows),
    }
