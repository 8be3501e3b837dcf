"""Say once what a run shows of the specification's symptoms, with the figure seen and the recipe keys that mend it.

The rules are pure functions of the logged figures, so that they never wait for the device. Symptoms and remedies
are those of the specification's troubleshooting; ranges and speeds are its tables'. Thresholds that it does not
give were chosen so that no healthy run meets them; docs/decisions.md lists them.
"""

import math
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hindi_babylm.console import say
from hindi_babylm.storage import UserError, first_line, is_out_of_memory

if TYPE_CHECKING:
    from hindi_babylm.training.arguments import HindiTrainingArguments

WINDOW = 20  # steps that a mean of losses is taken over
SPEED_SECONDS = 30.0  # that a speed is measured over
SMALLEST = 20e6  # parameters; the specification's models begin at 40M, and much smaller ones have ranges of their own


def learning_rate_advice(parameters: int, learning_rate: float) -> str | None:
    """Judge AdamW's peak rate by "Recommended Ranges": under 50M, about 100M and over 300M parameters.

    Between about 100M and over 300M both ranges are allowed.
    """
    if parameters < SMALLEST:
        return None
    ranges = ((50e6, 1e-3, 3e-3), (150e6, 1e-4, 1e-3), (300e6, 1e-5, 1e-3), (math.inf, 1e-5, 1e-4))
    low, high = next((low, high) for below, low, high in ranges if parameters <= below)
    if low <= learning_rate <= high:
        return None
    return (
        f"learning_rate {learning_rate:g} is outside of {low:g} to {high:g}, the range recommended for "
        f"{parameters / 1e6:.0f}M parameters; set learning_rate inside of it"
    )


def batch_advice(parameters: int, batch: int) -> str | None:
    """Judge the rows of an optimizer step by the table under "Batch Size", which goes from 8 to 64."""
    if parameters < SMALLEST or 8 <= batch <= 64:
        return None
    remedy = (
        "gradients are noisy; raise global_batch_size (gradient_accumulation_steps follows, memory stays)"
        if batch < 8
        else "an epoch has few steps; lower global_batch_size, or raise learning_rate with it"
    )
    return f"global_batch_size {batch} is outside of 8 to 64, the recommended range: {remedy}"


def divergence_advice(means: Sequence[float]) -> str | None:
    """Report a mean loss 1 nat above the lowest: the perplexity has grown by the factor e."""
    if len(means) < 2 or means[-1] <= min(means) + 1:
        return None
    return (
        f"training loss rose from {min(means):.2f} to {means[-1]:.2f} (means of {WINDOW} steps): divergence; "
        "lower learning_rate by a factor of 3, raise warmup_steps, or lower max_grad_norm"
    )


def plateau_advice(means: Sequence[float], warmup: int) -> str | None:
    """Report a mean loss that 100 steps after the warmup has fallen by less than 5 % ("Loss Not Decreasing")."""
    if len(means) < 2 or WINDOW * (len(means) - 1) < warmup + 100 or means[-1] < 0.95 * means[0]:
        return None
    return (
        f"training loss does not fall ({means[0]:.2f} -> {means[-1]:.2f} by step {WINDOW * len(means)}, means of "
        f"{WINDOW} steps); change learning_rate by a factor of 3 (within 1e-5 to 1e-3), raise global_batch_size, "
        "make model_config smaller, or look into corpus.json"
    )


def overfitting_advice(evaluations: Sequence[tuple[float, float]], patience: int | None) -> str | None:
    """Report three rises of the validation loss in a row, of 0.02 nats or more, while the training loss falls.

    `evaluations` holds the mean training loss before each evaluation, and its validation loss.
    """
    last = evaluations[-4:]
    train, validation = [pair[0] for pair in last], [pair[1] for pair in last]
    rises = all(before < after for before, after in pairwise(validation))
    if len(last) < 4 or not rises or validation[-1] < validation[0] + 0.02 or train[-1] >= train[0]:
        return None
    stop = "lower num_train_epochs" if patience else "set early_stopping_patience"
    return (
        f"validation loss rose for 3 evaluations ({validation[0]:.2f} -> {validation[-1]:.2f}) while training loss "
        f"fell ({train[0]:.2f} -> {train[-1]:.2f}): overfitting; raise dropout or weight_decay, {stop}, make "
        "model_config smaller, or add text"
    )


