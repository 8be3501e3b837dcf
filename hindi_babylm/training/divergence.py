"""End a training whose loss is no number any more, before its weights reach a checkpoint."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor

from hindi_babylm.storage import UserError
from hindi_babylm.training.callbacks import Console, checkpoint_path
from hindi_babylm.training.checkpoint import CheckpointWriter, newest_checkpoint
from hindi_babylm.training.sharded import newest_sharded_checkpoint
from hindi_babylm.training.trackers import Trackers

if TYPE_CHECKING:
    from hindi_babylm.training.arguments import HindiTrainingArguments
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer


class DivergedError(UserError):
    """A training whose loss or weights are not finite; empty in all processes but the one that tells it."""


class FiniteWatch:
    """Tell whether the loss of a step is finite: on a GPU that of the step before, so that no step is waited for."""

    def __init__(self) -> None:
        self._copy: torch.Tensor | None = None  # in pinned memory, where a GPU writes without the CPU
        self._copied: torch.cuda.Event | None = None

    def is_finite(self, loss: torch.Tensor) -> bool:
        """Take the `loss` of this process, a scalar, and judge that of all processes; all get the same answer."""
        loss = loss.detach().clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(loss)  # what is not finite stays so in a sum
        if loss.device.type != "cuda":
            return bool(loss.isfinite())
        if self._copy is None:
            self._copy = torch.zeros_like(loss, device="cpu").pin_memory()
        if self._copied is not None:
            self._copied.synchronize()  # the step before: the device has this whole step still to do
        finite = bool(self._copy.isfinite())
        self._copy.copy_(loss, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()
        return finite


def check_loss(trainer: "HindiLanguageModelTrainer", kind: str, loss: float, step: int) -> None:
    """Raise DivergedError when the `kind` loss of a step, the same in all processes, is not finite."""
    if not math.isfinite(loss):
        # A step's training loss is that of the weights which the step before left.
        good = step - 2 if kind == "training" else step - 1
        raise _error(trainer, f"{kind} loss is {loss} at step {step}", good=good)


def check_weights(trainer: "HindiLanguageModelTrainer") -> None:
    """Raise DivergedError in every process when a weight is not finite, whatever the losses so far were."""
    assert trainer.model is not None
    here = [part.to_local() if isinstance(part, DTensor) else part for part in trainer.model.parameters()]
    broken = torch.stack([part.detach().isfinite().logical_not().any() for part in here]).any().int()
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(broken, op=torch.distributed.ReduceOp.MAX)
    if broken.item():
        step = trainer.state.global_step
        raise _error(trainer, f"the weights are not finite after step {step}", good=step - 1)


def _error(trainer: "HindiLanguageModelTrainer", symptom: str, *, good: int) -> DivergedError:
    """End what runs beside the training, and return the error: symptom, remedies, the last checkpoint up to `good`."""
    for part in trainer.callback_handler.callbacks:
        if isinstance(part, Console | CheckpointWriter | Trackers):
            part.on_train_end(trainer.args, trainer.state, trainer.control)
    line = ""
    if trainer.is_world_process_zero():
        last: object = newest_checkpoint(checkpoint_path(trainer.args, trainer.state).parent, until=good)[0]
        last = last or newest_sharded_checkpoint(Path(str(trainer.args.output_dir)), until=good)
        line = (
            f"{symptom}: the training has diverged; {_remedies(trainer.args)}, and start again with --overwrite or "
            "another --output_dir, for the same recipe comes to the same loss; "
            + (f"the last good checkpoint is {last}" if last else "there is no checkpoint from before it")
        )
    # No process may be gone, and end the others through the launcher, before the line is ready.
    trainer.accelerator.wait_for_everyone()
    return DivergedError(line)


def _remedies(args: "HindiTrainingArguments") -> str:
    """Return what to change of a recipe, the likeliest first."""
    muon = f" and muon_learning_rate {args.muon_learning_rate:g}" if args.muon_learning_rate is not None else ""
    clipping = f"max_grad_norm {args.max_grad_norm:g}" if args.max_grad_norm else ""
    ways = [
        f"lower learning_rate {args.learning_rate:g}{muon}",
        f"lower {clipping}" if clipping else "set max_grad_norm 1",
        f"set precision fp32 instead of {args.precision}" if args.precision != "fp32" else "raise warmup_steps",
    ]
    return f"{', '.join(ways[:-1])} or {ways[-1]}"
