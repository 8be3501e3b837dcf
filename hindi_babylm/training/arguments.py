"""`TrainingArguments` with the specification's defaults, a global batch and a precision that fits the machine."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments

from hindi_babylm.console import warn
from hindi_babylm.storage import UserError
from hindi_babylm.training.specification import (
    PRECISIONS,
    WITHOUT_WARMUP,
    SpecificationDefaults,
    resolve_batch,
    schedule_arguments,
)


@dataclass
class HindiTrainingArguments(SpecificationDefaults, TrainingArguments):  # type: ignore[misc]  # None: derived below
    """Add the specification's defaults to `TrainingArguments`; see `SpecificationDefaults` for the fields.

    Raises ValueError for a batch that does not divide and a precision that the machine does not have.

    >>> arguments = HindiTrainingArguments(output_dir="runs/mine", per_device_train_batch_size=8, precision="fp32")
    >>> arguments.global_batch_size, arguments.gradient_accumulation_steps  # on one process
    (32, 4)
    """

    def __post_init__(self) -> None:
        if self.push_to_hub:
            # The stock push uploads training_args.bin, a pickle with the token of the hub, at every save.
            raise ValueError("push_to_hub: a finished run is published by hindi_babylm.reporting.publish: leave it out")
        self.per_device_train_batch_size, self.gradient_accumulation_steps = resolve_batch(
            global_batch_size=self.global_batch_size,
            per_device_train_batch_size=self.per_device_train_batch_size,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            processes=int(os.environ.get("WORLD_SIZE", "1")),
        )
        self._resolve_precision()
        if self.load_best_model_at_end is None:
            self.load_best_model_at_end = self.eval_strategy != "no"
        if self.greater_is_better is None and (self.metric_for_best_model or "").endswith("perplexity"):
            self.greater_is_better = False  # the stock rule takes only names in "loss" for smaller-is-better
        if self.fsdp and not isinstance(self.fsdp_config, str):
            # The stock default gathers all weights in one process to save them, which sharding is to avoid.
            self.fsdp_config = {"state_dict_type": "SHARDED_STATE_DICT", **(self.fsdp_config or {})}
        super().__post_init__()
        if self.precision == "fp32":
            # The stock arguments take the launcher's precision here, though fp32 was asked for.
            self.mixed_precision = "no"
        if self.n_gpu > 1:
            warn(
                f"{self.n_gpu} GPUs are visible but the run was started as one process and uses the first; "
                "start it with `accelerate launch` to use them all"
            )
            self._n_gpu = 1  # else the Trainer wraps the model in nn.DataParallel

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the warmup in steps: `warmup_steps`, but no more than a tenth of the run; 0 for a schedule without."""
        if self.lr_scheduler_type in WITHOUT_WARMUP:
            return 0
        asked: int = super().get_warmup_steps(num_training_steps)
        return min(asked, num_training_steps // 10)

    def get_schedule_arguments(self, num_training_steps: int) -> dict[str, Any] | None:
        """Return `lr_scheduler_kwargs`, with the steps of decay that `warmup_stable_decay` needs."""
        warmup = self.get_warmup_steps(num_training_steps)
        given: Any = self.lr_scheduler_kwargs
        try:
            return schedule_arguments(self.lr_scheduler_type, given, steps=num_training_steps, warmup=warmup)
        except ValueError as error:
            raise UserError(f"lr_scheduler_kwargs: {error}") from error

    def _resolve_precision(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.fp16 and self.bf16:
            raise ValueError("fp16 true contradicts bf16 true: keep one, or set precision instead")
        flag = "fp16" if self.fp16 else "bf16" if self.bf16 else None
        if flag and self.precision not in ("auto", flag):
            raise ValueError(f"precision {self.precision} contradicts {flag} true: leave one of them out")
        on_gpu = torch.cuda.is_available() and not self.use_cpu
        if self.precision == "auto":
            self.precision = flag or _precision_of_machine(on_gpu)
        if self.precision == "fp16" and not on_gpu:
            raise ValueError("precision fp16 needs a CUDA GPU: take auto, bf16 or fp32")
        self.fp16, self.bf16 = self.precision == "fp16", self.precision == "bf16"
        self.dataloader_pin_memory = self.dataloader_pin_memory and on_gpu  # on a CPU it only warns
        if self.bf16 and not torch.cuda.is_available():
            self.use_cpu = True  # the stock check accepts bf16 on a CPU only with this flag


def _precision_of_machine(on_gpu: bool) -> str:
    """Return what the launcher asked for, else bf16 where the hardware multiplies it natively, else fp16 or fp32."""
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launcher in ("bf16", "fp16"):  # "no" is what the launcher says when nothing was asked for
        return launcher
    if on_gpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"
