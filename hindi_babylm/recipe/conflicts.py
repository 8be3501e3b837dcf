"""Keys that contradict each other, and keys that have no effect beside others (`GOVERNORS`)."""

import os
import sys
from collections.abc import Mapping

from hindi_babylm.corpus.sources import check_weights
from hindi_babylm.curriculum.difficulty import NO_CURRICULUM
from hindi_babylm.curriculum.pacing import FIRST_STAGES, stage_lengths
from hindi_babylm.modeling import KEEP_DOCUMENTS_APART, MASKED, objective_of
from hindi_babylm.recipe.checking import Key, check_value, show
from hindi_babylm.recipe.files import check_files
from hindi_babylm.recipe.given import Given
from hindi_babylm.recipe.governors import governors
from hindi_babylm.recipe.machine import check_machine
from hindi_babylm.recipe.model_config import check_model_config
from hindi_babylm.recipe.optimizers import BATCH, check_low_rank, check_optimizer_arguments
from hindi_babylm.recipe.publishing import check_publishing
from hindi_babylm.recipe.refused import REFUSED
from hindi_babylm.recipe.schedules import check_schedule
from hindi_babylm.recipe.sections import SOURCE_KEYS, Recipe
from hindi_babylm.recipe.stock import tracker_names
from hindi_babylm.storage import UserError, suggestion
from hindi_babylm.training.specification import resolve_batch


def check_together(recipe: Recipe, keys: Mapping[str, Key]) -> None:
    """Raise UserError for keys that are refused, have no effect beside others, or contradict them.

    What takes the import of a library comes last.
    """
    given = Given(recipe, keys)
    values = given.values
    for name, reason in REFUSED.items():
        if name in recipe.places and values[name] != keys[name].default:
            # A token is not printed: what a refusal says ends in logs.
            shown = given.at(name) if name.endswith("_token") else given.first(name)
            raise UserError(f"{shown} is refused: {reason}")
    for name, governor in governors():
        # A resolved recipe holds every default of ours: only another value, or a flag, asks for something.
        asked = name in recipe.places and (given.by_flag(name) or values[name] != keys[name].default)
        if asked and values[name] not in (None, False) and not governor.is_on(values[governor.key]):
            raise UserError(
                f"{given.first(name)} has no effect with {given.other(governor.key, name)}: {governor.way_out}, or "
                f"leave {name} out"
            )
    _check_corpus(given)
    check_model_config(
        given.at("model_config"),
        architecture=recipe.model.architecture,
        settings=recipe.model.model_config,
        block_size=given.other("block_size", "model_config"),
        shortest=recipe.model.block_size,
    )
    if recipe.model.document_attention and recipe.model.architecture not in KEEP_DOCUMENTS_APART:
        raise UserError(
            f"{given.first('document_attention')} contradicts {given.other('architecture', 'document_attention')}, "
            f"which is not known to keep documents apart: take {' or '.join(KEEP_DOCUMENTS_APART)}, or leave it out"
        )
    _check_evaluations(given)
    _check_training(given)
    _check_curriculum(given)
    check_publishing(given)
    check_files(given)
    check_machine(given)
    check_low_rank(given)
    check_schedule(
        given.at("lr_scheduler_kwargs"),
        values["lr_scheduler_type"],
        values["lr_scheduler_kwargs"],
        **{name: values[name] for name in ("learning_rate", "max_steps", "warmup_steps")},
    )
    if values["optim_args"]:
        check_optimizer_arguments(given.at("optim_args"), values["optim"], values["optim_args"])
    _check_trackers(given)


def _check_corpus(given: Given) -> None:
    corpus = given.recipe.corpus
    if corpus.validation_fraction + corpus.test_fraction >= 1:
        raise UserError(
            f"{given.first('validation_fraction')} and {given.other('test_fraction', 'validation_fraction')} leave "
            "nothing to train on: lower one"
        )
    if corpus.max_document_words < 4 * corpus.min_words:
        raise UserError(
            f"{given.first('max_document_words')} is less than 4 times "
            f"{given.other('min_words', 'max_document_words')}: a split would leave parts to drop: raise it, or lower "
            "min_words"
        )
    where = given.at("sources")
    if not corpus.sources:
        raise UserError(f"{where} is empty: name at least one source, or leave it out for the bundled")
    for source in corpus.sources:
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
        check_weights(corpus.sources, limit=corpus.max_bytes or corpus.max_words)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('corpus: ')}") from error
    if corpus.max_words is not None and corpus.max_bytes is not None:
        raise UserError(
            f"{given.first('max_words')} and {given.other('max_bytes', 'max_words')} are one budget in two units: "
            "leave one out"
        )


