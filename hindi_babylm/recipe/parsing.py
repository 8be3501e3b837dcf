"""Read a recipe and the command line over it into values, and refuse what is wrong before anything else happens."""

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.recipe.checking import (
    Key,
    accepted_types,
    check_value,
    from_word,
    item_type,
    known_keys,
    name_types,
    show,
)
from hindi_babylm.recipe.conflicts import check_together
from hindi_babylm.recipe.governors import forget_overridden
from hindi_babylm.recipe.sections import FLAGS, SECTIONS, Recipe
from hindi_babylm.storage import UserError, suggestion
from hindi_babylm.training.specification import SpecificationDefaults

# Flags that are no key of a recipe and take no value.
SWITCHES = ("overwrite", "dry_run")


def parse_command_line(words: Sequence[str]) -> tuple[Recipe, set[str]]:
    """Read `RECIPE [--key value ...]` into a recipe and the switches (`--overwrite`) that were given."""
    if not words or words[0].startswith("-"):
        raise UserError("no recipe: accelerate launch -m hindi_babylm.run recipes/quickstart.json (see --help)")
    given = read_flags(words[1:])
    switches = {name for name in SWITCHES if name in given}
    for name in switches:
        if given[name]:
            raise UserError(f"command line: --{name} takes no value, got {' '.join(given[name])}")
    return _parse(Path(words[0]), {key: values for key, values in given.items() if key not in switches}), switches


def parse_recipe(path: str | Path, flags: Sequence[str] = ()) -> Recipe:
    """Read a recipe and lay `flags` (`--key value ...`, flat over all sections) over it.

    Precedence: default < recipe < flag. Raises UserError, one line with file, section, key, value and the way out,
    for anything unknown, of a wrong type, out of range or in contradiction to another key.

    >>> _ = Path("mine.json").write_text('{"model": {"block_size": 128}}', encoding="utf-8")
    >>> recipe = parse_recipe("mine.json", ["--learning_rate", "1e-3"])
    >>> print(recipe.model.block_size, recipe.training["learning_rate"], recipe.training["num_train_epochs"])
    128 0.001 10.0
    """
    return _parse(Path(path), read_flags(flags))


def _parse(path: Path, given: Mapping[str, list[str]]) -> Recipe:
    sections = _read_sections(path)
    keys = known_keys()
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    places: dict[str, str] = {}
    for section, entries in sections.items():
        for name, value in entries.items():
            places[name] = f"{path}: {section}.{name}"
            if name not in keys or keys[name].section != section:
                raise UserError(f"{places[name]}: unknown key; {_nearest(name, section, keys)}")
            values[section][name] = check_value(places[name], value, keys[name])
    before = {name: dict(entries) for name, entries in values.items()}
    for name, words in given.items():
        where = f"{FLAGS}--{name}"
        if name == "corpus":
            if "sources" in given:
                raise UserError("command line: --corpus and --sources both name the texts; keep one")
            if not words:
                raise UserError(f"{where}: expected a file, folder, glob or hub id")
            values["corpus"]["sources"] = [source_from_flag(word) for word in words]
            places["sources"] = where
            continue
        if name not in keys:
            raise UserError(f"{where}: unknown flag; {_nearest(name, None, keys)}")
        places[name] = where
        values[keys[name].section][name] = check_value(where, _from_words(where, words, keys[name]), keys[name])
    forget_overridden(values, given, before)
    defaults = {f.name: f.default for f in dataclasses.fields(SpecificationDefaults)}
    recipe = Recipe(
        **{name: section(**values[name]) for name, section in SECTIONS.items() if name != "training"},
        training={**defaults, **values["training"]},
        path=path,
        places=places,
    )
    check_together(recipe, keys)
    return recipe


