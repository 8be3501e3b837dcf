"""Keys that contradict each other, and keys that have no effect beside others."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hindi_babylm.corpus.sources import check_weights
from hindi_babylm.curriculum.difficulty import NO_CURRICULUM
from hindi_babylm.recipe.checking import Key, check_value, show
from hindi_babylm.recipe.optimizers import OPTIMIZER_PACKAGES, check_optimizer_arguments
from hindi_babylm.recipe.refused import REFUSED
from hindi_babylm.recipe.sections import SOURCE_KEYS, Recipe
from hindi_babylm.storage import UserError, suggestion


@dataclass(frozen=True)
class Governor:
    """The key that decides whether another one has an effect: for which of its values, and the way out."""

    key: str
    is_on: Callable[[Any], bool]
    way_out: str


def forget_overridden(values: Mapping[str, dict[str, Any]], given: Mapping[str, Any]) -> None:
    """Take out of a recipe's values those that a flag switches off: `--max_steps 5` goes before its epochs."""
    for name, governor in GOVERNORS.items():
        if governor.key in given and name not in given:
            (value,) = (entries[governor.key] for entries in values.values() if governor.key in entries)
            if not governor.is_on(value):
                for entries in values.values():
                    entries.pop(name, None)


def check_together(
    recipe: Recipe, keys: Mapping[str, Key], places: Mapping[str, str], *, on_command_line: set[str]
) -> None:
    """Raise UserError for keys that are refused, have no effect beside others, or contradict them.

    `places` says where each given key stands.
    """
    values: dict[str, Any] = {
        name: recipe.training.get(name, key.default)
        if key.section == "training"
        else getattr(getattr(recipe, key.section), name)
        for name, key in keys.items()
    }
    for name, reason in REFUSED.items():
        if name in places and values[name] != keys[name].default:
            # A token is not printed: what a refusal says ends in logs.
            shown = "" if name.endswith("_token") else f" = {show(values[name])}"
            raise UserError(f"{places[name]}{shown} is refused: {reason}")
    for name, governor in GOVERNORS.items():
        # A resolved recipe holds every default of ours: only another value, or a flag, asks for something.
        asked = name in places and (name in on_command_line or values[name] != keys[name].default)
        if asked and values[name] not in (None, False) and not governor.is_on(values[governor.key]):
            raise UserError(
                f"{places[name]} = {show(values[name])} has no effect with {governor.key} = "
                f"{show(values[governor.key])}: {governor.way_out}, or leave {name} out"
            )
    _check_corpus(recipe)
    _check_model(recipe)
    _check_evaluations(recipe, values)
    _check_training(recipe, values)
    _check_schedule(recipe, values)
    _check_curriculum(recipe, values)
    _check_files(recipe, values["resume_from_checkpoint"])
    _check_trackers(recipe, values["report_to"])


def _check_corpus(recipe: Recipe) -> None:
    validation, test = recipe.corpus.validation_fraction, recipe.corpus.test_fraction
    if validation + test >= 1:
        raise UserError(
            f"{recipe.path}: corpus.validation_fraction {validation} + test_fraction {test} leave nothing to train on: "
            "lower one"
        )
    where = f"{recipe.path}: corpus.sources"
    if not recipe.corpus.sources:
        raise UserError(f"{where} is empty: name at least one source, or leave it out for the bundled")
    for source in recipe.corpus.sources:
        kinds = [kind for kind in ("path", "hub_id", "bundled") if kind in source]
        if len(kinds) != 1:
            raise UserError(f"{where}: {show(source)} must have exactly one of path, hub_id, bundled")
        for key, value in list(source.items()):
            if key not in SOURCE_KEYS:
                raise UserError(f"{where}: unknown key {key!r} in {show(source)}; {suggestion(key, SOURCE_KEYS)}")
            hint, checks = SOURCE_KEYS[key]
            source[key] = check_value(f"{where}: {key}", value, Key("corpus", hint, checks, None))
        if source.get("streaming") and "hub_id" not in source:
            raise UserError(f"{where}: {show(source)}: streaming goes with hub_id: leave it out")
    try:
        check_weights(recipe.corpus.sources, limit=recipe.corpus.max_bytes or recipe.corpus.max_words)
    except UserError as error:
        raise UserError(f"{recipe.path}: {error}") from error
    if recipe.corpus.max_words is not None and recipe.corpus.max_bytes is not None:
        raise UserError(f"{recipe.path}: corpus.max_words and max_bytes are one budget in two units: leave one out")
    if recipe.corpus.near_duplicate_threshold is not None and importlib.util.find_spec("datasketch") is None:
        raise UserError(
            f"{recipe.path}: corpus.near_duplicate_threshold needs the package datasketch, which is not installed: "
            "pip install 'hindi-babylm[dedup]', or leave near_duplicate_threshold out"
        )


