"""The sections of a recipe and their keys, with help, default and range; importable without transformers."""

import dataclasses
import re
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import LEVELS
from hindi_babylm.corpus.hygiene.cleaning import STEPS
from hindi_babylm.curriculum.difficulty import DIFFICULTIES, NO_CURRICULUM
from hindi_babylm.curriculum.pacing import PACINGS
from hindi_babylm.evaluation.tasks import DEFAULT_TASKS, TASKS
from hindi_babylm.modeling import ARCHITECTURES, CONFIG_CLASSES
from hindi_babylm.storage import UserError
from hindi_babylm.tokenization.algorithms import TOKENIZERS
from hindi_babylm.tokenization.vocabulary import MINIMUM_VOCABULARY
from hindi_babylm.training.specification import PRECISIONS, SpecificationDefaults

if TYPE_CHECKING:
    from hindi_babylm.training.arguments import HindiTrainingArguments

FLAGS = "command line: "  # begins the place of a value that a flag has given
# What an object of corpus.sources may hold: the type of each key, and its bounds.
SOURCE_KEYS: dict[str, tuple[type, dict[str, Any]]] = {
    "path": (str, {}),
    "hub_id": (str, {}),
    "bundled": (str, {}),
    "name": (str, {}),
    "licence": (str, {}),
    "text_column": (str, {}),
    "config": (str, {}),
    "split": (str, {}),
    "revision": (str, {}),
    "streaming": (bool, {}),
    "sample_by": (str, {"choices": ("line", "paragraph", "document")}),
    "weight": (float, {"above": 0}),
    "max_words": (int, {"low": 1}),
}


def _option(help: str, default: Any = None, **checks: Any) -> Any:
    """Declare a key of a section: help, default, `unit`, and `choices` or bounds `low`, `above`, `high`, `below`."""
    metadata = {"help": help, **checks}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class CorpusSection:
    """What is read, and how it is divided."""

    sources: list[dict[str, Any]] = _option(
        f"Objects of one path, hub_id or bundled each, with {', '.join(list(SOURCE_KEYS)[3:])}.", [{"bundled": "all"}]
    )
    max_words: int | None = _option("Budget of all splits together.", None, low=1, unit="words")
    max_bytes: int | None = _option("The same in UTF-8.", None, low=1, unit="bytes")
    validation_fraction: float = _option("Works of the validation split.", 0.1, above=0, below=1, unit="share")
    test_fraction: float = _option("Works of the test split.", 0.1, above=0, below=1, unit="share")
    split_seed: int = _option("Seed of the split and of the budget's choice.", 0)
    hygiene: list[str] = _option(f"Cleaning steps, in order: {', '.join(STEPS)}.", list(STEPS), choices=STEPS)
    min_words: int = _option("Shorter documents are dropped.", 1, low=1, unit="words")
    max_document_words: int = _option("Longer documents are split.", 50_000, low=100, unit="words")
    near_duplicate_threshold: float | None = _option("Documents of this similarity are dropped.", None, above=0, high=1)
    decontaminate: bool = _option("Cut what train shares with held-out text.", True)
    strict: bool = _option("Refuse what would be dropped or mended.", False)
    preprocessing_num_workers: int | None = _option("Cleaning; null: one a core.", None, low=1, unit="processes")


@dataclass
class TokenizerSection:
    """An existing tokenizer, or how to train one."""

    tokenizer: str | None = _option("An existing one; null: one is trained.", unit="folder or hub id")
    algorithm: str = _option("What to train: " + ", ".join(TOKENIZERS) + ".", "bpe", choices=TOKENIZERS)
    vocab_size: int = _option("Size of a trained vocabulary.", 32_000, low=MINIMUM_VOCABULARY, unit="tokens")


@dataclass
class ModelSection:
    """Architecture and size."""

    architecture: str = _option("Class of the model: " + ", ".join(ARCHITECTURES) + ".", "gpt2", choices=ARCHITECTURES)
    block_size: int = _option("Length of a training row.", 512, low=2, unit="tokens")
    repack: bool = _option("Order the documents anew in each epoch, and cut them into new blocks.", False)
    document_attention: bool = _option("Attend to tokens of the same document only.", False)
    dropout: float = _option("Dropout where the architecture has it.", 0.1, low=0, below=1, unit="share")
    model_config: dict[str, Any] = _option("Fields of " + ", ".join(CONFIG_CLASSES.values()) + ".", {})
    mask_probability: float = _option("Tokens that a masked model predicts.", 0.15, above=0, below=1, unit="share")


@dataclass
class CurriculumSection:
    """The order in which the blocks are trained on."""

    curriculum: str = _option(
        "Order of difficulty: " + ", ".join([NO_CURRICULUM, *DIFFICULTIES]) + ".",
        NO_CURRICULUM,
        choices=ChainMap(DIFFICULTIES, {NO_CURRICULUM: None}),  # a view: one that is registered later is a choice too
    )
    pacing: str = _option("How fast it gets harder: " + ", ".join(PACINGS) + ".", "staged", choices=PACINGS)
    stage_epochs: list[int] = _option("Passes of each stage, the easiest first.", [3, 4, 3], low=1, unit="passes")
    competence_epochs: float = _option("Until all blocks are in reach.", 5.0, above=0, unit="epochs")


@dataclass
class EvaluationSection:
    """What the final model is scored on beside its perplexity."""

    tasks: list[str] = _option("Names, or paths: " + ", ".join(TASKS) + ".", list(DEFAULT_TASKS))


