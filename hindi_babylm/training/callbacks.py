"""What a run writes while it trains: the metrics file, the metric lists and the console."""

import json
import sys
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

# A cluster's log gets a line at so many points of an epoch instead of a bar.
LINES_PER_EPOCH = 20


class MetricsFile(TrainerCallback):
    """Append one JSON object per log event to `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **kwargs["logs"]}) + "\n")


class MetricLists(TrainerCallback):
    """Fill `trainer.metrics`: an entry an evaluation, or an epoch where nothing is evaluated.

    `train_loss` is the mean of the steps' losses since the entry before, in nats per token.
    """

    def __init__(self, metrics: dict[str, list[float]]) -> None:
        self.metrics = metrics
        self.losses: list[float] = []
        self.learning_rate = 0.0

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" in logs:
            self.losses.append(logs["loss"])
            self.learning_rate = logs["learning_rate"]
            if args.eval_strategy == IntervalStrategy.NO and state.epoch == int(state.epoch or 0):
                self._close()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.losses:
            self._close()
            self.metrics["val_loss"].append(kwargs["metrics"]["eval_loss"])
            self.metrics["perplexity"].append(kwargs["metrics"]["eval_perplexity"])

    def _close(self) -> None:
        self.metrics["train_loss"].append(sum(self.losses) / len(self.losses))
        self.metrics["learning_rate"].append(self.learning_rate)
        self.losses = []


class Console(TrainerCallback):
    """Print the specification's lines: epoch, bars with the loss, losses, perplexity, checkpoints."""

    def __init__(self, metrics: dict[str, list[float]]) -> None:
        self.metrics = metrics
        self.training: tqdm[Any] | None = None
        self.evaluating: tqdm[Any] | None = None
        self.steps_per_epoch = 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        batches = len(kwargs["train_dataloader"])
        self.steps_per_epoch = -(-batches // args.gradient_accumulation_steps)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        epoch, start = divmod(state.global_step, self.steps_per_epoch)
        say(f"\nEpoch {epoch + 1}/{-(-state.max_steps // self.steps_per_epoch)}")
        total = min(self.steps_per_epoch, state.max_steps - epoch * self.steps_per_epoch)
        self.training = bar("Training", total, initial=start)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.training is not None:
            self.training.update()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if self.training is None or "loss" not in logs:
            return
        self.training.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        if self.training.disable and state.global_step % max(1, self.training.total // LINES_PER_EPOCH) == 0:
            say(f"Training: step {state.global_step}/{state.max_steps}, loss={logs['loss']:.3f}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if self.evaluating is None:
            self.evaluating = bar("Evaluating", len(kwargs["eval_dataloader"]))
        self.evaluating.update()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.evaluating is not None:
            self.evaluating.close()
            self.evaluating = None
        if not state.is_world_process_zero:
            return
        if self.metrics["train_loss"]:
            say(f"Train Loss: {self.metrics['train_loss'][-1]:.4f}")
        say(f"Val Loss: {kwargs['metrics']['eval_loss']:.4f}")
        say(f"Perplexity: {kwargs['metrics']['eval_perplexity']:.2f}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            best = " (best so far)" if state.best_global_step == state.global_step else ""
            say(f"Checkpoint saved: {checkpoint_path(args, state)}{best}")

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.training is not None:
            self.training.close()
            self.training = None


def checkpoint_path(args: TrainingArguments, state: TrainerState) -> Path:
    """Return where the checkpoint of this moment lies: `checkpoint_epoch_{N}.pt`, else `checkpoint_step_{N}.pt`."""
    by_epoch = args.save_strategy == "epoch"
    name = f"checkpoint_epoch_{round(state.epoch or 0)}.pt" if by_epoch else f"checkpoint_step_{state.global_step}.pt"
    assert args.output_dir is not None  # TrainingArguments fills it in
    return Path(args.output_dir) / "checkpoints" / name


def bar(description: str, total: int, initial: int = 0) -> "tqdm[Any]":
    """Return a progress bar on stderr; without a terminal it stays silent."""
    return tqdm(total=total, initial=initial, desc=description, disable=None, dynamic_ncols=True, leave=True)


def say(line: str) -> None:
    """Print a line on stdout without tearing a progress bar."""
    tqdm.write(line, file=sys.stdout)