def _check_model(recipe: Recipe) -> None:
    model = recipe.model
    for name in ("n_positions", "max_position_embeddings"):
        positions = model.model_config.get(name)
        if isinstance(positions, int) and positions < model.block_size:
            raise UserError(
                f"{recipe.path}: model.block_size {model.block_size} is longer than the {positions} positions of "
                f"model.model_config.{name}: lower block_size to {positions}, or leave {name} out"
            )


def _check_evaluations(recipe: Recipe, values: Mapping[str, Any]) -> None:
    where, evaluations, saves = f"{recipe.path}: training", values["eval_strategy"], values["save_strategy"]
    wanting = [
        name
        for name, wants in {
            "early_stopping_patience": values["early_stopping_patience"] is not None,
            "load_best_model_at_end": values["load_best_model_at_end"],
            "save_strategy": saves == "best",
            "lr_scheduler_type": values["lr_scheduler_type"] in ("reduce_lr_on_plateau", "greedy"),
        }.items()
        if wants
    ]
    if wanting and evaluations == "no":
        raise UserError(
            f"{where}.{wanting[0]} {values[wanting[0]]} needs evaluations: set eval_strategy to steps or epoch, or "
            f"leave {wanting[0]} out"
        )
    if values["greater_is_better"]:
        raise UserError(
            f"{where}.greater_is_better = true contradicts metric_for_best_model "
            f"{show(values['metric_for_best_model'])}, of which less is better: leave it out"
        )
    if values["metric_for_best_model"] is None and evaluations != "no":
        raise UserError(
            f"{where}.metric_for_best_model = null: the evaluations must be compared by loss or perplexity: "
            "leave it out"
        )
    best = values["load_best_model_at_end"]
    if evaluations == "no" or saves == "best" or best is False:
        return
    if saves != evaluations:
        raise UserError(
            f"{where}.save_strategy {saves} contradicts eval_strategy {evaluations}: the best model is loaded from a "
            f"checkpoint of its evaluation; set save_strategy to {evaluations} or best, or load_best_model_at_end to "
            "false"
        )
    every = values["logging_steps"] if values["eval_steps"] is None else values["eval_steps"]
    ratio = values["save_steps"] / every
    if evaluations == "steps" and ((every < 1) != (values["save_steps"] < 1) or abs(ratio - round(ratio)) > 1e-6):
        raise UserError(
            f"{where}.save_steps {values['save_steps']:g} is no multiple of eval_steps {every:g}: the best model is "
            "loaded from a checkpoint of its evaluation; make it one, or set save_strategy to best or "
            "load_best_model_at_end to false"
        )


def _check_training(recipe: Recipe, values: Mapping[str, Any]) -> None:
    from accelerate.utils import DynamoBackend

    where = f"{recipe.path}: training"
    if values["max_steps"] == 0:
        raise UserError(f"{where}.max_steps = 0: expected at least 1, or -1 for num_train_epochs")
    for name in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = name.replace("gradient", "activation")
        if None not in (values[name], values.get(new)) and values[name] != values[new]:
            raise UserError(f"{where}.{name} {show(values[name])} contradicts {new} {show(values[new])}: keep one")
    for name in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        for key in values.get(name) or {}:
            if key not in CHECKPOINTING:
                raise UserError(f"{where}.{name}: unknown key {key!r}; {suggestion(key, CHECKPOINTING)}")
    backend, backends = values["torch_compile_backend"], [entry.lower() for entry in DynamoBackend.__members__]
    if backend is not None and backend not in backends:
        raise UserError(f"{where}.torch_compile_backend = {show(backend)}: {suggestion(backend, backends)}")
    settings = values["accelerator_config"]
    if settings is not None and (not isinstance(settings, dict) or set(settings) - {"non_blocking"}):
        raise UserError(
            f"{where}.accelerator_config = {show(settings)}: expected an object of non_blocking alone: the other "
            "settings would change the batch or the order of blocks"
        )
    optimizer = next((package for name, package in OPTIMIZER_PACKAGES.items() if name in values["optim"]), None)
    packages = {
        "optim": optimizer,
        "use_liger_kernel": values["use_liger_kernel"] and "liger_kernel",
        "deepspeed": values["deepspeed"] and "deepspeed",
    }
    for key, package in packages.items():
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"{where}.{key} = {show(values[key])} needs the package {package}, which is not installed: "
                f"install it, or leave {key} out"
            )
    if values["optim_args"]:
        check_optimizer_arguments(where, values["optim"], values["optim_args"])


def _check_schedule(recipe: Recipe, values: Mapping[str, Any]) -> None:
    name, settings = values["lr_scheduler_type"], values["lr_scheduler_kwargs"]
    if settings is None and name in ("linear", "cosine", "constant", "constant_with_warmup"):
        return
    import torch
    from transformers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=values["learning_rate"])
    try:
        get_scheduler(name, optimizer, 10, 100, scheduler_specific_kwargs=settings or {})
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{recipe.path}: training.lr_scheduler_kwargs = {show(settings)}: {name} does not take it: "
            f"{' '.join(str(error).split())}"
        ) from error


