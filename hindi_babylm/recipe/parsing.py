"""Read a recipe and the flags over it, and refuse what is wrong before anything else happens."""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.curriculum.difficulty import NO_CURRICULUM
from hindi_babylm.recipe.sections import (
    SECTIONS,
    SOURCE_KEYS,
    CorpusSection,
    CurriculumSection,
    EvaluationSection,
    ModelSection,
    Recipe,
    TokenizerSection,
    checks_of,
)
from hindi_babylm.storage import UserError
from hindi_babylm.training.specification import SpecificationDefaults

# Stock switches that would break what a run promises.
REFUSED = {
    "auto_find_batch_size": "the batch is global_batch_size and nothing else; lower per_device_train_batch_size",
    "dataloader_drop_last": "every block is trained on; none is dropped",
    "ignore_data_skip": "a resumed run would see other blocks",
    "batch_eval_metrics": "the validation loss is computed over all blocks",
    "enable_jit_checkpoint": "SIGTERM already ends a run with a checkpoint",
}


def parse_recipe(path: str | Path, flags: Sequence[str] = ()) -> Recipe:
    """Read a recipe and lay `flags` (`--key value ...`, flat over all sections) over it.

    Precedence: default < recipe < flag. Raises UserError, one line with file, section, key, value and the way out,
    for anything unknown, of a wrong type or out of range.
    """
    path = Path(path)
    sections = _read_sections(path)
    hints = {name: _hints(cls) for name, cls in SECTIONS.items()}
    # The stock fields are needed only to check what is not ours: importing them takes seconds.
    hints["training"] = _training_hints()
    owner = {key: section for section, keys in hints.items() for key in keys}
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for section, entries in sections.items():
        for key, value in entries.items():
            where = f"{path}: {section}.{key}"
            if key not in hints[section]:
                raise UserError(f"{where}: unknown key; {_nearest(key, section, owner)}")
            values[section][key] = _checked(where, value, hints[section][key], checks_of(section, key))
    given = _read_flags(flags)
    if "corpus" in given and "sources" in given:
        raise UserError("command line: --corpus and --sources both name the texts; keep one")
    for key, words in given.items():
        where = f"command line: --{key}"
        if key == "corpus":
            values["corpus"]["sources"] = [_source_from_flag(word) for word in words]
            if not words:
                raise UserError(f"{where}: expected a file, folder, glob or hub id")
            continue
        if key not in owner:
            raise UserError(f"{where}: unknown flag; {_nearest(key, None, owner)}")
        section = owner[key]
        value = _from_words(where, words, hints[section][key])
        values[section][key] = _checked(where, value, hints[section][key], checks_of(section, key))
    defaults = {f.name: f.default for f in dataclasses.fields(SpecificationDefaults)}
    recipe = Recipe(
        corpus=CorpusSection(**values["corpus"]),
        tokenizer=TokenizerSection(**values["tokenizer"]),
        model=ModelSection(**values["model"]),
        curriculum=CurriculumSection(**values["curriculum"]),
        evaluation=EvaluationSection(**values["evaluation"]),
        training={**defaults, **values["training"]},
        path=path,
    )
    _check_together(recipe)
    return recipe


def _read_sections(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read the recipe: {error.strerror}; shipped ones lie in recipes/") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the recipe is not UTF-8 text: {error.reason} at byte {error.start}") from error
    try:
        sections = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(path, pairs),
            parse_constant=lambda name: _no_number(path, name),
        )
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    if not isinstance(sections, dict):
        raise UserError(f"{path}: a recipe is a JSON object of sections {', '.join(SECTIONS)}, got {_show(sections)}")
    for section, entries in sections.items():
        if section not in SECTIONS:
            close = difflib.get_close_matches(section, SECTIONS, 1)
            meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(SECTIONS)}"
            raise UserError(f"{path}: unknown section {section!r}; {meant}")
        if not isinstance(entries, dict):
            raise UserError(f"{path}: section {section!r} must be a JSON object of keys, got {_show(entries)}")
    return sections


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"{path}: key {key!r} stands twice in one object; keep one")
    return dict(pairs)


def _no_number(path: Path, name: str) -> typing.NoReturn:
    raise UserError(f"{path}: {name} is no JSON; write a number")


