"""What a run writes while it trains: the metrics file, the metric lists and the console."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from hindi_babylm.console import bar, say, shows_bars, tell_end
from hindi_babylm.storage import write_atomically

# A cluster's log gets a line at so many points of an epoch instead of a bar.
LINES_PER_EPOCH = 20
# The lists of `trainer.metrics`, under the specification's names.
METRICS = ("train_loss", "val_loss", "perplexity", "learning_rate")


class MetricsFile(TrainerCallback):
    """Append one JSON object per step and per evaluation to `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The state that a resumed run starts from knows every event up to its checkpoint: what a killed run wrote
        # after it is written again, and what it did not get to write is not missing.
        if state.is_world_process_zero:
            with write_atomically(self.path) as temporary:
                temporary.write_text("".join(map(_metrics_line, state.log_history)), encoding="utf-8")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_metrics_line({**kwargs["logs"], "step": state.global_step}))


def is_event(logs: Mapping[str, Any]) -> bool:
    """Tell whether logs are of a step, an evaluation or a milestone, and not the stock summary at a training's end."""
    return bool({"loss", "eval_loss", "eval_milestone_loss"} & logs.keys())


def _metrics_line(event: dict[str, Any]) -> str:
    """Return the line of a log event, or nothing for the stock summary at the end, which is in results.json."""
    if not is_event(event):
        return ""
    return (
        json.dumps({"step": event["step"], **{name: value for name, value in event.items() if name != "step"}}) + "\n"
    )


class MetricLists(TrainerCallback):
    """Fill `trainer.metrics`: an entry an evaluation, or an epoch where nothing is evaluated.

    `train_loss` is the mean of the steps' losses since the entry before, in nats per token. The log has it too, as
    `epoch_train_loss` of the event that closes the entry, so that it reaches `metrics.jsonl` and the trackers.
    """

    def __init__(self, metrics: dict[str, list[float]]) -> None:
        self.metrics = metrics
        self.losses: list[float] = []
        self.learning_rate = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The lists follow from the log: those of a resumed run are made from its checkpoint's.
        self.losses = []
        for values in self.metrics.values():
            values.clear()
        for event in state.log_history:
            self._take(args, event)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs, entries = kwargs["logs"], len(self.metrics["train_loss"])
        self._take(args, logs)
        if len(self.metrics["train_loss"]) > entries:
            # The history has a copy of the event, from which a resumed run writes metrics.jsonl again.
            state.log_history[-1]["epoch_train_loss"] = logs["epoch_train_loss"] = self.metrics["train_loss"][-1]

    def _take(self, args: TrainingArguments, event: dict[str, Any]) -> None:
        if "loss" in event:
            self.losses.append(event["loss"])
            self.learning_rate = event["learning_rate"]
            if args.eval_strategy == IntervalStrategy.NO and event["epoch"] == int(event["epoch"]):
                self._close(None)
        elif "eval_loss" in event:
            self._close(event)

    def _close(self, evaluation: dict[str, Any] | None) -> None:
        if not self.losses:
            return  # an evaluation before or after the training, not of it
        self.metrics["train_loss"].append(sum(self.losses) / len(self.losses))
        self.metrics["learning_rate"].append(self.learning_rate)
        if evaluation is not None:
            self.metrics["val_loss"].append(evaluation["eval_loss"])
            self.metrics["perplexity"].append(evaluation["eval_perplexity"])
        self.losses = []


class Console(TrainerCallback):
    """Print the specification's lines: epoch, bars with the loss, losses, perplexity, checkpoints."""

    def __init__(self, metrics: dict[str, list[float]]) -> None:
        self.metrics = metrics
        self.training: tqdm[Any] | None = None
        self.evaluating: tqdm[Any] | None = None
        self.started = 0.0
        self.told = 0
        self.ended = False

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.told = len(self.metrics["train_loss"])  # of a resumed run, those before it
        if state.is_world_process_zero:
            warmup = args.get_warmup_steps(state.max_steps)
            capped = f" (a tenth of the run; {args.warmup_steps:g} asked for)" if 0 < warmup < args.warmup_steps else ""
            name = args.lr_scheduler_type.lower()
            decay = args.get_schedule_arguments(state.max_steps) if name == "warmup_stable_decay" else None
            told = f", decay {decay['num_decay_steps']}" if decay else ""
            say(f"Schedule: {name}, {state.max_steps} steps, warmup {warmup}{capped}{told}")
            # DeepSpeed flattens the groups, and a training that had ended has none.
            if not args.deepspeed and kwargs["optimizer"] is not None:
                say("\n".join(decay_lines(kwargs["optimizer"].param_groups)))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        self._close_ended()
        steps_per_epoch = -(-len(kwargs["train_dataloader"]) // args.gradient_accumulation_steps)
        epoch, start = divmod(state.global_step, steps_per_epoch)
        say("")
        say(f"Epoch {epoch + 1}/{-(-state.max_steps // steps_per_epoch)}", heading=True)
        total = min(steps_per_epoch, state.max_steps - epoch * steps_per_epoch)
        self.training = bar("Training", total, initial=start)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.training is not None:
            self.training.update()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if self.training is None or "loss" not in logs:
            return
        self.training.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        if not shows_bars() and state.global_step % max(1, self.training.total // LINES_PER_EPOCH) == 0:
            say(f"Training: step {state.global_step}/{state.max_steps}, loss={logs['loss']:.3f}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if self.evaluating is None:
            self._close_ended()
            self.evaluating, self.started = bar("Evaluating", len(kwargs["eval_dataloader"])), time.monotonic()
        self.evaluating.update()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.evaluating is not None:
            self.evaluating.close()
            tell_end("Evaluating", f"{self.evaluating.total:,} batches", self.started)
            self.evaluating = None
        if not state.is_world_process_zero:
            return
        if len(self.metrics["train_loss"]) > self.told:  # not for an evaluation after the training
            self.told = len(self.metrics["train_loss"])
            say(f"Train Loss: {self.metrics['train_loss'][-1]:.4f}")
        say(f"Val Loss: {kwargs['metrics']['eval_loss']:.4f}")
        say(f"Perplexity: {kwargs['metrics']['eval_perplexity']:.2f}")

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.ended = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._close_ended()

    def _close_ended(self) -> None:
        """Close the bar of an epoch that has ended: not at its end, for the losses of its last steps come later."""
        if self.training is not None and self.ended:
            self.training.close()
            self.training = None
        self.ended = False


def decay_lines(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how many parameters of an optimizer's groups are decayed, how many are not, and how many are Muon's."""

    def size(chosen: Iterable[Mapping[str, Any]], unit: str = "", of: str = "") -> str:
        tensors = [tensor for group in chosen for tensor in group["params"]]
        return f"{sum(tensor.numel() for tensor in tensors):,}{unit} ({len(tensors)}{of})"

    words = {"unit": " parameters", "of": " tensors"}
    decayed = [group for group in groups if group["weight_decay"]]
    rest = [group for group in groups if not group["weight_decay"]]
    rate = max((group["weight_decay"] for group in decayed), default=0.0)
    lines = [f"Weight decay: {rate:g} on {size(decayed, **words)}, not on {size(rest)}"]
    muon = [group for group in groups if "ns_steps" in group]
    return [*lines, f"Muon: {size(muon, **words)}"] if muon else lines


def checkpoint_path(args: TrainingArguments, state: TrainerState) -> Path:
    """Return where the checkpoint of this moment lies: `checkpoint_epoch_{N}.pt`, else `checkpoint_step_{N}.pt`."""
    # A run that saves by epochs may be interrupted in the middle of one.
    by_epoch = args.save_strategy == "epoch" and is_whole(state.epoch)
    name = f"checkpoint_epoch_{int(state.epoch or 0)}.pt" if by_epoch else f"checkpoint_step_{state.global_step}.pt"
    assert args.output_dir is not None  # TrainingArguments fills it in
    return Path(args.output_dir) / "checkpoints" / name


def is_whole(epoch: float | None) -> bool:
    """Tell whether a run stands at the end of a whole epoch."""
    return epoch == int(epoch or 0)


def ends_epoch(state: TrainerState) -> bool:
    """Tell whether the step is the last of its epoch, which `max_steps` may cut short: an evaluation may follow."""
    return is_whole(state.epoch) or state.global_step >= state.max_steps
