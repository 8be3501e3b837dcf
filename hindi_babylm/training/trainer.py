"""A `Trainer` with exact evaluation, a log of every step, and `.pt` checkpoints."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    default_data_collator,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.trainer_utils import TrainOutput

from hindi_babylm.metrics import perplexity
from hindi_babylm.training.arguments import HindiTrainingArguments
from hindi_babylm.training.averaging import WeightAverage, evaluated_weights
from hindi_babylm.training.callbacks import METRICS, Console, MetricLists, checkpoint_path
from hindi_babylm.training.checkpoint import BEST, CheckpointWriter, adopt_best, read_checkpoint
from hindi_babylm.training.divergence import check_loss, check_weights
from hindi_babylm.training.interruption import Interruption, leave_signals_to_main
from hindi_babylm.training.learning_rate_finder import find_learning_rate
from hindi_babylm.training.muon import build_muon
from hindi_babylm.training.objective import loss_of, token_nll
from hindi_babylm.training.sharded import load_finished, read_facts, write_facts
from hindi_babylm.training.step_log import StepLog
from hindi_babylm.training.trackers import Trackers
from hindi_babylm.training.trainer_state import check_fit, unpacked, write_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EpochSampler(Protocol):
    """What the trainer asks of a sampler: an order for each epoch, and the words that it has brought so far."""

    def __len__(self) -> int:
        """Return the rows of an epoch, the same number in each."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch in their order, -1 for one of padding: `(len(self),)`."""

    def times_seen(self, rows: int) -> np.ndarray:
        """Return how often each row is among the first `rows` of the run: `(len(dataset),)`."""

    def words_seen(self, rows: int) -> float:
        """Return the words in the first `rows` rows of the run."""