def _check_files(recipe: Recipe, checkpoint: str | None) -> None:
    where = f"{recipe.path}: training"
    folder = recipe.output_dir
    for path in (folder, *folder.parents):
        try:
            is_file = path.exists() and not path.is_dir()
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise UserError(
                f'{where}.output_dir = "{folder}": {error.strerror or error}: choose another --output_dir'
            ) from error
        if is_file:
            raise UserError(f'{where}.output_dir = "{folder}": {path} is a file: choose another --output_dir')
    if checkpoint is None:
        return
    if not checkpoint.endswith(".pt"):
        raise UserError(f'{where}.resume_from_checkpoint = "{checkpoint}": expected the .pt file of a checkpoint')
    if not Path(checkpoint).is_file():
        near = suggestion(checkpoint, map(str, sorted(Path(checkpoint).parent.glob("*.pt"))))
        advice = near if near != "there are " else "its folder holds no checkpoint"
        raise UserError(f'{where}.resume_from_checkpoint = "{checkpoint}": there is no such file; {advice}')


def _check_curriculum(recipe: Recipe, values: Mapping[str, Any]) -> None:
    name, stages = recipe.curriculum.curriculum, recipe.curriculum.stage_epochs
    if name == NO_CURRICULUM:
        return
    if not stages:
        raise UserError(f"{recipe.path}: curriculum.stage_epochs is empty: give the epochs of each stage")
    if values["max_steps"] < 1 and values["num_train_epochs"] != sum(stages):
        raise UserError(
            f"{recipe.path}: training.num_train_epochs {values['num_train_epochs']:g} is not the sum of "
            f"curriculum.stage_epochs {stages}: set it to {sum(stages)}, or change the stages"
        )
    if values["global_batch_size"] == 1:
        raise UserError(
            f"{recipe.path}: training.global_batch_size 1 with curriculum.curriculum {show(name)}: a stage that is a "
            "block shorter than the others would have a step without loss: take 2 or more"
        )


def _check_trackers(recipe: Recipe, names: Any) -> None:
    if names in ([], ["none"], ["all"], "none", "all"):
        return
    from hindi_babylm.training.trackers import check_trackers  # only now: the import takes seconds

    try:
        check_trackers(names)
    except ValueError as error:
        raise UserError(f"{recipe.path}: training.report_to: {error}") from error


# What `torch.utils.checkpoint.checkpoint` and transformers take, as far as JSON can say it.
CHECKPOINTING = ("use_reentrant", "determinism_check", "debug", "early_stop", "every_n_layers", "offload")

# Key -> the key that switches it off. A flag that governs takes the governed keys of the recipe back to their defaults.
GOVERNORS = {
    "stage_epochs": Governor("curriculum", lambda name: name != NO_CURRICULUM, "choose a curriculum"),
    "num_train_epochs": Governor("max_steps", lambda steps: steps < 1, "set max_steps to -1"),
    **dict.fromkeys(
        ("algorithm", "vocab_size"),
        Governor("tokenizer", lambda name: name is None, "set tokenizer to null to train one"),
    ),
    "optim": Governor("muon_learning_rate", lambda rate: rate is None, "set muon_learning_rate to null"),
    "optim_target_modules": Governor("optim", lambda name: name.startswith(("galore", "apollo")), "take one of those"),
    **dict.fromkeys(
        ("adam_beta1", "adam_beta2", "adam_epsilon"),
        Governor("optim", lambda name: name not in ("adafactor", "adagrad", "rmsprop", "sgd"), "take an Adam"),
    ),
    "warmup_steps": Governor("lr_scheduler_type", lambda name: name != "constant", "take constant_with_warmup"),
    "eval_steps": Governor("eval_strategy", lambda when: when == "steps", "set eval_strategy to steps"),
    "save_steps": Governor("save_strategy", lambda when: when == "steps", "set save_strategy to steps"),
    **dict.fromkeys(
        ("metric_for_best_model", "eval_delay"),
        Governor("eval_strategy", lambda when: when != "no", "set eval_strategy to steps or epoch"),
    ),
    **dict.fromkeys(
        ("dataloader_prefetch_factor", "dataloader_persistent_workers", "dataloader_multiprocessing_context"),
        Governor("dataloader_num_workers", lambda count: count > 0, "set dataloader_num_workers to 1 or more"),
    ),
    "liger_kernel_config": Governor("use_liger_kernel", bool, "set use_liger_kernel to true"),
    "fsdp_config": Governor("fsdp", bool, "set fsdp to true"),
    **dict.fromkeys(
        ("project", "run_name", "wandb_tags", "wandb_notes"),
        Governor("report_to", lambda names: names not in ("none", [], ["none"]), "name a tracker in report_to"),
    ),
    **dict.fromkeys(
        ("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        Governor("report_to", lambda names: "trackio" in names, "add trackio to report_to"),
    ),
}