def _read_sections(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot read the recipe: {error.strerror}; {_recipe_like(path)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the recipe is not UTF-8 text: {error.reason} at byte {error.start}") from error
    sections = _read_json(f"{path}: ", text)
    if not isinstance(sections, dict):
        raise UserError(f"{path}: a recipe is a JSON object of sections {', '.join(SECTIONS)}, got {show(sections)}")
    for section, entries in sections.items():
        if section not in SECTIONS:
            # A key may stand where a section should.
            home = next((name for name, cls in SECTIONS.items() if section in _field_names(cls)), None)
            meant = f"it is a key of section {home!r}" if home else suggestion(section, SECTIONS)
            raise UserError(f"{path}: unknown section {section!r}; {meant}")
        if not isinstance(entries, dict):
            raise UserError(f"{path}: section {section!r} must be a JSON object of keys, got {show(entries)}")
    return sections


def _recipe_like(path: Path) -> str:
    """Say which file a missing recipe may have meant: one of its folder, or a shipped one."""
    near = {str(file): file.name for folder in (path.parent, Path("recipes")) for file in sorted(folder.glob("*.json"))}
    close = difflib.get_close_matches(path.with_suffix(".json").name, near.values(), 1)
    return (
        f"did you mean {next(file for file, name in near.items() if name == close[0])}?"
        if close
        else ("shipped ones lie in recipes/")
    )


def _read_json(where: str, text: str) -> Any:
    """Read JSON strictly: no key twice in an object, and finite numbers only. `where` begins each error."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{where}key {name!r} stands twice in one object; keep one")
        return dict(pairs)

    def no_number(name: str) -> typing.NoReturn:
        raise UserError(f"{where}{name} is no JSON; write a number")

    def finite(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise UserError(f"{where}{digits} is past the range of a number")
        return float(digits)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_number, parse_float=finite)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error


def read_flags(words: Sequence[str]) -> dict[str, list[str]]:
    """Split `--key value ...` and `--key=value` into the words of each flag."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words:
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


def flag_words(name: str, values: list[str]) -> list[str]:
    """Return a flag as it stood on the command line; a value that looks like a flag stood behind an equals sign."""
    if values and values[0].startswith("--"):
        return [f"--{name}={values[0]}", *values[1:]]
    return [f"--{name}", *values]


def _from_words(where: str, words: list[str], key: Key) -> Any:
    """Turn the words of a flag into the value that its key asks for."""
    accepted = accepted_types(key.hint)
    if not words:
        if bool in accepted:
            return True
        raise UserError(f"{where}: expected {name_types(key)}")
    if len(words) == 1 and accepted & {dict, list} and words[0][:1] in ("{", "["):
        return _read_json(f"{where}: ", words[0])
    if len(words) == 1 and bool in accepted and words[0].lower() in ("true", "false"):
        return words[0].lower() == "true"
    item = item_type(key.hint)
    if item is dict or (dict in accepted and str not in accepted and words[0].lower() not in ("none", "null")):
        raise UserError(f"{where} = {show(' '.join(words))}: expected {name_types(key)} as JSON in quotes")
    if item is not None and (len(words) > 1 or str not in accepted):
        return [from_word(word, {item}) for word in words]
    if len(words) > 1:
        raise UserError(f"{where}: expected one value ({name_types(key)}), got {len(words)}: {' '.join(words)}")
    return from_word(words[0], accepted)


def source_from_flag(word: str) -> dict[str, Any]:
    """Tell a path from a hub id: an id is `owner/name` with no such file here."""
    is_id = word.count("/") == 1 and not Path(word).suffix and not any(sign in word for sign in "*?[~")
    if is_id and not Path(word).exists() and not word.startswith((".", "/")):
        return {"hub_id": word}
    return {"path": word}


def _nearest(name: str, section: str | None, keys: Mapping[str, Key]) -> str:
    """Say where a key belongs, or which known key is nearest."""
    if name in keys:
        return f"it belongs in section {keys[name].section!r}"
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    if name in SECTIONS:
        return "it is a section of its own" if section else "flags name no section: --key value"
    if section is None and name.split(".")[-1] in keys:
        return f"flags name no section: --{name.split('.')[-1]}"
    own = [key for key, entry in keys.items() if entry.section == section]
    close = difflib.get_close_matches(name, own, 1, 0.75) or difflib.get_close_matches(name, keys, 1)
    close = close or [key for key in keys if key.startswith(name)]
    if close:
        return f"did you mean {close[0]!r} (section {keys[close[0]].section!r})?"
    return f"section {section!r} has {', '.join(own)}" if section and len(own) < 20 else "see run --help"


def _field_names(section: type) -> set[str]:
    return {f.name for f in dataclasses.fields(section)}


# Names that other toolkits, older releases of transformers and the papers have for keys of ours.
ELSEWHERE = {
    "batch_size": "it is called 'global_batch_size' (section 'training')",
    "epochs": "it is called 'num_train_epochs' (section 'training')",
    "evaluation_strategy": "it is called 'eval_strategy' (section 'training')",
    "lr": "it is called 'learning_rate' (section 'training')",
    "max_length": "it is called 'block_size' (section 'model')",
    "max_seq_length": "it is called 'block_size' (section 'model')",
    "mixed_precision": "it is called 'precision' (section 'training')",
    "no_cuda": "it is called 'use_cpu' (section 'training')",
    "overwrite_output_dir": "it is the flag --overwrite",
    "overwrite": "it is the flag --overwrite",
    "warmup_ratio": "'warmup_steps' below 1 is a share of all steps (section 'training')",
}