@dataclass
class ReportingSection:
    """Where the finished run is published."""

    push_to_hub: bool = _option("Publish the run at its end.", False)
    hub_model_id: str | None = _option("Where to: owner/name.")
    hub_private_repo: bool = _option("Make the repository private.", True)
    hub_revision: str | None = _option("The branch; null: main.")
    publish_revisions: bool = _option("Publish the milestones too, each as a branch of its name.", False)

    def target(self) -> dict[str, Any]:
        """Return the arguments of `publish`."""
        return {
            "hub_model_id": self.hub_model_id,
            "private": self.hub_private_repo,
            "branch": self.hub_revision or "main",
            "revisions": self.publish_revisions,
        }


# Bounds of the stock training fields that a typing slip turns into nonsense.
TRAINING_CHECKS: dict[str, dict[str, Any]] = {
    "global_batch_size": {"low": 1},
    "per_device_train_batch_size": {"low": 1},
    "per_device_eval_batch_size": {"low": 1},
    "max_steps": {"low": -1},
    "gradient_accumulation_steps": {"low": 1},
    "num_train_epochs": {"above": 0},
    "learning_rate": {"above": 0},
    "muon_learning_rate": {"above": 0},
    "ema_decay": {"above": 0, "below": 1},
    "weight_decay": {"low": 0},
    "warmup_steps": {"low": 0},
    "max_grad_norm": {"low": 0},
    "logging_steps": {"above": 0},
    "eval_steps": {"above": 0},
    "save_steps": {"above": 0},
    "save_total_limit": {"low": 1},
    "milestones": {"low": 1},
    "early_stopping_patience": {"low": 1},
    "dataloader_num_workers": {"low": 0},
    "adam_beta1": {"low": 0, "below": 1},
    "adam_beta2": {"low": 0, "below": 1},
    "adam_epsilon": {"above": 0},
    "label_smoothing_factor": {"low": 0, "below": 1},
    "neftune_noise_alpha": {"low": 0},
    "eval_delay": {"low": 0},
    "eval_accumulation_steps": {"low": 1},
    "torch_empty_cache_steps": {"low": 1},
    "dataloader_prefetch_factor": {"low": 1},
    "ddp_timeout": {"low": 1},
    "ddp_bucket_cap_mb": {"low": 1},
    "torch_compile_mode": {"choices": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")},
    "debug": {"choices": ("", "underflow_overflow", "tpu_metrics_debug")},
    "include_num_input_tokens_seen": {"choices": ("all", "non_padding", "no")},
    "seed": {"low": 0, "high": 2**32 - 1},
    "data_seed": {"low": 0},
    "eval_strategy": {"choices": ("no", "steps", "epoch")},
    "save_strategy": {"choices": ("no", "steps", "epoch", "best")},
    "logging_strategy": {"choices": ("no", "steps", "epoch")},
    "metric_for_best_model": {"choices": ("loss", "eval_loss", "perplexity", "eval_perplexity")},
    "log_level": {"choices": tuple(LEVELS)},
    "log_level_replica": {"choices": tuple(LEVELS)},
    "precision": {"choices": PRECISIONS},
}

SECTIONS: dict[str, type] = {
    "corpus": CorpusSection,
    "tokenizer": TokenizerSection,
    "model": ModelSection,
    "curriculum": CurriculumSection,
    "evaluation": EvaluationSection,
    "training": SpecificationDefaults,
    "reporting": ReportingSection,
}


@dataclass
class Recipe:
    """A checked recipe; `training` holds the fields to build `HindiTrainingArguments` from."""

    corpus: CorpusSection
    tokenizer: TokenizerSection
    model: ModelSection
    curriculum: CurriculumSection
    evaluation: EvaluationSection
    reporting: ReportingSection
    training: dict[str, Any]
    path: Path
    places: dict[str, str]  # key -> where it was given, as errors name it; a key that was not has its default

    @property
    def output_dir(self) -> Path:
        """The run folder: `training.output_dir`, or runs/<name of the recipe>."""
        return Path(self.training["output_dir"] or Path("runs") / self.path.stem).expanduser()

    def place(self, key: str) -> str:
        """Return where a key was given, `file: section.key` or `command line: --key`, or where it could stand."""
        return self.places.get(key, f"{self.path}: {section_of(key)}.{key}")

    @contextmanager
    def blamed(self, key: str) -> Iterator[None]:
        """Say in a UserError of a stage, which knows nothing of recipes, where the value that it refuses stands."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.place(key)}: {str(error).removeprefix(f'{section_of(key)}: ')}") from error

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

        try:
            return HindiTrainingArguments(**{**self.training, "output_dir": str(self.output_dir)})
        except (ValueError, TypeError, ImportError, OSError) as error:
            told = " ".join(str(error).split())
            named = [name for name in self.places if re.search(rf"\b{name}\b", told)]
            raise UserError(f"{self.place(named[0]) if named else f'{self.path}: training'}: {told}") from error

    def check_model(self) -> None:
        """Raise UserError for a model that cannot be built, without making its weights."""
        from hindi_babylm.modeling import check_settings

        model = self.model
        with self.blamed("model_config"):
            check_settings(
                architecture=model.architecture,
                block_size=model.block_size,
                dropout=model.dropout,
                model_config=model.model_config,
            )


def section_of(key: str) -> str:
    """Return the section of a key; a field of transformers' belongs to training."""
    return next(
        (name for name, cls in SECTIONS.items() if key in {f.name for f in dataclasses.fields(cls)}), "training"
    )


def default_of(f: "dataclasses.Field[Any]") -> Any:
    """Return the default of a field, an enum as its value."""
    if f.default is not dataclasses.MISSING:
        return getattr(f.default, "value", f.default)
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else None
