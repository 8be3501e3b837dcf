"""The sections of a recipe and their keys, with help, default and range; importable without transformers."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.curriculum.difficulty import DIFFICULTIES, NO_CURRICULUM
from hindi_babylm.evaluation.tasks import TASKS
from hindi_babylm.modeling import ARCHITECTURES
from hindi_babylm.storage import UserError
from hindi_babylm.tokenization import TOKENIZERS
from hindi_babylm.training.specification import SpecificationDefaults

if TYPE_CHECKING:
    from hindi_babylm.training.arguments import HindiTrainingArguments

SOURCE_KEYS = (
    "path",
    "hub_id",
    "bundled",
    "name",
    "text_column",
    "config",
    "split",
    "revision",
    "sample_by",
    "max_words",
)


def _option(help: str, default: Any = None, **checks: Any) -> Any:
    """Declare a key of a section: its help, default, and `choices` or bounds `low` and `high`."""
    metadata = {"help": help, **checks}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class CorpusSection:
    """What is read, and how it is divided."""

    sources: list[dict[str, Any]] = _option(
        "Texts to read: a list of {path | hub_id | bundled, text_column, max_words, ...}.", [{"bundled": "all"}]
    )
    max_words: int | None = _option("Budget of all splits together, in whitespace-separated words.", None, low=1)
    validation_fraction: float = _option("Share of the works for validation.", 0.1, above=0, below=1)
    test_fraction: float = _option("Share of the works for testing.", 0.1, above=0, below=1)
    split_seed: int = _option("Seed of the split and of the choice within max_words.", 0)


@dataclass
class TokenizerSection:
    """The tokenizer: an existing one, or how to train one."""

    tokenizer: str | None = _option("Folder or hub id of an existing tokenizer; without it one is trained.")
    algorithm: str = _option("Algorithm to train.", "bpe", choices=TOKENIZERS)
    vocab_size: int = _option("Tokens of a trained vocabulary, bytes and special tokens included.", 32_000, low=512)


@dataclass
class ModelSection:
    """The model."""

    architecture: str = _option("Architecture.", "gpt2", choices=ARCHITECTURES)
    block_size: int = _option("Length of a training row and of the context, in tokens.", 512, low=2)
    dropout: float = _option("Dropout wherever the architecture has it.", 0.1, low=0, below=1)
    model_config: dict[str, Any] = _option("Fields of the architecture's own config class.", {})


@dataclass
class CurriculumSection:
    """The order in which the blocks are trained on."""

    curriculum: str = _option(
        "Difficulty of a document, from easy to hard, or none: all blocks, shuffled, in each epoch.",
        NO_CURRICULUM,
        choices=(NO_CURRICULUM, *DIFFICULTIES),
    )
    stage_epochs: list[int] = _option(
        "Epochs of each stage: as many stages of equal size, the easiest first; they add up to num_train_epochs.",
        [3, 4, 3],
    )


@dataclass
class EvaluationSection:
    """What the final model is scored on, beside perplexity and bits per byte."""

    tasks: list[str] = _option("Minimal-pair suites.", list(TASKS), choices=TASKS)


# Bounds of the stock training fields that a typing slip turns into nonsense.
TRAINING_CHECKS: dict[str, dict[str, Any]] = {
    "global_batch_size": {"low": 1},
    "per_device_train_batch_size": {"low": 1},
    "per_device_eval_batch_size": {"low": 1},
    "gradient_accumulation_steps": {"low": 1},
    "num_train_epochs": {"above": 0},
    "learning_rate": {"above": 0},
    "muon_learning_rate": {"above": 0},
    "weight_decay": {"low": 0},
    "warmup_steps": {"low": 0},
    "max_grad_norm": {"low": 0},
    "logging_steps": {"above": 0},
    "eval_steps": {"above": 0},
    "save_steps": {"above": 0},
    "save_total_limit": {"low": 1},
    "early_stopping_patience": {"low": 1},
    "dataloader_num_workers": {"low": 0},
    "adam_beta1": {"low": 0, "below": 1},
    "adam_beta2": {"low": 0, "below": 1},
    "adam_epsilon": {"above": 0},
    "seed": {"low": 0},
    "data_seed": {"low": 0},
    "eval_strategy": {"choices": ("no", "steps", "epoch")},
    "save_strategy": {"choices": ("no", "steps", "epoch", "best")},
    "logging_strategy": {"choices": ("no", "steps", "epoch")},
    "metric_for_best_model": {"choices": ("loss", "eval_loss", "perplexity", "eval_perplexity")},
    "precision": {"choices": ("auto", "fp32", "bf16", "fp16")},
}

SECTIONS: dict[str, type] = {
    "corpus": CorpusSection,
    "tokenizer": TokenizerSection,
    "model": ModelSection,
    "curriculum": CurriculumSection,
    "evaluation": EvaluationSection,
    "training": SpecificationDefaults,
}


@dataclass
class Recipe:
    """A checked recipe; `training` holds the fields to build `HindiTrainingArguments` from."""

    corpus: CorpusSection
    tokenizer: TokenizerSection
    model: ModelSection
    curriculum: CurriculumSection
    evaluation: EvaluationSection
    training: dict[str, Any]
    path: Path

    @property
    def output_dir(self) -> Path:
        """The run folder: `training.output_dir`, or runs/<name of the recipe>."""
        return Path(self.training["output_dir"] or Path("runs") / self.path.stem).expanduser()

    def resolved(self) -> dict[str, Any]:
        """Return every section with its defaults filled in, as it stands in the run folder's `recipe.json`."""
        sections: dict[str, Any] = {
            name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS if name != "training"
        }
        # A resolved recipe is published with its results: a token does not belong there.
        training = {key: value for key, value in self.training.items() if key != "hub_token"}
        return {**sections, "training": {**training, "output_dir": str(self.output_dir)}}

    def training_arguments(self) -> "HindiTrainingArguments":
        """Build the training arguments; what they refuse is told as a UserError."""
        from hindi_babylm.training.arguments import HindiTrainingArguments
        from hindi_babylm.training.trackers import check_trackers

        try:
            arguments = HindiTrainingArguments(**{**self.training, "output_dir": str(self.output_dir)})
        except (ValueError, TypeError, ImportError) as error:
            raise UserError(f"{self.path}: training: {' '.join(str(error).split())}") from error
        try:
            check_trackers(arguments.report_to)
        except ValueError as error:
            raise UserError(f"{self.path}: training.report_to: {error}") from error
        return arguments


def checks_of(section: str, key: str) -> Mapping[str, Any]:
    """Return the choices and bounds of a key."""
    if section == "training":
        return TRAINING_CHECKS.get(key, {})
    return next(f.metadata for f in dataclasses.fields(SECTIONS[section]) if f.name == key)
