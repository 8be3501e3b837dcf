"""The log of every step, kept on the device until the next transfer."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from hindi_babylm.training.divergence import FiniteWatch, check_loss

if TYPE_CHECKING:
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer


class _Step(NamedTuple):
    number: int
    epoch: float
    loss: torch.Tensor
    norm: torch.Tensor | float
    learning_rate: float
    seconds: float


class StepLog(TrainerCallback):
    """Keep losses and gradient norms on the device, so that every step is logged without a synchronisation a step.

    A loss that is not finite is logged at once and raises DivergedError, unless `diverges` expects it. Where there is
    an order of rows, each event has the predicted tokens of its step a second as `tokens_per_second`: from the end of
    the step before, without evaluations, checkpoints and milestones. On a GPU a step's own time is known to within
    the step that the device is behind; the time from one transfer to the next is exact.
    """

    def __init__(self, *, diverges: bool = False) -> None:
        self.diverges = diverges
        self._steps: list[_Step] = []
        self._watch = FiniteWatch()
        self._since = perf_counter()  # what a step's time counts from
        self._row_tokens: tuple[int, np.ndarray] = (-1, np.empty(0))  # of one epoch, row by row

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._lap()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._lap()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._lap()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._lap()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what is done within out of the time of the step."""
        begun = perf_counter()
        yield
        self._since += perf_counter() - begun

    def take(
        self,
        trainer: "HindiLanguageModelTrainer",
        loss: torch.Tensor,
        norm: torch.Tensor | float | None,
        learning_rate: float | None,
        start_time: float,
    ) -> None:
        """Take over the `loss` of a new step, set it to zero, and log all steps so far when anything else is due."""
        state, control = trainer.state, trainer.control
        finite = True
        last = self._steps[-1].number if self._steps else trainer._globalstep_last_logged
        if state.global_step > last:
            norm = 0.0 if norm is None else norm  # `or` would wait for the device
            place = state.global_step, state.epoch or 0.0
            finite = self._watch.is_finite(loss)
            self._steps.append(_Step(*place, loss.clone(), norm, learning_rate or 0.0, self._lap()))
            loss.zero_()
        due = control.should_log or control.should_evaluate or control.should_save or control.should_training_stop
        if due or not finite:
            self.write(trainer, start_time)
        control.should_log = False

    def write(self, trainer: "HindiLanguageModelTrainer", start_time: float | None = None) -> None:
        """Log the steps since the last call one by one, each under its own number."""
        steps, self._steps = self._steps, []
        if not steps:
            return
        state = trainer.state
        now = state.global_step, state.epoch
        # A process has the loss of its own rows, scaled by the number of processes: the mean is the batch's.
        losses = trainer.accelerator.gather(torch.stack([step.loss for step in steps])[None]).mean(dim=0)
        norms = torch.stack([_whole(step.norm, losses.device) for step in steps])
        figures = list(zip(losses.tolist(), norms.tolist(), strict=True))
        if steps[-1].number == state.global_step:  # now over on the device too; a milestone asks in the step after it
            steps[-1] = steps[-1]._replace(seconds=steps[-1].seconds + self._lap())
        for step, (loss, norm) in zip(steps, figures, strict=True):
            state.global_step, state.epoch = step.number, step.epoch
            event = {"loss": loss, "grad_norm": norm, "learning_rate": step.learning_rate}
            if trainer.train_sampler is not None:
                event["tokens_per_second"] = round(self._tokens(trainer, step.number) / step.seconds, 1)
            trainer.log(event, start_time)
            trainer._total_loss_scalar += loss
        state.global_step, state.epoch = now
        trainer._globalstep_last_logged = steps[-1].number
        for step, loss in zip(steps, losses.tolist(), strict=True) if not self.diverges else ():
            check_loss(trainer, "training", loss, step.number)

    def _lap(self) -> float:
        """Return the seconds since the last call."""
        before, self._since = self._since, perf_counter()
        return self._since - before

    def _tokens(self, trainer: "HindiLanguageModelTrainer", step: int) -> int:
        """Return the predicted tokens of a step, on all processes."""
        assert trainer.train_sampler is not None
        first, last = trainer.rows_seen(step - 1), trainer.rows_seen(step)
        epoch, start = divmod(first, len(trainer.train_sampler))
        if self._row_tokens[0] != epoch:
            blocks: Any = trainer.train_dataset
            # A row of padding has index -1, and no token.
            self._row_tokens = epoch, np.append(blocks.tokens(), 0)[trainer.train_sampler.order(epoch)]
        return int(self._row_tokens[1][start : start + last - first].sum())


def _whole(norm: torch.Tensor | float, device: torch.device) -> torch.Tensor:
    """Return a gradient norm as a plain tensor; sharded gradients have it in parts on all processes."""
    return norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm, device=device)
