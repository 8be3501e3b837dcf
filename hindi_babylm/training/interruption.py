"""The signals that end a training in order: after a step, with a checkpoint."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import ForkProcess
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hindi_babylm.signals import interruption_signals
from hindi_babylm.training.callbacks import ends_epoch

AGREE_EVERY = 10  # steps at most between two agreements of several processes


class Interruption(TrainerCallback):
    """Let SIGTERM, SIGINT and SIGUSR1 end a training after its step, with a checkpoint.

    On several processes they agree every few steps, since all must write the checkpoint together. A second SIGINT ends
    a single process at once. Every other signal that follows is ignored: launchers pass on what the processes have
    got already.
    """

    def __init__(self) -> None:
        self.asked = self.agreed = False
        self._alone = self._tells = False
        self._before: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.asked = self.agreed = False
        self._alone, self._tells = args.world_size == 1, state.is_world_process_zero
        for number in interruption_signals():
            self._before[number] = signal.signal(number, self._ask)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            if state.global_step % max(1, min(int(state.logging_steps), AGREE_EVERY)):
                return
            asked = torch.tensor([self.asked], device=args.device, dtype=torch.int64)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            self.asked = bool(asked.item())
        if self.asked:
            self.agreed = True
            # At the end of an epoch its evaluation comes first: a checkpoint without it would lose it.
            control.should_save = control.should_save or not ends_epoch(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.agreed:
            # An epoch that was left in the middle has no end: what belongs to it is done by the run that goes on.
            control.should_save = ends_epoch(state)
            control.should_evaluate = control.should_evaluate and ends_epoch(state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Only now: the checkpoint says whether the run had ended by itself.
        if self.agreed:
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._restore()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Give the signals back to their owner when the training in the block ends, by an error too."""
        try:
            yield
        finally:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: Any) -> None:
        if not self.asked and self._tells:
            # Not by print, which may have been interrupted in the middle of a write itself.
            os.write(2, b"Interrupted: a checkpoint is written after this step\n")
        self.asked = True
        if number == signal.SIGINT and self._alone:
            signal.signal(number, self._before[number])


def leave_signals_to_main(loader: Any) -> Any:
    """Let the workers of a DataLoader live through a signal to the whole process group: the main process needs them."""
    base = getattr(loader, "base_dataloader", loader)  # accelerate's wrapper iterates over the loader inside it
    if base.num_workers > 0:
        context: Any = base.multiprocessing_context or multiprocessing.get_context()
        if context.get_start_method() == "fork":
            base.multiprocessing_context = context = type(context)()  # not the one of the whole process
            context.Process = _Worker
        base.worker_init_fn = partial(_ignore_signals, base.worker_init_fn)
        # At its exit Python asks daemons to end by the signal that these ignore, and waits for them.
        atexit.unregister(_kill_daemons)  # once, however many loaders there are
        atexit.register(_kill_daemons)
    return loader


def _kill_daemons() -> None:
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


class _Worker(ForkProcess):
    """A forked process that starts with the signals held back, until `_ignore_signals` drops them."""

    def start(self) -> None:
        # The loop of a worker restores the default of SIGTERM before it calls `worker_init_fn`: a signal must not
        # come in between.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, interruption_signals())
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_signals(then: Any, worker_id: int) -> None:
    for number in interruption_signals():
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, interruption_signals())
    if then is not None:
        then(worker_id)