def speed_advice(parameters: int, tokens_per_second: float) -> str | None:
    """Judge the speed by "Training Speed (on V100 GPU)": 8000, 5000 and 2500 tokens a second at 40M, 110M and 220M."""
    if not SMALLEST <= parameters <= 300e6:
        return None
    size, expected = min(((40e6, 8000), (110e6, 5000), (220e6, 2500)), key=lambda row: abs(row[0] - parameters))
    if tokens_per_second >= expected:
        return None
    return (
        f"{tokens_per_second:,.0f} tokens a second are slow (a V100 trains {size / 1e6:.0f}M parameters at "
        f"{expected:,}); set precision auto, raise per_device_train_batch_size, or start with accelerate launch on a "
        "GPU, or on more of them"
    )


class Advice(TrainerCallback, ExportableState):
    """Print each advice once, and keep it in `given` by its symptom, as `results.json` will have it.

    `given` goes into every checkpoint, so that a resumed run repeats and forgets none. `block_size` is in tokens.
    """

    def __init__(self, *, block_size: int) -> None:
        self.block_size = block_size
        self.given: dict[str, dict[str, Any]] = {}

    def state(self) -> dict[str, Any]:
        return {"args": {"block_size": self.block_size}, "attributes": {"given": self.given}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.given = dict(self.given) if state.global_step else {}
        self._parameters: int = kwargs["model"].num_parameters()
        self._warmup: int = args.get_warmup_steps(state.max_steps)
        self._losses: list[float] = []
        self._means: list[float] = []
        self._evaluations: list[tuple[float, float]] = []
        self._since: tuple[float, int] | None = None
        # What the log of a resumed run shows was said before it was stopped.
        self._silent = state.global_step > 0 or not state.is_world_process_zero
        if args.muon_learning_rate is None and args.optim.startswith("adamw"):
            self._give(0, "learning rate", learning_rate_advice(self._parameters, args.learning_rate))
        self._give(0, "batch", batch_advice(self._parameters, args.global_batch_size))
        for event in state.log_history:
            self._take(event, event["step"], args)
        self._silent = not state.is_world_process_zero

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._take(kwargs["logs"], state.global_step, args)
        if "loss" in kwargs["logs"]:
            self._time(state.global_step, args)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure the speed from the next transfer on: the time of an evaluation is none of the training's."""
        self._since = None

    def _take(self, event: dict[str, Any], step: int, args: Any) -> None:
        loss = event.get("loss", event.get("eval_loss"))
        if loss is None or not math.isfinite(loss):  # `divergence` ends the run then
            return
        if "loss" in event:
            self._losses.append(loss)
            if len(self._losses) == WINDOW:
                self._means.append(sum(self._losses) / WINDOW)
                self._losses = []
                self._give(step, "divergence", divergence_advice(self._means))
                self._give(step, "plateau", plateau_advice(self._means, self._warmup))
        elif "epoch_train_loss" in event:
            self._evaluations.append((event["epoch_train_loss"], loss))
            self._give(step, "overfitting", overfitting_advice(self._evaluations, args.early_stopping_patience))

    def _time(self, step: int, args: Any) -> None:
        """Measure the speed between two transfers of the log, when the device has just been waited for."""
        now = time.monotonic()
        if self._since is None:
            self._since = now, step
        elif now >= self._since[0] + SPEED_SECONDS:
            tokens = (step - self._since[1]) * args.global_batch_size * self.block_size
            self._give(step, "speed", speed_advice(self._parameters, tokens / (now - self._since[0])))

    def _give(self, step: int, symptom: str, advice: str | None) -> None:
        if advice is not None and symptom not in self.given:
            self.given[symptom] = {"step": step, "symptom": symptom, "text": advice}
            if not self._silent:
                text = textwrap.wrap(f"Advice: {advice}", 80, subsequent_indent="  ", break_on_hyphens=False)
                say("\n".join(text))


@contextmanager
def out_of_memory_told(args: "HindiTrainingArguments", *, block_size: int) -> Iterator[None]:
    """Turn an exhausted memory, of the GPU or the CPU, into a UserError that names the sizes and the ways out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error) or type(error).__name__
        batch = args.per_device_train_batch_size or 1
        ways = [
            f"set per_device_train_batch_size {batch // 2} (global_batch_size stays)" if batch > 1 else "",
            "" if args.gradient_checkpointing else "set gradient_checkpointing true",
            "" if args.bf16 or args.fp16 else "set precision bf16",
            f"shorten block_size {block_size}",
            "lower per_device_eval_batch_size if it happened in an evaluation",
            "make model_config smaller",
        ]
        raise UserError(
            f"out of memory with per_device_train_batch_size {batch} and block_size {block_size}: "
            f"{', '.join(way for way in ways if way)} ({reason})"
        ) from error
