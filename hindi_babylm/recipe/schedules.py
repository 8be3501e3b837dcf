"""What the schedules of `training.lr_scheduler_type` read from `lr_scheduler_kwargs`, known without any import."""

import math
from collections.abc import Mapping
from typing import Any

from hindi_babylm.recipe.checking import Key, check_value, show
from hindi_babylm.storage import UserError, suggestion
from hindi_babylm.training.specification import schedule_arguments


def check_schedule(
    where: str,
    name: str,
    settings: Mapping[str, Any] | None,
    *,
    learning_rate: float,
    max_steps: int = -1,
    warmup_steps: float = 0,
) -> None:
    """Raise UserError for `lr_scheduler_kwargs`, standing at `where`, that the schedule `name` does not take.

    Where `max_steps` says how long the run is, its phases must add up to it.

    A schedule without a line in `SCHEDULES` is asked itself, which takes the import of transformers.
    """
    if name not in SCHEDULES:
        _ask(where, name, settings, learning_rate=learning_rate)
        return
    taken = SCHEDULES[name]
    for key, value in (settings or {}).items():
        if key not in taken:
            way_out = suggestion(key, taken) if taken else "it reads none: leave lr_scheduler_kwargs out"
            raise UserError(f"{where}: {name} reads no {key!r}; {way_out}")
        hint, checks = taken[key]
        check_value(f"{where}.{key}", value, Key("training", hint, checks, None))
    given = {key for key, value in (settings or {}).items() if value is not None}
    for one_of in NEEDED.get(name, ()):
        if len(given.intersection(one_of)) != 1:
            raise UserError(f"{where} = {show(settings)}: {name} needs {_either(one_of)}")
    end = (settings or {}).get("lr_end", 1e-7)
    if name == "polynomial" and end >= learning_rate:
        raise UserError(f"{where}.lr_end = {end}: expected less than learning_rate {learning_rate}")
    floor = (settings or {}).get("min_lr")
    if name.startswith("cosine") and floor is not None and floor >= learning_rate:
        raise UserError(f"{where}.min_lr = {floor}: expected less than learning_rate {learning_rate}")
    if name == "warmup_stable_decay" and max_steps < 1 and {"num_decay_steps", "num_stable_steps"} <= given:
        raise UserError(
            f"{where} = {show(settings)}: the steps of a run by epochs follow from its text, so that both phases "
            "cannot be given: leave num_stable_steps out, or set max_steps"
        )
    if max_steps > 0:
        warmup = min(int(warmup_steps) if warmup_steps >= 1 else math.ceil(max_steps * warmup_steps), max_steps // 10)
        try:
            schedule_arguments(name, dict(settings or {}), steps=max_steps, warmup=warmup)
        except ValueError as error:
            raise UserError(f"{where} = {show(settings)}: {error}") from error


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"one of {' and '.join(names)}"


def _ask(where: str, name: str, settings: Mapping[str, Any] | None, *, learning_rate: float) -> None:
    import torch
    from transformers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=learning_rate)
    try:
        get_scheduler(name, optimizer, 10, 100, scheduler_specific_kwargs=dict(settings or {}))
    except (TypeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{where} = {show(settings)}: {name} does not take it: {told}") from error


_Taken = dict[str, tuple[Any, dict[str, Any]]]

_RATE: tuple[Any, dict[str, Any]] = (float, {"low": 0})
_COSINE_FLOOR: _Taken = {
    "num_cycles": (float, {"above": 0}),
    "min_lr": (float | None, {"low": 0}),
    "min_lr_rate": (float | None, {"low": 0, "high": 1}),
}
_SHAPE: tuple[Any, dict[str, Any]] = (str, {"choices": ("linear", "cosine", "1-sqrt")})
_BY_LOSS: _Taken = {
    "mode": (str, {"choices": ("min",)}),
    "factor": (float, {"above": 0, "below": 1}),
    "patience": (int, {"low": 0}),
    "threshold": (float, {"low": 0}),
    "threshold_mode": (str, {"choices": ("rel", "abs")}),
    "cooldown": (int, {"low": 0}),
    "min_lr": _RATE,
    "eps": (float, {"low": 0}),
}

# Schedule -> what it reads, with type and range. `last_epoch`, which a resumed run sets, is not the user's.
SCHEDULES: dict[str, _Taken] = {
    "linear": {},
    "cosine": {"num_cycles": (float, {"above": 0})},
    "cosine_with_restarts": {"num_cycles": (int, {"low": 1})},
    "polynomial": {"lr_end": _RATE, "power": (float, {"above": 0})},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {"timescale": (int | None, {"low": 1})},
    "reduce_lr_on_plateau": _BY_LOSS,
    "cosine_with_min_lr": _COSINE_FLOOR,
    "cosine_warmup_with_min_lr": {**_COSINE_FLOOR, "warmup_lr_rate": (float | None, {"low": 0, "high": 1})},
    "warmup_stable_decay": {
        "num_decay_steps": (int, {"low": 1}),
        "num_stable_steps": (int | None, {"low": 0}),
        "warmup_type": _SHAPE,
        "decay_type": _SHAPE,
        "min_lr_ratio": (float, {"low": 0, "high": 1}),
        "num_cycles": (float, {"above": 0}),
    },
    "greedy": {
        **_BY_LOSS,
        "warmup": (int, {"low": 0}),
        "max_lr": _RATE,
        "verbose": (bool, {}),
        "smooth": (bool, {}),
        "window_size": (int, {"low": 1}),
        "reset_start": (int, {"low": 0}),
    },
}

# Schedule -> groups of settings of which exactly one must be given.
NEEDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "cosine_with_min_lr": (("min_lr", "min_lr_rate"),),
    "cosine_warmup_with_min_lr": (("min_lr", "min_lr_rate"),),
}
