"""The training fields that differ from or add to `TrainingArguments`', readable without importing transformers."""

from dataclasses import dataclass, field


@dataclass
class SpecificationDefaults:
    """Declare the specification's defaults and the few fields of ours; a mixin of `HindiTrainingArguments`."""

    output_dir: str | None = field(default=None, metadata={"help": "Run folder. Default: runs/<name of the recipe>."})
    global_batch_size: int = field(
        default=32,
        metadata={
            "help": "Blocks per optimizer step = per_device_train_batch_size x processes x "
            "gradient_accumulation_steps; the two others follow from it unless given."
        },
    )
    per_device_train_batch_size: int | None = field(
        default=None, metadata={"help": "Blocks per device and forward pass. Default: from global_batch_size."}
    )
    gradient_accumulation_steps: int | None = field(
        default=None, metadata={"help": "Forward passes per optimizer step. Default: from global_batch_size."}
    )
    num_train_epochs: float = field(default=10.0, metadata={"help": "Passes over the training blocks."})
    learning_rate: float = field(default=3e-4, metadata={"help": "Peak learning rate of AdamW."})
    muon_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Train the hidden matrices with Muon at this peak rate, the rest with AdamW."},
    )
    weight_decay: float = field(
        default=0.01, metadata={"help": "Decoupled decay of matrices, not of biases and norms."}
    )
    lr_scheduler_type: str = field(
        default="linear", metadata={"help": "linear, cosine, constant_with_warmup, or any other of transformers'."}
    )
    warmup_steps: float = field(
        default=1000.0,
        metadata={"help": "Steps of linear warmup, at most 10 % of the run; below 1 a share of all steps."},
    )
    precision: str = field(
        default="auto",
        metadata={"help": "auto, fp32, bf16 or fp16; auto follows accelerate launch, else the machine."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a better one. Default: never."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "no, steps or epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "no, steps, epoch or best."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep besides the best."})
    load_best_model_at_end: bool | None = field(
        default=None, metadata={"help": "Export the best model, not the last. Default: where the run evaluates."}
    )
    metric_for_best_model: str | None = field(default="loss", metadata={"help": "Metric of the best model."})
    logging_steps: float = field(
        default=10, metadata={"help": "Steps between transfers of the log; every step is logged all the same."}
    )
    # The stock filter hides a NaN loss behind an average and synchronises the device at every step.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide NaN losses."})
    # Off, a resumed run forgets how long early stopping has been waiting.
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Restore the patience of early stopping when a run is resumed."}
    )
    project: str = field(default="hindi-babylm", metadata={"help": "Project name of the trackers."})
    wandb_tags: list[str] | None = field(default=None, metadata={"help": "Tags of the W&B run."})
    wandb_notes: str | None = field(default=None, metadata={"help": "Notes on the W&B run."})
    # The stock field still takes the names of strategies as text, which transformers no longer wants.
    fsdp: bool = field(default=False, metadata={"help": "Shard model, gradients and optimizer over the GPUs (FSDP)."})
