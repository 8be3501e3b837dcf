"""Keys that have no effect beside certain values of others."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hindi_babylm.curriculum.difficulty import NO_CURRICULUM
from hindi_babylm.curriculum.pacing import FIRST_STAGES
from hindi_babylm.modeling import MASKED, OBJECTIVES, objective_of
from hindi_babylm.training.specification import WITHOUT_WARMUP


@dataclass(frozen=True)
class Governor:
    """The key that decides whether another one has an effect: for which of its values, and the way out."""

    key: str
    is_on: Callable[[Any], bool]
    way_out: str


def forget_overridden(
    values: Mapping[str, dict[str, Any]], given: Mapping[str, Any], before: Mapping[str, Mapping[str, Any]]
) -> None:
    """Take out of a recipe's values those that a flag switches off: `--max_steps 5` goes before its epochs.

    `before` holds the values without the flags: the settings of another schedule or optimizer go as well.
    """
    for key, settings in OWN_SETTINGS:
        if key in given and settings not in given and values["training"][key] != before["training"].get(key):
            values["training"].pop(settings, None)
    for name, governor in governors():
        if governor.key in given and name not in given:
            (value,) = (entries[governor.key] for entries in values.values() if governor.key in entries)
            if not governor.is_on(value):
                for entries in values.values():
                    entries.pop(name, None)


def governors() -> Iterator[tuple[str, Governor]]:
    """Yield each governed key with what governs it; a key of several governors once for each."""
    for name, found in GOVERNORS.items():
        yield from ((name, governor) for governor in (found if isinstance(found, tuple) else (found,)))


# A key, and the settings that only one of its values reads.
OWN_SETTINGS = (
    ("lr_scheduler_type", "lr_scheduler_kwargs"),
    ("optim", "optim_args"),
    ("optim", "optim_target_modules"),
    ("muon_learning_rate", "optim_args"),
    ("muon_learning_rate", "optim_target_modules"),
)

_ADDRESSED = Governor("hub_model_id", lambda name: name is not None, "set hub_model_id to owner/name")
_CHOSEN = Governor("curriculum", lambda name: name != NO_CURRICULUM, "choose a curriculum")

# Key -> the key that switches it off, or several of which each does. A flag that governs takes the governed keys of the
# recipe back to their defaults.
GOVERNORS: dict[str, Governor | tuple[Governor, ...]] = {
    "pacing": _CHOSEN,
    "stage_epochs": (
        _CHOSEN,
        Governor("pacing", lambda name: name in FIRST_STAGES, "set pacing to staged or cumulative"),
    ),
    "competence_epochs": (_CHOSEN, Governor("pacing", lambda name: name == "competence", "set pacing to competence")),
    "mask_probability": Governor(
        "architecture",
        lambda name: objective_of(name) == MASKED,
        f"choose {' or '.join(name for name, objective in OBJECTIVES.items() if objective == MASKED)}",
    ),
    "repack": Governor("curriculum", lambda name: name == NO_CURRICULUM, "set curriculum to none"),
    "num_train_epochs": Governor("max_steps", lambda steps: steps < 1, "set max_steps to -1"),
    **dict.fromkeys(
        ("algorithm", "vocab_size"),
        Governor("tokenizer", lambda name: name is None, "set tokenizer to null to train one"),
    ),
    "optim": Governor("muon_learning_rate", lambda rate: rate is None, "set muon_learning_rate to null"),
    "optim_target_modules": Governor(
        "optim", lambda name: name.startswith(("galore", "apollo")), "take a GaLore or APOLLO optimizer"
    ),
    **dict.fromkeys(
        ("adam_beta1", "adam_beta2", "adam_epsilon"),
        Governor("optim", lambda name: name not in ("adafactor", "adagrad", "rmsprop", "sgd"), "take an Adam"),
    ),
    "warmup_steps": Governor("lr_scheduler_type", lambda name: name not in WITHOUT_WARMUP, "take constant_with_warmup"),
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
    **dict.fromkeys(("push_to_hub", "hub_private_repo", "hub_revision"), _ADDRESSED),
    "publish_revisions": (_ADDRESSED, Governor("milestones", bool, "ask for milestones")),
    **dict.fromkeys(
        ("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        Governor("report_to", lambda names: names == "all" or "trackio" in names, "add trackio to report_to"),
    ),
}
