"""What a key takes: its type, its range and its choices."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from hindi_babylm.recipe.sections import SECTIONS, TRAINING_CHECKS, default_of
from hindi_babylm.recipe.stock import training_fields
from hindi_babylm.storage import UserError, suggestion


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a recipe: its section, what it takes, and its default."""

    section: str
    hint: Any
    checks: Mapping[str, Any]
    default: Any


def known_keys() -> dict[str, Key]:
    """Return every key of every section; a field of ours goes before that of transformers with its name."""
    stock = training_fields()
    keys: dict[str, Key] = {}
    for name, section in SECTIONS.items():
        hints = typing.get_type_hints(section)
        for f in dataclasses.fields(section):
            checks = TRAINING_CHECKS.get(f.name, {}) if name == "training" else f.metadata
            keys[f.name] = Key(name, NARROWED.get(f.name, hints[f.name]), checks, default_of(f))
    for name, entry in stock.items():
        own = keys.get(
            name, Key("training", NARROWED.get(name, entry.hint), TRAINING_CHECKS.get(name, {}), entry.default)
        )
        choices = {"choices": entry.choices} if entry.choices else {}
        keys[name] = dataclasses.replace(own, checks={**choices, **own.checks})
    return keys


def check_value(where: str, value: Any, key: Key) -> Any:
    """Return `value` as its key takes it (a whole number for a number becomes one); raise UserError for any other."""
    types_ = accepted_types(key.hint)
    if type(value) is int and float in types_ and int not in types_:
        value = float(value)
    if type(value) not in types_:
        advice = ""
        if isinstance(value, str) and type(from_word(value, types_)) is not str:
            advice = "; write it without quotes"
        raise UserError(f"{where} = {show(value)}: expected {name_types(key)}{advice}")
    if isinstance(value, list) and (item := item_type(key.hint)):
        for entry in value:
            if not isinstance(entry, item) or (isinstance(entry, bool) and item is not bool):
                raise UserError(f"{where}: {show(entry)} in the list: expected {TYPE_NAMES[item]}")
    if "choices" in key.checks and value is not None and not isinstance(value, bool):
        known = list(key.checks["choices"])
        for entry in value if isinstance(value, list) else [value]:
            if entry not in known:
                close = suggestion(str(entry), known)
                advice = f"; {close}" if close.startswith("did") else ""
                listed = f"one of {len(known)} names" if advice and len(known) > 15 else f"one of {', '.join(known)}"
                raise UserError(f"{where} = {show(entry)}: expected {listed}{advice}")
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, bool) or not isinstance(entry, (int, float)):
            continue
        if not math.isfinite(entry):
            raise UserError(f"{where} = {entry}: expected a finite number")
        limits = {name: limit for name, limit in key.checks.items() if name in BOUNDS}
        if not all(BOUNDS[name][1](entry, limit) for name, limit in limits.items()):
            wanted = " and ".join(f"{BOUNDS[name][0]} {limit}" for name, limit in limits.items())
            raise UserError(f"{where} = {entry}: expected {wanted}")
    return value


def from_word(word: str, types_: set[type]) -> Any:
    """Read a word of the command line as the first of the types that it can be; text that is none of them stays."""
    if type(None) in types_ and word.lower() in ("none", "null"):
        return None
    if bool in types_ and word.lower() in ("true", "false"):
        return word.lower() == "true"
    for number in (int, float):
        if number in types_:
            try:
                return number(word)
            except ValueError:
                pass  # not of this type: the next is tried, and `check_value` tells the user when none fits
    return word


def accepted_types(hint: Any) -> set[type]:
    """Return the plain types that a type hint accepts from JSON; an enum is written as text."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*(accepted_types(part) for part in typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    plain = typing.get_origin(hint) or hint
    return {plain if plain in TYPE_NAMES else str}


def item_type(hint: Any) -> Any:
    """Return the type of the items of a list hint, or None for any other hint."""
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is list:
            item = typing.get_args(part)[0]
            item = typing.get_origin(item) or item
            return item if item in TYPE_NAMES else str
    return None


def name_types(key: Key) -> str:
    """Say in words what types a key takes."""
    accepted = accepted_types(key.hint)
    if float in accepted:
        accepted.discard(int)
    return " or ".join(name for plain, name in TYPE_NAMES.items() if plain in accepted)


def show(value: Any) -> str:
    """Return a value as JSON, shortened to one readable line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


# Stock fields whose type hint allows what is refused where it is used, long after.
NARROWED: dict[str, Any] = {
    "lr_scheduler_kwargs": dict[str, Any] | None,
    "gradient_checkpointing_kwargs": dict[str, Any] | None,
    "activation_checkpointing_kwargs": dict[str, Any] | None,
    "report_to": str | list[str],
}

TYPE_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}

BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "low": ("at least", lambda value, limit: value >= limit),
    "above": ("more than", lambda value, limit: value > limit),
    "high": ("at most", lambda value, limit: value <= limit),
    "below": ("less than", lambda value, limit: value < limit),
}
