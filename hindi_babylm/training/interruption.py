"""The signals that end a training in order: after a step, with a checkpoint."""

import signal
import threading
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hindi_babylm.training.callbacks import is_whole


def interruption_signals() -> list[signal.Signals]:
    """Return the signals that end a run in order; none outside of the main thread, which alone may handle them."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGUSR1") if name in signal.Signals.__members__]


class Interruption(TrainerCallback):
    """Let SIGTERM, SIGINT and SIGUSR1 end a training after its step, with a checkpoint.

    On several processes they agree at the next transfer of the log, since all must write the checkpoint together;
    a second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.asked = self.agreed = False
        self._before: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.asked = self.agreed = False
        for number in interruption_signals():
            self._before[number] = signal.signal(number, self._ask)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            if state.global_step % max(1, int(state.logging_steps)):
                return
            asked = torch.tensor([self.asked], device=args.device, dtype=torch.int64)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            self.asked = bool(asked.item())
        if self.asked:
            self.agreed = True
            # At the end of an epoch its evaluation comes first: a checkpoint without it would lose it.
            control.should_save = control.should_save or not is_whole(state.epoch)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.agreed:
            # An epoch that was left in the middle has no end: what belongs to it is done by the run that goes on.
            control.should_save = is_whole(state.epoch)
            control.should_evaluate = control.should_evaluate and is_whole(state.epoch)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Only now: the checkpoint says whether the run had ended by itself.
        if self.agreed:
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        signal.signal(number, self._before[number])
