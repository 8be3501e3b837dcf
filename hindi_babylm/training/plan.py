"""What a training will be, found out without it: its length, what it sees, its memory, and its hours after timing."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch.distributed.tensor import DTensor
from torch.utils.data import Subset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from hindi_babylm.console import bar
from hindi_babylm.training.advice import out_of_memory_told
from hindi_babylm.training.callbacks import Console
from hindi_babylm.training.export import seen
from hindi_babylm.training.interruption import Interruption
from hindi_babylm.training.machine import peak_memory_bytes
from hindi_babylm.training.memory import activation_bytes, logits_bytes
from hindi_babylm.training.milestones import milestone_words
from hindi_babylm.training.trainer import HindiLanguageModelTrainer

TIMED_STEPS = 20
TIMED_SECONDS = 45.0
TIMED_EVALUATION_BATCHES = 8
FIRST_TEXTS = 3
COMPETENCE_POINTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the epochs until all blocks are in reach


def plan(trainer: HindiLanguageModelTrainer) -> dict[str, Any]:
    """Return length, words and tokens seen, memory and time of the training that `trainer` would do.

    It does up to 20 of its steps, the first of them to warm up, and evaluates on some of the blocks; nothing is
    saved, and the weights are of no use afterwards. Times are in seconds, memory in bytes of one process. Every
    process must call it. Raises UserError when the memory does not suffice.
    """
    args, timer = trainer.args, _Timer()
    for other in (Console, Interruption):
        trainer.remove_callback(other)
    trainer.add_callback(timer)
    args.eval_on_start = False
    blocks: Any = trainer.train_dataset
    with out_of_memory_told(args, block_size=blocks.block_size):
        trainer.train()
    steps = trainer.state.max_steps
    steps_per_epoch = _steps_per_epoch(trainer)
    memory = _memory(trainer)
    per_evaluation = _seconds_per_evaluation(trainer)
    evaluations = {
        IntervalStrategy.NO: 0,
        IntervalStrategy.EPOCH: -(-steps // steps_per_epoch),
        IntervalStrategy.STEPS: steps // int(trainer.state.eval_steps or 1),
    }[IntervalStrategy(args.eval_strategy)]
    amounts = seen(trainer, steps)
    milestones = sum(words <= amounts["words_seen"] for words in milestone_words(args.milestones))
    model: Any = trainer.model
    return {
        "epochs": steps / steps_per_epoch,
        "steps_per_epoch": steps_per_epoch,
        "steps": steps,
        "warmup": args.get_warmup_steps(steps),
        **amounts,
        "memory": memory,
        "seconds_per_step": timer.seconds_per_step,
        "timed_steps": timer.timed,
        "evaluations": evaluations,
        "seconds_per_evaluation": per_evaluation,
        "milestones": milestones,
        "milestone_bytes": 4 * model.num_parameters(),
        "seconds": steps * timer.seconds_per_step + (evaluations + milestones) * per_evaluation,
    }


def plan_pacing(trainer: HindiLanguageModelTrainer) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of `stages`, or of `competence` at some points of time, of a curriculum's pacing.

    A stage has its blocks, epochs, steps and words, and the beginnings of the first texts that it adds. A point of time
    has its epoch and step, the blocks in reach with their share of all, the words seen until then, and the beginning of
    the hardest text in reach.
    """
    sampler: Any = trainer.train_sampler
    total, steps_per_epoch = trainer.state.max_steps, _steps_per_epoch(trainer)
    if sampler.pacing == "competence":
        points = [share * sampler.competence_epochs for share in COMPETENCE_POINTS]
        return {
            "competence": [_competence(trainer, epoch) for epoch in points if round(epoch * steps_per_epoch) <= total]
        }
    if not sampler.stage_lengths:
        return {}
    ends = [min(steps_per_epoch * int(epoch), total) for epoch in np.cumsum(sampler.stage_lengths)]
    ends[-1] = total  # past its epochs a run stays at the last stage
    rows = []
    for stage, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        rows.append(
            {
                "blocks": len(sampler.stage(stage)),
                "epochs": (end - start) / steps_per_epoch,
                "steps": end - start,
                "words_seen": seen(trainer, end)["words_seen"] - seen(trainer, start)["words_seen"],
                "texts": _beginnings(trainer, sampler.stage_bounds[stage]),
            }
        )
    return {"stages": rows}


