"""What the optimizers of `training.optim` read from `optim_args`, and the packages that they need."""

import os
from typing import Any

from hindi_babylm.recipe.checking import Key, check_value, from_word, show
from hindi_babylm.recipe.given import Given
from hindi_babylm.storage import UserError, suggestion
from hindi_babylm.training.specification import resolve_batch

BATCH = ("global_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps")


def check_optimizer_arguments(where: str, optimizer: str, text: str) -> None:
    """Raise UserError for `optim_args` that the stock Trainer cannot read, or that `optimizer` would not.

    The stock parser reads key=value pairs between commas.
    """
    shown = f"{where} = {show(text)}"
    known = next((names for part, names in OPTIMIZER_ARGUMENTS.items() if part in optimizer), None)
    if known is None:
        raise UserError(f'{shown} has no effect with optim = "{optimizer}", which reads none: leave optim_args out')
    values: dict[str, Any] = {}
    for pair in text.replace(" ", "").split(","):
        name, *value = pair.split("=")
        if len(value) != 1:
            raise UserError(f"{shown}: expected key=value pairs between commas, got {pair!r}")
        if known is ANY:
            continue
        if name not in known:
            raise UserError(f"{shown}: {optimizer} reads no {name!r}; {suggestion(name, known)}")
        key = Key("training", known[name], {"low": 0} if known[name] in (int, float) else {}, None)
        values[name] = check_value(f"{where}: {name}", from_word(value[0], {known[name]}), key)
    if values.get("nesterov") and (not values.get("momentum") or values.get("dampening")):
        raise UserError(f"{shown}: nesterov needs a momentum and no dampening")


def check_low_rank(given: Given) -> None:
    """Raise UserError for GaLore and APOLLO without modules, and by layers where gradients are accumulated."""
    values = given.values
    if not values["optim"].startswith(("galore", "apollo")):
        return
    if values["optim_target_modules"] is None:
        raise UserError(
            f'{given.first("optim")} needs optim_target_modules: set it to "all-linear", or to the names of modules'
        )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    _, accumulation = resolve_batch(**{name: values[name] for name in BATCH}, processes=processes)
    if values["optim"].endswith("layerwise") and (accumulation > 1 or processes > 1):
        why = f"{processes} processes" if processes > 1 else f"gradients accumulated over {accumulation} passes"
        raise UserError(
            f"{given.first('optim')} steps as soon as a layer has its gradient, which contradicts {why}: take "
            f"{values['optim'].removesuffix('_layerwise')}"
        )


ANY: dict[str, type] = {}  # bitsandbytes' RMSprop gets every pair
_LOW_RANK = {"rank": int, "update_proj_gap": int, "scale": float, "proj_type": str}
_LOW_BITS = {"block_size": int, "bf16_stochastic_round": bool}

# Part of an optimizer's name -> the keys of `optim_args` that transformers reads for it, none of them below 0; the
# first match counts.
OPTIMIZER_ARGUMENTS: dict[str, dict[str, type]] = {
    "rmsprop_bnb": ANY,
    "galore": _LOW_RANK,
    "apollo": {**_LOW_RANK, "proj": str, "scale_type": str},
    "schedule_free": {"weight_lr_power": float, "r": float},
    "ademamix": {
        **dict.fromkeys(("beta1", "beta2", "beta3", "alpha", "eps"), float),
        **dict.fromkeys(("t_alpha", "t_beta3"), int),
    },
    "anyprecision": {
        "use_kahan_summation": bool,
        **dict.fromkeys(("momentum_dtype", "variance_dtype", "compensation_buffer_dtype"), str),
    },
    "grokadamw": dict.fromkeys(
        ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping"), float
    ),
    "stable_adamw": {"max_lr": float, "kahan_sum": bool, "decouple_lr": bool},
    "torch_4bit": _LOW_BITS,
    "torch_8bit": _LOW_BITS,
    "sgd": {**dict.fromkeys(("momentum", "dampening", "weight_decay"), float), "nesterov": bool},
    "adagrad": dict.fromkeys(("lr_decay", "weight_decay", "eps"), float),
    "rmsprop": {**dict.fromkeys(("momentum", "alpha", "eps", "weight_decay"), float), "centered": bool},
}

# Package -> the name that it is installed by, where it is another.
INSTALLED_AS = {"optimi": "torch-optimi"}

# Part of an optimizer's name -> the package that transformers imports for it when the training begins.
OPTIMIZER_PACKAGES = {
    "torch_4bit": "torchao",
    "torch_8bit": "torchao",
    "torch_npu": "torch_npu",
    "torch_xla": "torch_xla",
    "anyprecision": "torchdistx",
    "apollo": "apollo_torch",
    "galore": "galore_torch",
    "grokadamw": "grokadamw",
    "lomo": "lomo_optim",
    "schedule_free": "schedulefree",
    "stable_adamw": "optimi",
    "8bit": "bitsandbytes",
    "bnb": "bitsandbytes",
    "ademamix": "bitsandbytes",
    "lion": "bitsandbytes",
    "paged": "bitsandbytes",
}
