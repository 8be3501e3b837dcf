"""The log of every step, kept on the device until the next transfer."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.distributed.tensor import DTensor

from hindi_babylm.training.divergence import FiniteWatch, check_loss

if TYPE_CHECKING:
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer


class _Step(NamedTuple):
    number: int
    epoch: float
    loss: torch.Tensor
    norm: torch.Tensor | float
    learning_rate: float


class StepLog:
    """Keep losses and gradient norms on the device, so that every step is logged without a synchronisation a step.

    A loss that is not finite is logged at once and raises DivergedError, unless `diverges` expects it.
    """

    def __init__(self, *, diverges: bool = False) -> None:
        self.diverges = diverges
        self._steps: list[_Step] = []
        self._watch = FiniteWatch()

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
            self._steps.append(_Step(state.global_step, state.epoch or 0.0, loss.clone(), norm, learning_rate or 0.0))
            finite = self._watch.is_finite(loss)
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
        for step, loss, norm in zip(steps, losses.tolist(), norms.tolist(), strict=True):
            state.global_step, state.epoch = step.number, step.epoch
            trainer.log({"loss": loss, "grad_norm": norm, "learning_rate": step.learning_rate}, start_time)
            trainer._total_loss_scalar += loss
        state.global_step, state.epoch = now
        trainer._globalstep_last_logged = steps[-1].number
        for step, loss in zip(steps, losses.tolist(), strict=True) if not self.diverges else ():
            check_loss(trainer, "training", loss, step.number)


def _whole(norm: torch.Tensor | float, device: torch.device) -> torch.Tensor:
    """Return a gradient norm as a plain tensor; sharded gradients have it in parts on all processes."""
    return norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm, device=device)