def _competence(trainer: HindiLanguageModelTrainer, epoch: float) -> dict[str, Any]:
    """Return what is in reach after `epoch` epochs of pacing by competence."""
    sampler: Any = trainer.train_sampler
    step, blocks = round(epoch * _steps_per_epoch(trainer)), sampler.in_reach(epoch)
    return {
        "epoch": epoch,
        "step": step,
        "share": blocks / sampler.blocks,
        "blocks": blocks,
        "words_seen": seen(trainer, step)["words_seen"],
        "text": _beginnings(trainer, blocks - 1)[0],
    }


def _beginnings(trainer: HindiLanguageModelTrainer, block: int) -> list[str]:
    """Return the first words of the text that begins in a block, and of those that follow."""
    blocks: Any = trainer.train_dataset
    tokenizer: Any = trainer.processing_class
    first = blocks.first_document(block)
    documents = range(first, min(first + FIRST_TEXTS, len(blocks.store)))
    return [" ".join(tokenizer.decode(blocks.store.document(index)[:64]).split()[:8]) for index in documents]


class _Timer(TrainerCallback):
    """End a training after some timed steps, all processes at once, and keep it from saving and evaluating."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @property
    def timed(self) -> int:
        """The steps between which time was taken: all but the first, unless it is the only one."""
        return max(1, len(self.ends) - 2)

    @property
    def seconds_per_step(self) -> float:
        return (self.ends[-1] - self.ends[-1 - self.timed]) / self.timed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.ends = [time.monotonic()]
        self.bar = bar("Timing steps", min(TIMED_STEPS, state.max_steps)) if state.is_world_process_zero else None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.monotonic())
        if self.bar is not None:
            self.bar.update()
        enough = len(self.ends) > TIMED_STEPS or (len(self.ends) > 2 and self.ends[-1] - self.ends[1] > TIMED_SECONDS)
        (enough,) = broadcast_object_list([enough])
        control.should_training_stop = control.should_training_stop or enough
        control.should_evaluate = control.should_save = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_evaluate = control.should_save = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def _steps_per_epoch(trainer: HindiLanguageModelTrainer) -> int:
    """Return the optimizer steps of an epoch; its last one may have fewer rows."""
    assert trainer.train_sampler is not None
    return -(-len(trainer.train_sampler) // trainer.args.global_batch_size)


def _memory(trainer: HindiLanguageModelTrainer) -> dict[str, int]:
    """Return the peak of the steps so far, and in bytes what follows from sizes; `together` is for a GPU.

    Activations and the sum are there for the architectures that `activation_bytes` knows.
    """
    model: Any = trainer.model
    blocks: Any = trainer.train_dataset
    optimizer: Any = trainer.optimizer
    rows = trainer.args.per_device_train_batch_size or 1
    weights = _bytes_here([parameter for parameter in model.parameters() if parameter.requires_grad])
    parts = {
        "weights": weights,
        "gradients": weights,
        "optimizer": _bytes_here(
            [v for entry in optimizer.state.values() for v in entry.values() if torch.is_tensor(v)]
        ),
        **({"average": weights} if trainer.args.ema_decay is not None else {}),
        "logits": logits_bytes(model.config, rows=rows, block_size=blocks.block_size),
    }
    activations = activation_bytes(
        model.config,
        rows=rows,
        block_size=blocks.block_size,
        precision=trainer.args.precision,
        checkpointing=bool(trainer.args.gradient_checkpointing),
    )
    if activations is not None:
        parts |= {"activations": activations, "together": activations + sum(parts.values())}
    return {"peak": peak_memory_bytes(), **parts}


def _bytes_here(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes that tensors take in this process, of a sharded one those of its shard."""
    here = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in here)


def _seconds_per_evaluation(trainer: HindiLanguageModelTrainer) -> float:
    """Time an evaluation on some of the blocks, and scale it to all of them."""
    blocks: Any = trainer.eval_dataset
    batch = trainer.args.per_device_eval_batch_size * trainer.args.world_size
    some = min(len(blocks), TIMED_EVALUATION_BATCHES * batch)
    started = time.monotonic()
    trainer.evaluate(Subset(blocks, range(some)))
    seconds = time.monotonic() - started
    return seconds * float(len(blocks) / some)
