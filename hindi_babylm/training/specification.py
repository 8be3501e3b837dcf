"""The training fields that differ from or add to `TrainingArguments`', readable without importing transformers."""

from dataclasses import dataclass, field
from typing import Any

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def _option(help: str, default: Any = None, unit: str | None = None) -> Any:
    return field(default=default, metadata={"help": help, **({"unit": unit} if unit else {})})


@dataclass
class SpecificationDefaults:
    """Declare the specification's defaults and the few fields of ours; a mixin of `HindiTrainingArguments`."""

    output_dir: str | None = _option("Run folder. Default: runs/<name of the recipe>.", unit="folder")
    global_batch_size: int = _option("Blocks per optimizer step of all processes.", 32, unit="blocks")
    per_device_train_batch_size: int | None = _option(
        "Blocks per process and forward pass. Default: what global_batch_size leaves.", unit="blocks"
    )
    gradient_accumulation_steps: int | None = _option(
        "Forward passes per optimizer step. Default: what global_batch_size leaves.", unit="forward passes"
    )
    num_train_epochs: float = _option("Passes over the training blocks.", 10.0, unit="epochs")
    learning_rate: float = _option("Peak learning rate of AdamW.", 3e-4, unit="per step")
    muon_learning_rate: float | None = _option("Peak rate of Muon for hidden matrices. Default: off.", unit="per step")
    ema_decay: float | None = _option("Decay of averaged weights, which are evaluated and exported. Default: off.")
    weight_decay: float = _option("Decoupled decay of the matrices.", 0.01)
    lr_scheduler_type: str = _option("linear, cosine, warmup_stable_decay, ...", "linear")
    warmup_steps: float = _option(
        "Linear warmup in steps, at most a tenth of the run; below 1 a share of all steps.", 1000.0, unit="steps"
    )
    precision: str = _option("auto, fp32, bf16 or fp16; auto follows accelerate launch, else the machine.", "auto")
    early_stopping_patience: int | None = _option(
        "Evaluations without a better one. Default: no end.", unit="evaluations"
    )
    eval_strategy: str = _option("no, steps (eval_steps) or epoch.", "epoch")
    save_strategy: str = _option("no, steps (save_steps), epoch or best.", "epoch")
    save_total_limit: int | None = _option("Checkpoints to keep besides the best one.", 2, unit="files")
    milestones: bool | list[int] = _option("Model folders after so many words; true: BabyLM's.", False, unit="words")
    load_best_model_at_end: bool | None = _option("Export the best model, not the last one.")
    metric_for_best_model: str | None = _option("loss or perplexity.", "loss")
    logging_steps: float = _option("Steps between transfers; each step is logged.", 10, unit="steps")
    # The stock filter hides a NaN loss behind an average and synchronises the device at every step.
    logging_nan_inf_filter: bool = _option("Hide losses that are not finite.", False)
    # Off, a resumed run forgets how long early stopping has been waiting.
    restore_callback_states_from_checkpoint: bool = _option("Resume early stopping's patience too.", True)
    # Every parameter has a gradient in every step; looking for others costs time and draws a warning.
    ddp_find_unused_parameters: bool | None = _option("Look for parameters without a gradient.", False)
    log_level: str = _option("What is printed, from debug to critical.", "passive")
    project: str = _option("Project name of the trackers.", "hindi-babylm")
    wandb_tags: list[str] | None = _option("Tags of the W&B run.")
    wandb_notes: str | None = _option("Notes on the W&B run.")
    # The stock field still takes the names of strategies as text, which transformers no longer wants.
    fsdp: bool = _option("Shard model and optimizer over the GPUs.", False)


# Schedules that take no warmup from the library.
WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")


def schedule_arguments(name: str, given: dict[str, Any] | None, *, steps: int, warmup: int) -> dict[str, Any] | None:
    """Return the arguments of a schedule over `steps`; `warmup_stable_decay` decays over its last fifth.

    10 to 20 % are as good as a cosine (Hägele et al. 2024); the upper end is for short runs. `num_decay_steps` or
    `num_stable_steps` set it otherwise. Raises ValueError for phases that do not add up to the run.

    >>> schedule_arguments("warmup_stable_decay", {"decay_type": "1-sqrt"}, steps=100, warmup=10)
    {'decay_type': '1-sqrt', 'num_decay_steps': 20}
    """
    if name != "warmup_stable_decay":
        return given
    arguments = dict(given or {})
    stable, decay = arguments.pop("num_stable_steps", None), arguments.get("num_decay_steps")
    if decay is None:
        decay = max(1, steps // 5) if stable is None else steps - warmup - stable
    if stable is None:
        stable = steps - warmup - decay
    if stable < 0 or decay < 0 or warmup + stable + decay != steps:
        raise ValueError(
            f"{warmup} steps of warmup, {stable} stable ones and {decay} of decay are not the {steps} of the run: "
            "leave num_stable_steps out, and lower num_decay_steps where it is too much"
        )
    return {**arguments, "num_decay_steps": decay}


def resolve_batch(
    *,
    global_batch_size: int,
    per_device_train_batch_size: int | None,
    gradient_accumulation_steps: int | None,
    processes: int,
) -> tuple[int, int]:
    """Solve global_batch_size = per device x processes x accumulation for what is None: per device, accumulation.

    Raises ValueError for what is below 1 and for a batch that does not divide.

    >>> resolve_batch(
    ...     global_batch_size=32, per_device_train_batch_size=8, gradient_accumulation_steps=None, processes=2
    ... )
    (8, 2)
    """
    given = {
        "global_batch_size": global_batch_size,
        "per_device_train_batch_size": per_device_train_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
    }
    for name, value in given.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    device, steps = per_device_train_batch_size, gradient_accumulation_steps
    rows = processes * (device or 1) * (steps or 1)
    if global_batch_size % rows or (device and steps and global_batch_size != rows):
        known = " x ".join(
            [f"{processes} process{'es' if processes > 1 else ''}"]
            + [f"{name} {value}" for name, value in given.items() if value and name != "global_batch_size"]
        )
        ways = (
            f"set global_batch_size to a multiple of {rows}"
            if not (device and steps)
            else f"set global_batch_size to {rows}, or leave one of the other two out"
        )
        raise ValueError(f"global_batch_size {global_batch_size} does not equal a whole number of {known}: {ways}")
    device = device or global_batch_size // rows
    return device, global_batch_size // (processes * device)
