"""What the optimizers of `training.optim` read from `optim_args`, and the packages that they need."""

from hindi_babylm.recipe.checking import show
from hindi_babylm.storage import UserError, suggestion


def check_optimizer_arguments(where: str, optimizer: str, text: str) -> None:
    """Raise UserError for `optim_args` that the stock Trainer cannot read, or that `optimizer` would not.

    The stock parser reads key=value pairs between commas.
    """
    shown = f"{where} = {show(text)}"
    known = next((names for part, names in OPTIMIZER_ARGUMENTS.items() if part in optimizer), ())
    if not known:
        raise UserError(f'{shown} has no effect with optim = "{optimizer}", which reads none: leave optim_args out')
    for pair in text.replace(" ", "").split(","):
        name, *value = pair.split("=")
        if len(value) != 1:
            raise UserError(f"{shown}: expected key=value pairs between commas, got {pair!r}")
        if known != ANY and name not in known:
            raise UserError(f"{shown}: {optimizer} reads no {name!r}; {suggestion(name, known)}")
    if optimizer in ("sgd", "adagrad", "rmsprop"):  # those of torch itself; the others need packages or the model
        _make(shown, optimizer, text)


def _make(shown: str, optimizer: str, text: str) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(TrainingArguments(optim=optimizer, optim_args=text))
        kind([torch.zeros(1)], **settings)
    except ValueError as error:
        raise UserError(f"{shown}: {optimizer} does not take it: {' '.join(str(error).split())}") from error


ANY = ("any",)  # bitsandbytes' RMSprop gets every pair
_LOW_RANK = ("rank", "update_proj_gap", "scale", "proj_type")

# Part of an optimizer's name -> the keys of `optim_args` that transformers reads for it; the first match counts.
OPTIMIZER_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "rmsprop_bnb": ANY,
    "galore": _LOW_RANK,
    "apollo": (*_LOW_RANK, "proj", "scale_type"),
    "schedule_free": ("weight_lr_power", "r"),
    "ademamix": ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3"),
    "anyprecision": ("use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype"),
    "grokadamw": ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping"),
    "stable_adamw": ("max_lr", "kahan_sum", "decouple_lr"),
    "torch_4bit": ("block_size", "bf16_stochastic_round"),
    "torch_8bit": ("block_size", "bf16_stochastic_round"),
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "weight_decay", "centered"),
}

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
