"""The learning-rate range test (Smith 2017): a sweep of rates over real steps that leaves no trace."""

import copy
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl

from hindi_babylm.console import bar
from hindi_babylm.storage import UserError
from hindi_babylm.training.step_log import StepLog

if TYPE_CHECKING:
    from tqdm import tqdm

    from hindi_babylm.training.trainer import EpochSampler, HindiLanguageModelTrainer

START_LR, END_LR, NUM_STEPS = 1e-6, 1.0, 100
SMOOTHING = 0.9  # of the loss over steps: a window of about ten
DIVERGED = 4.0  # times the lowest smoothed loss


def sweep_rates(start_lr: float, end_lr: float, num_steps: int) -> list[float]:
    """Return `num_steps` rates from `start_lr` to `end_lr`, each the same multiple of the one before.

    >>> [round(rate, 6) for rate in sweep_rates(1e-4, 1e-1, 4)]
    [0.0001, 0.001, 0.01, 0.1]
    """
    growth = math.log(end_lr / start_lr) / (num_steps - 1)
    return [start_lr * math.exp(growth * step) for step in range(num_steps)]


def smoothed(losses: Sequence[float], smoothing: float = SMOOTHING) -> list[float]:
    """Return exponentially weighted means of the losses so far, corrected for the start at 0 (as Adam's moments are).

    >>> [round(loss, 6) for loss in smoothed([3.0, 3.0, 3.0])]
    [3.0, 3.0, 3.0]
    """
    mean, means = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = smoothing * mean + (1 - smoothing) * loss
        means.append(mean / (1 - smoothing**step))
    return means


def suggest(rates: Sequence[float], means: Sequence[float]) -> dict[str, float]:
    """Return the rate `steepest`, where the loss falls fastest by the rate's logarithm, and `minimum_tenth`.

    `minimum_tenth` is a tenth of the rate at which the loss is lowest. Rates above that one are not looked at. Raises
    ValueError for a loss that never falls.

    >>> suggest([1e-4, 1e-3, 1e-2, 1e-1, 1.0], [9.0, 8.5, 6.0, 5.0, 9.0])
    {'steepest': 0.01, 'minimum_tenth': 0.01}
    """
    lowest = min(range(len(means)), key=lambda step: means[step])
    if lowest == 0:
        raise ValueError("the loss falls at no rate")
    slopes = np.gradient(np.asarray(means[: lowest + 1]), np.log(rates[: lowest + 1]))
    return {"steepest": rates[int(np.argmin(slopes))], "minimum_tenth": rates[lowest] / 10}


def find_learning_rate(
    trainer: "HindiLanguageModelTrainer",
    *,
    start_lr: float = START_LR,
    end_lr: float = END_LR,
    num_steps: int = NUM_STEPS,
) -> dict[str, Any]:
    """Train up to `num_steps` steps at rates that grow from `start_lr` to `end_lr`, and suggest one of them.

    `learning_rate` is swept, and a `muon_learning_rate` in proportion to it. The sweep ends early when the smoothed
    loss is 4 times its lowest, or no number. Returns the `rates` (per step), `losses` and `smoothed_losses` (nats per
    token), if it `diverged`, the rates of `suggest`, and as `suggestion` the recipe keys with the steepest. Every
    process must call it. Weights, optimizer, schedule, generators, order and layout of blocks and the trainer's state
    are afterwards what they were. Raises UserError when the weights are sharded, and when the loss falls at no rate.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UserError("a sweep of learning rates cannot put sharded weights back: start it without fsdp or deepspeed")
    rates = sweep_rates(start_lr, end_lr, num_steps)
    sweep = _Sweep(rates, peak=trainer.args.learning_rate, sampler=copy.copy(trainer.train_sampler))
    with _no_trace(trainer):
        trainer.args, trainer.control = copy.copy(trainer.args), TrainerControl()
        trainer.args.max_steps, trainer.args.eval_on_start = num_steps, False
        trainer.args.lr_scheduler_type, trainer.args.lr_scheduler_kwargs = "constant", None
        trainer.step_log = StepLog(diverges=True)
        trainer.train_sampler = sweep.sampler
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.callback_handler.callbacks = [sweep]  # nothing is written, evaluated or told
        trainer.train()
    means, rates = smoothed(sweep.losses), rates[: len(sweep.losses)]
    try:
        rules = suggest(rates, means)
    except ValueError as error:
        raise UserError(f"{error} from {start_lr:g} to {end_lr:g}: lower start_lr, or look into the data") from error
    suggestion = {"learning_rate": _rounded(rules["steepest"])}
    if trainer.args.muon_learning_rate is not None:
        ratio = trainer.args.muon_learning_rate / trainer.args.learning_rate
        suggestion["muon_learning_rate"] = _rounded(rules["steepest"] * ratio)
    curves = {"rates": rates, "losses": sweep.losses, "smoothed_losses": means}
    return {"suggestion": suggestion, **rules, "diverged": sweep.diverged, **curves}


def _rounded(rate: float) -> float:
    """Return two significant digits of a rate: a sweep tells no more."""
    return float(f"{rate:.1e}")


class _Sweep(TrainerCallback):
    """Set the rate of each step, and end the training after the last or at a loss that has diverged."""

    def __init__(self, rates: Sequence[float], *, peak: float, sampler: "EpochSampler | None") -> None:
        self.rates, self.peak, self.sampler = rates, peak, sampler
        self.losses: list[float] = []
        self.diverged = False
        self.bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = bar("Sweeping rates", len(self.rates)) if state.is_world_process_zero else None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.sampler is not None:
            self.sampler.set_epoch(int(state.epoch or 0))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for group in kwargs["optimizer"].param_groups:
            group["lr"] = group["initial_lr"] * self.rates[state.global_step] / self.peak

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = True
        control.should_training_stop = state.global_step >= len(self.rates)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" not in kwargs["logs"]:
            return  # the summary at the end
        loss = kwargs["logs"]["loss"]
        if self.bar is not None:
            self.bar.update()
        means = smoothed([*self.losses, loss]) if math.isfinite(loss) else []
        self.diverged = not means or means[-1] > DIVERGED * min(means)
        if math.isfinite(loss):
            self.losses.append(loss)
        control.should_training_stop = control.should_training_stop or self.diverged

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


@contextmanager
def _no_trace(trainer: "HindiLanguageModelTrainer") -> Iterator[None]:
    """Put back everything that a training in the block changes: the trainer, its model, and all generators."""
    model: Any = trainer.model
    scaler = trainer.accelerator.scaler
    scale = scaler.state_dict() if scaler is not None else {}
    # What a training replaces is put back with the attributes; what it changes in place is copied.
    attributes = [(part, dict(vars(part))) for part in (trainer, trainer.callback_handler, trainer.accelerator, model)]
    weights = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
    parameters = [(parameter, parameter.grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    dataset: Any = trainer.train_dataset
    epoch = getattr(dataset, "epoch", None)  # accelerate sets that of any data set which has epochs
    generators = random.getstate(), np.random.get_state()  # noqa: NPY002  # the generator that the Trainer seeds
    try:
        with torch.random.fork_rng([trainer.args.device] if trainer.args.device.type == "cuda" else []):
            yield
    finally:
        random.setstate(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        if epoch is not None:
            dataset.set_epoch(epoch)
        for part, values in attributes:
            vars(part).clear()
            vars(part).update(values)
        model.load_state_dict(weights)
        for parameter, gradient in parameters:
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
        if scaler is not None:
            scaler.load_state_dict(scale)