class HindiLanguageModelTrainer(Trainer):
    """Train a causal or masked language model on blocks of `input_ids, labels (block_size,)`.

    `trainer.metrics` holds the lists `train_loss, val_loss, perplexity, learning_rate`, one entry an evaluation;
    `config` is stored in every checkpoint. With `train_sampler` the order of rows is its own, `train_dataset` is told
    each epoch by `set_epoch(epoch)`, and every log says how many words were seen.
    An example: README.md, "The pipeline in Python".
    """

    args: HindiTrainingArguments

    def __init__(
        self,
        model: PreTrainedModel,
        args: HindiTrainingArguments,
        train_dataset: "Dataset[Any]",
        eval_dataset: "Dataset[Any] | None" = None,
        processing_class: "PreTrainedTokenizerBase | None" = None,
        *,
        train_sampler: EpochSampler | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
            # GPT-2 does not declare its loss, and the stock Trainer then counts the unpredicted first label too.
            model.loss_type = "ForCausalLM"
        self.train_sampler = train_sampler
        self.config = dict(config or {})
        self.metrics: dict[str, list[float]] = {name: [] for name in METRICS}
        console = [MetricLists(self.metrics), Console(self.metrics)]
        self.interruption, self.writer, self.trackers = Interruption(), CheckpointWriter(), Trackers(args, self.config)
        self.average = WeightAverage(args.ema_decay)
        self._seconds_before, self._started = 0.0, time.monotonic()
        self.step_log = StepLog()
        # A factory in place of a class is how the stock Trainer takes an optimizer of several parts.
        muon: Any = (lambda: build_muon, {"args": args, "decayed": self.get_decay_parameter_names(model)})
        super().__init__(
            model=model,
            args=args,
            data_collator=default_data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_loss_func=loss_of(model, label_smoothing=args.label_smoothing_factor),
            compute_metrics=exact_loss,
            optimizer_cls_and_kwargs=muon if args.muon_learning_rate is not None else None,
            callbacks=[
                self.average,
                *console,
                *callbacks,
                self.interruption,
                self.writer,
                self.trackers,
                self.step_log,
            ],
        )
        for replaced in (ProgressCallback, PrinterCallback):
            self.remove_callback(replaced)
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
        if train_sampler is not None:
            self.add_callback(_SetEpoch(train_sampler, train_dataset))

    @property
    def seconds(self) -> float:
        """The time spent in `train`, evaluating and saving included, over all parts of a resumed run."""
        return self._seconds_before + time.monotonic() - self._started

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, or go on from the `.pt` file `resume_from_checkpoint` as if the run had never stopped.

        Raises UserError when the file is damaged, or of another recipe or number of processes.
        """
        self._seconds_before, self._started = 0.0, time.monotonic()
        if not str(resume_from_checkpoint).endswith(".pt"):
            if isinstance(resume_from_checkpoint, (str, Path)):
                facts = read_facts(self, Path(resume_from_checkpoint))
                self._seconds_before = facts["seconds"]
                if facts.get("finished"):
                    return _take_up_end(self, load_finished(self, Path(resume_from_checkpoint)))
            with self.interruption.restored():
                return super().train(resume_from_checkpoint, *args, **kwargs)
        path, folder = Path(resume_from_checkpoint), checkpoint_path(self.args, self.state).parent
        checkpoint = read_checkpoint(path)
        check_fit(checkpoint, self, path=path)
        adopt_best(checkpoint, path, folder, write=self.args.should_save, needed=bool(self.args.load_best_model_at_end))
        self._seconds_before = checkpoint["seconds"]
        self.trackers.run_ids |= checkpoint.get("tracker_run_ids", {})
        self.average.restore(checkpoint)
        if checkpoint["finished"]:
            self.accelerator.unwrap_model(self.model).load_state_dict(checkpoint["model_state_dict"])
            return _take_up_end(self, TrainerState(**checkpoint["trainer_state"]))
        with unpacked(checkpoint, folder, self.args) as stock_folder, self.interruption.restored():
            return super().train(stock_folder, *args, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Build the stock schedule with the steps of decay that `warmup_stable_decay` asks for."""
        given = self.args.lr_scheduler_kwargs
        self.args.lr_scheduler_kwargs = self.args.get_schedule_arguments(num_training_steps)
        try:
            return super().create_scheduler(num_training_steps, optimizer)
        finally:
            self.args.lr_scheduler_kwargs = given

    def find_learning_rate(self, **options: Any) -> dict[str, Any]:
        """Sweep learning rates over real steps and suggest one; then all is as before. See `find_learning_rate`."""
        return find_learning_rate(self, **options)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the averaged weights where there are some."""
        with self.average.applied(self.accelerator.unwrap_model(self.model)):
            return super().evaluate(*args, **kwargs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the summed NLL `(batch_size,)` in nats as predictions, the predicted tokens `(batch_size,)` as labels.

        Sums of rows gather exactly over batches and processes, and no logits are kept.
        """
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, *token_nll(model, self._prepare_inputs(inputs), causal=self.compute_loss_func is None)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the words seen to every log event."""
        if self.train_sampler is not None and self.state.global_step:
            logs["words_seen"] = round(self.train_sampler.words_seen(self.rows_seen()), 1)
        super().log(logs, start_time)

    def rows_seen(self, steps: int | None = None) -> int:
        """Return the rows of the first `steps` steps, by default those done; an epoch's last batch may be short."""
        assert self.train_sampler is not None
        rows, batch = len(self.train_sampler), self.args.global_batch_size
        epochs, steps = divmod(self.state.global_step if steps is None else steps, -(-rows // batch))
        return epochs * rows + min(steps * batch, rows)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        # Private: the only way to bring an order; `get_train_dataloader` would have to be written again.
        return self.train_sampler if self.train_sampler is not None else super()._get_train_sampler(train_dataset)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        # Private: every loader, of training and evaluation, is made here.
        return leave_signals_to_main(super()._get_dataloader(*args, **kwargs))

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: torch.Tensor | float | None,
        model: nn.Module,
        trial: Any,
        epoch: float,
        ignore_keys_for_eval: list[str] | None,
        start_time: float,
        learning_rate: float | None = None,
    ) -> None:
        # Private: the only place that sees a step's loss and norm.
        self.step_log.take(self, tr_loss, grad_norm, learning_rate, start_time)
        super()._maybe_log_save_evaluate(
            tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate
        )

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # Private: the only place that knows a best evaluation before the checkpoint is due. Without a checkpoint of
        # it there would be no best model to load.
        check_loss(self, "validation", metrics["eval_loss"], self.state.global_step)
        is_best: bool = super()._determine_best_metric(metrics, trial)
        self.control.should_save |= is_best and bool(self.args.load_best_model_at_end)
        # With save_strategy "best" the answer decides over the checkpoint that an interruption asks for, too.
        return is_best or self.interruption.agreed

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # Private: the specification's file replaces the stock folder, which only this hook writes.
        check_weights(self)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            write_facts(self)
            super()._save_checkpoint(model, trial)
            return
        write_checkpoint(self)

    def _load_best_model(self) -> None:
        # Private: the stock one looks for its own files in the folder.
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
            return
        assert self.state.best_model_checkpoint is not None
        self.writer.wait()
        self.accelerator.wait_for_everyone()
        checkpoint = read_checkpoint(Path(self.state.best_model_checkpoint) / BEST)
        self.accelerator.unwrap_model(self.model).load_state_dict(evaluated_weights(checkpoint))


def _take_up_end(trainer: HindiLanguageModelTrainer, state: TrainerState) -> TrainOutput:
    """Take up the state of a run that had ended when its checkpoint was written: there is no step to train."""
    trainer.state = state
    trainer._load_callback_state()
    state.init_training_references(trainer, state.max_steps, state.num_train_epochs, None)
    trainer.control = trainer.callback_handler.on_train_begin(trainer.args, state, trainer.control)
    if trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None:
        trainer._load_best_model()
    trainer.control = trainer.callback_handler.on_train_end(trainer.args, state, trainer.control)
    losses = trainer.metrics["train_loss"]
    return TrainOutput(state.global_step, losses[-1] if losses else 0.0, {"train_runtime": 0.0})


class _SetEpoch(TrainerCallback):
    """Tell sampler and dataset their epoch: accelerate's wrappers do not reach a custom sampler after a resume.

    The workers of the loader are started after it, with a copy of the dataset.
    """

    def __init__(self, sampler: EpochSampler, dataset: Any) -> None:
        self.sampler = sampler
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        epoch = int(state.epoch or 0)
        self.sampler.set_epoch(epoch)
        self.dataset.set_epoch(epoch)


def exact_loss(prediction: EvalPrediction) -> dict[str, float]:
    """Divide the total NLL by the total of predicted tokens, in float64: `loss` in nats and `perplexity`."""
    nll = float(np.sum(prediction.predictions, dtype=np.float64))
    tokens = int(np.sum(prediction.label_ids))
    return {"loss": nll / tokens, "perplexity": perplexity(nll, tokens)}