def _check_evaluations(given: Given) -> None:
    values, evaluations, saves = given.values, given.values["eval_strategy"], given.values["save_strategy"]
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
            f"{given.first(wanting[0])} needs evaluations, but {given.other('eval_strategy', wanting[0])}: set "
            f"eval_strategy to steps or epoch, or leave {wanting[0]} out"
        )
    if values["greater_is_better"]:
        raise UserError(
            f"{given.first('greater_is_better')} contradicts "
            f"{given.other('metric_for_best_model', 'greater_is_better')}, of which less is better: leave it out"
        )
    if values["metric_for_best_model"] is None and evaluations != "no":
        raise UserError(
            f"{given.first('metric_for_best_model')}: the evaluations must be compared by loss or perplexity: "
            "leave it out"
        )
    best = values["load_best_model_at_end"]
    if evaluations == "no" or saves == "best" or best is False:
        return
    if saves != evaluations:
        raise UserError(
            f"{given.first('save_strategy')} contradicts {given.other('eval_strategy', 'save_strategy')}: the best "
            f"model is loaded from a checkpoint of its evaluation; set save_strategy to {evaluations} or best, or "
            "load_best_model_at_end to false"
        )
    every = "logging_steps" if values["eval_steps"] is None else "eval_steps"
    ratio = values["save_steps"] / values[every]
    mixed = (values[every] < 1) != (values["save_steps"] < 1)
    if evaluations == "steps" and (mixed or abs(ratio - round(ratio)) > 1e-6):
        raise UserError(
            f"{given.first('save_steps')} is no multiple of {given.other(every, 'save_steps')}, the steps between "
            "evaluations: the best model is loaded from a checkpoint of its evaluation; make it one, or set "
            "save_strategy to best or load_best_model_at_end to false"
        )