def _read_flags(flags: Sequence[str]) -> dict[str, list[str]]:
    """Split `--key value ...` and `--key=value` into the words of each flag."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in flags:
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            if key in found:
                raise UserError(f"command line: --{key} is given twice; keep one")
            current = found.setdefault(key, [value] if equals else [])
        elif current is None:
            raise UserError(f"command line: unexpected {word!r}; flags are written --key value")
        else:
            current.append(word)
    return found


def _source_from_flag(word: str) -> dict[str, Any]:
    """Tell a path from a hub id: an id is `owner/name` with no such file here."""
    is_id = word.count("/") == 1 and not Path(word).suffix and not any(sign in word for sign in "*?[~")
    if is_id and not Path(word).exists() and not word.startswith((".", "/")):
        return {"hub_id": word}
    return {"path": word}


def _from_words(where: str, words: list[str], hint: Any) -> Any:
    """Turn the words of a flag into the value that its type asks for."""
    kinds = _kinds(hint)
    if not words:
        if bool in kinds:
            return True
        raise UserError(f"{where}: expected {_name_kinds(hint)}")
    if list in kinds and not words[0].startswith("["):
        (item,) = _item_hint(hint)
        return [_from_word(word, {item}) for word in words] if len(words) > 1 or str not in kinds else words[0]
    if len(words) > 1:
        raise UserError(f"{where}: expected one value ({_name_kinds(hint)}), got {len(words)}: {' '.join(words)}")
    return _from_word(words[0], kinds)


def _from_word(word: str, kinds: set[type]) -> Any:
    if type(None) in kinds and word.lower() in ("none", "null"):
        return None
    if bool in kinds and word.lower() in ("true", "false"):
        return word.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(word)
            except ValueError:
                pass  # not of this kind: the next is tried, and `_checked` tells the user when none fits
    if kinds & {dict, list} and word[:1] in "{[":
        try:
            return json.loads(word)
        except json.JSONDecodeError:
            pass  # left as text, which `_checked` refuses by name
    return word


def _checked(where: str, value: Any, hint: Any, checks: Mapping[str, Any]) -> Any:
    """Return `value` if it has the type and range of its key."""
    kinds = _kinds(hint)
    if type(value) is int and float in kinds and int not in kinds:
        value = float(value)
    if type(value) not in kinds:
        advice = ""
        if isinstance(value, str) and type(_from_word(value, kinds)) is not str:
            advice = "; write it without quotes"
        raise UserError(f"{where} = {_show(value)}: expected {_name_kinds(hint)}{advice}")
    if isinstance(value, list) and _item_hint(hint):
        for item in value:
            if not isinstance(item, _item_hint(hint)):
                raise UserError(f"{where}: {_show(item)} in the list: expected {_name_kinds(_item_hint(hint)[0])}")
    if "choices" in checks and value is not None:
        for item in value if isinstance(value, list) else [value]:
            if item not in checks["choices"]:
                close = difflib.get_close_matches(str(item), checks["choices"], 1)
                raise UserError(
                    f"{where} = {_show(item)}: expected one of {', '.join(checks['choices'])}"
                    + (f"; did you mean {close[0]!r}?" if close else "")
                )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        bounds = [("low", "at least"), ("above", "more than"), ("high", "at most"), ("below", "less than")]
        if not math.isfinite(value):
            raise UserError(f"{where} = {value}: expected a finite number")
        passes = {
            "low": lambda limit: value >= limit,
            "above": lambda limit: value > limit,
            "high": lambda limit: value <= limit,
            "below": lambda limit: value < limit,
        }
        wanted = [f"{words} {checks[name]}" for name, words in bounds if name in checks]
        if not all(passes[name](checks[name]) for name, _ in bounds if name in checks):
            raise UserError(f"{where} = {value}: expected {' and '.join(wanted)}")
    return value


def _check_together(recipe: Recipe) -> None:
    """Refuse keys that contradict each other."""
    where = recipe.path
    corpus = recipe.corpus
    if corpus.validation_fraction + corpus.test_fraction >= 1:
        raise UserError(
            f"{where}: corpus.validation_fraction {corpus.validation_fraction} + test_fraction "
            f"{corpus.test_fraction} leave nothing to train on: lower one"
        )
    training = recipe.training
    if training["early_stopping_patience"] is not None and training["eval_strategy"] == "no":
        raise UserError(
            f"{where}: training.early_stopping_patience {training['early_stopping_patience']} needs evaluations: "
            "set eval_strategy to steps or epoch, or leave it out"
        )
    order = recipe.curriculum
    if not order.stage_epochs or min(order.stage_epochs) < 1:
        raise UserError(
            f"{where}: curriculum.stage_epochs = {order.stage_epochs}: expected whole numbers of at least 1"
        )
    if order.curriculum != NO_CURRICULUM:
        if training["num_train_epochs"] != sum(order.stage_epochs):
            raise UserError(
                f"{where}: training.num_train_epochs {training['num_train_epochs']:g} is not the sum of "
                f"curriculum.stage_epochs {order.stage_epochs}: set it to {sum(order.stage_epochs)}, "
                "or change the stages"
            )
        if training["global_batch_size"] == 1:
            raise UserError(
                f"{where}: training.global_batch_size 1 with curriculum {order.curriculum!r}: a stage that is a block "
                "shorter would have a step without loss: take 2 or more"
            )
    for key, reason in REFUSED.items():
        if training.get(key):
            raise UserError(f"{where}: training.{key} = true: {reason}: leave it out")
    if training.get("push_to_hub"):
        raise UserError(
            f"{where}: training.push_to_hub = true: publishing is not there yet: leave it out, and upload the run's "
            "final_model folder by hand"
        )
    if not corpus.sources:
        raise UserError(f"{where}: corpus.sources is empty: name at least one source, or leave it out for the bundled")
    for source in corpus.sources:
        kinds = [kind for kind in ("path", "hub_id", "bundled") if kind in source]
        if len(kinds) != 1:
            raise UserError(f"{where}: corpus.sources: {_show(source)} must have exactly one of path, hub_id, bundled")
        for key in source:
            if key not in SOURCE_KEYS:
                close = difflib.get_close_matches(key, SOURCE_KEYS, 1)
                meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(SOURCE_KEYS)}"
                raise UserError(f"{where}: corpus.sources: unknown key {key!r} in {_show(source)}; {meant}")
            wanted = int if key == "max_words" else str
            if type(source[key]) is not wanted or (wanted is int and source[key] < 1):
                raise UserError(
                    f"{where}: corpus.sources: {key} = {_show(source[key])}: expected "
                    f"{'a whole number of at least 1' if wanted is int else 'text'}"
                )
        if source.get("sample_by", "line") not in ("line", "paragraph", "document"):
            raise UserError(
                f"{where}: corpus.sources: sample_by = {_show(source['sample_by'])}: "
                "expected one of line, paragraph, document"
            )


def _hints(cls: type) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)}
    return {name: hint for name, hint in typing.get_type_hints(cls).items() if name in names}


def _training_hints() -> dict[str, Any]:
    from hindi_babylm.training.arguments import HindiTrainingArguments

    return _hints(HindiTrainingArguments)


def _kinds(hint: Any) -> set[type]:
    """Return the plain types that a type hint accepts from JSON; an enum is written as text."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*(_kinds(part) for part in typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    kind = typing.get_origin(hint) or hint
    return {kind if kind in (bool, int, float, str, list, dict, type(None)) else str}


def _item_hint(hint: Any) -> tuple[type, ...]:
    """Return the type of the items of a list hint, as a tuple of one; empty when the hint does not say."""
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is list:
            item = typing.get_args(part)[0]
            return (typing.get_origin(item) or item,)
    return (str,)


def _name_kinds(hint: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    names |= {dict: "an object", type(None): "null"}
    kinds = _kinds(hint)
    if float in kinds:
        kinds.discard(int)
    return " or ".join(text for kind, text in names.items() if kind in kinds)


def _nearest(key: str, section: str | None, owner: Mapping[str, str]) -> str:
    """Say where a key belongs, or which known key is nearest."""
    if key in owner:
        return f"it belongs in section {owner[key]!r}"
    own = [name for name, place in owner.items() if place == section]
    close = difflib.get_close_matches(key, own, 1, 0.75) or difflib.get_close_matches(key, owner, 1)
    if close:
        return f"did you mean {close[0]!r} (section {owner[close[0]]!r})?"
    return f"section {section!r} has {', '.join(own)}" if section and len(own) < 20 else "see run --help"


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