def _check_training(given: Given) -> None:
    values = given.values
    if values["max_steps"] == 0:
        raise UserError(f"{given.first('max_steps')}: expected at least 1, or -1 for num_train_epochs")
    for name in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = name.replace("gradient", "activation")
        if None not in (values[name], values.get(new)) and values[name] != values[new]:
            raise UserError(f"{given.first(name)} contradicts {given.other(new, name)}: keep one")
    for name in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        for key in values.get(name) or {}:
            if key not in CHECKPOINTING:
                raise UserError(f"{given.at(name)}: unknown key {key!r}; {suggestion(key, CHECKPOINTING)}")
            hint = int if key == "every_n_layers" else bool
            check_value(f"{given.at(name)}.{key}", values[name][key], Key("training", hint, {}, None))
        if (values.get(name) or {}).get("use_reentrant") and values[name].get("debug"):
            raise UserError(f"{given.at(name)}: torch takes debug only with use_reentrant false: leave one out")
    masked = objective_of(values["architecture"]) == MASKED
    if values["dataloader_persistent_workers"] and masked:
        raise UserError(
            f"{given.first('dataloader_persistent_workers')} contradicts "
            f"{given.other('architecture', 'dataloader_persistent_workers')}: workers that outlive an epoch would "
            "repeat its masks: leave it out"
        )
    for name in ("eval_steps", "save_steps", "logging_steps"):
        if (values[name] or 0) > 1 and values[name] % 1:
            raise UserError(f"{given.first(name)}: expected whole steps, or a share of all steps below 1")
    for name, wanted, reason in (
        ("ema_decay", values["ema_decay"] is not None, AVERAGES_SHARDED),
        ("architecture", masked, HEAD_SHARDED),
    ):
        sharding = [given.other(key, name) for key in ("fsdp", "deepspeed") if values[key]]
        for kind in ("FSDP", "DEEPSPEED"):
            if os.environ.get(f"ACCELERATE_USE_{kind}") == "true":
                sharding.append(f"{kind} of accelerate launch")
        if wanted and sharding:
            raise UserError(f"{given.first(name)} contradicts {sharding[0]}, {reason}")
    settings = values["accelerator_config"]
    if settings is not None and (not isinstance(settings, dict) or set(settings) - {"non_blocking"}):
        raise UserError(
            f"{given.first('accelerator_config')}: expected an object of non_blocking alone: the other "
            "settings would change the batch or the order of blocks"
        )
    if values["fp16"] and values["bf16"]:
        raise UserError(
            f"{given.first('fp16')} contradicts {given.other('bf16', 'fp16')}: keep one, or set precision instead"
        )
    for name in ("fp16", "bf16"):
        if values[name] and values["precision"] not in ("auto", name):
            raise UserError(
                f"{given.first('precision')} contradicts {given.other(name, 'precision')}: leave one of them out"
            )
    batch = {name: values[name] for name in BATCH}
    try:
        resolve_batch(**batch, processes=int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError as error:
        named = [name for name in batch if name in given.recipe.places] or ["global_batch_size"]
        where = ", ".join([given.at(named[0]), *(given.other(name, named[0]).split(" = ")[0] for name in named[1:])])
        raise UserError(f"{where}: {error}") from error


def _check_curriculum(given: Given) -> None:
    values, order = given.values, given.recipe.curriculum
    if values["repack"] and values["dataloader_persistent_workers"]:
        raise UserError(
            f"{given.first('repack')} contradicts {given.other('dataloader_persistent_workers', 'repack')}: such "
            "workers stay at the blocks of their first epoch: leave one of them out"
        )
    if order.curriculum == NO_CURRICULUM:
        return
    epochs = values["num_train_epochs"] if values["max_steps"] < 1 else None
    if order.pacing not in FIRST_STAGES:
        if order.pacing == "competence" and epochs is not None and order.competence_epochs > epochs:
            raise UserError(
                f"{given.first('competence_epochs')} is more than "
                f"{given.other('num_train_epochs', 'competence_epochs')}: the hardest blocks would never be in reach: "
                f"lower it to {epochs:g} or less, or train longer"
            )
        return
    if not order.stage_epochs:
        raise UserError(f"{given.at('stage_epochs')} is empty: give the epochs of each stage")
    lengths = stage_lengths(order.pacing, order.stage_epochs)
    if epochs not in (None, sum(lengths)):
        stages = given.other("stage_epochs", "num_train_epochs")
        meant = f"the sum of {stages}"
        if order.pacing == "cumulative":
            meant = (
                f"{' + '.join(map(str, lengths))}, as {stages} and {given.other('pacing', 'num_train_epochs')} ask "
                "for, where a pass over n stages takes n epochs"
            )
        raise UserError(
            f"{given.first('num_train_epochs')} is not {meant}: set it to {sum(lengths)}, or change the stages"
        )
    if values["global_batch_size"] == 1:
        raise UserError(
            f"{given.first('global_batch_size')} with {given.other('curriculum', 'global_batch_size')}: a stage that "
            "is a block shorter than the others would have a step without loss: take 2 or more"
        )


def _check_trackers(given: Given) -> None:
    values = given.values
    if values["report_to"] not in ([], ["none"], ["all"], "none", "all"):
        names = [values["report_to"]] if isinstance(values["report_to"], str) else values["report_to"]
        known = tracker_names()
        # Where the trackers are imported already, one of our own may have been added.
        if known is not None and "hindi_babylm.training.trackers" not in sys.modules:
            for name in names:
                if name not in ("none", *known):
                    near = suggestion(name, ["none", *known])
                    raise UserError(f"{given.at('report_to')}: unknown tracker {name!r}; {near}")
        from hindi_babylm.training.trackers import check_trackers

        try:
            check_trackers(values["report_to"])
        except ValueError as error:
            raise UserError(f"{given.at('report_to')}: {error}") from error


AVERAGES_SHARDED = "whose sharded checkpoints would not hold the averages: leave one of them out"
HEAD_SHARDED = (
    "which takes no parameter in two places, as a masked model's head has one: take a causal architecture, or start "
    "without sharding"
)

# What `torch.utils.checkpoint.checkpoint` and transformers take, as far as JSON can say it.
CHECKPOINTING = ("use_reentrant", "determinism_check", "debug", "early_stop", "every_n_layers", "offload")
