"""Read finished runs and evaluations, and group the runs whose recipes differ in their seed alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hindi_babylm.storage import RunFolder, UserError, read_json, sha256, suggestion

Item = dict[str, Any]
# Keys of a recipe that make no other condition: where and how a run is carried out, told and scored.
_UNTRAINED_SECTIONS = ("evaluation", "reporting")
_UNTRAINED = (
    *("output_dir", "run_name", "project", "report_to", "milestones", "save_total_limit", "use_cpu", "push_to_hub"),
    *("preprocessing_num_workers", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *("gradient_accumulation_steps", "log_level", "log_level_replica", "log_on_each_node"),
)
_UNTRAINED_BEGIN = ("wandb_", "hub_", "logging_", "dataloader_", "ddp_", "trackio_")
SEEDS = ("seed", "data_seed")
UNSET = "unset"  # a field of model_config that one recipe alone has


@dataclass(frozen=True)
class Run:
    """What a run folder, or the folder of `hindi-babylm evaluate`, holds.

    Of an evaluation of a run's final model all that is known of the run is the run's; else `recipe` is None. A recipe
    is flat, without what makes no other condition. `items` are the rows of each file of `items/`, of validation the
    run's own, `events` those of `metrics.jsonl` and the milestones, `validation` the tokens and bytes of that split.
    """

    path: Path
    results: Mapping[str, Any]
    items: Mapping[str, list[Item]]
    recipe: Mapping[str, Any] | None
    seed: tuple[Any, ...]
    tokenizer: str | None
    masked: bool
    events: list[dict[str, Any]]
    validation: Mapping[str, int]
    words_seen: float | None


@dataclass(frozen=True)
class Condition:
    """The runs of one recipe, a seed each, under the name of what is its own."""

    name: str
    runs: list[Run]

    @property
    def words_seen(self) -> float | None:
        """The mean over runs, None where a run does not say."""
        found = [seen for run in self.runs if (seen := run.words_seen) is not None]
        return sum(found) / len(found) if len(found) == len(self.runs) else None


def read_run(path: Path, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> Run:
    """Read a run folder or the folder of an evaluation.

    A key that the recipe lacks has its value of `defaults`, by section and name: one that was not asked for is not
    written, nor is one of a later version.

    Raises UserError for a folder that is none, is unfinished, or holds no scores of single items. An example stands in
    README.md, "Compare runs".
    """
    folder = RunFolder(path)
    if not path.is_dir():
        near = [str(other) for other in path.parent.glob("*") if other.is_dir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: there is no such folder" + (f"; {suggestion(str(path), near)}" if near else ""))
    if not folder.results.exists():
        way = f"finish it: hindi-babylm run {folder.recipe}" if folder.recipe.exists() else "name a run folder"
        raise UserError(f"{path} holds no results.json, so no finished run or evaluation: {way}")
    items = {file.stem: _read_lines(file) for file in sorted((path / "items").glob("*.jsonl"))}
    if not any(items.values()):
        raise UserError(
            f"{path} has no scores of single documents and pairs (items/*.jsonl), as runs of older versions: "
            f"hindi-babylm evaluate {path} writes a folder with them, to be named instead"
        )
    results = _read(folder.results)
    model = results.get("model", {})
    weights = folder.final_model if folder.recipe.exists() else Path(str(model.get("name")))
    home = RunFolder(weights.parent) if weights.name == folder.final_model.name else folder
    facts = _read(home.results) if home.results.exists() else results
    validation = home.items / "validation.jsonl"
    if validation.exists():  # of the texts that the curves of the run are measured on
        items["validation"] = _read_lines(validation)
    corpus = _read(home.corpus).get("kept", {}) if home.corpus.exists() else {}
    kept = list(corpus.get("validation", {}).values())
    flat = None
    if home.recipe.exists():
        recipe = {section: dict(keys) for section, keys in (defaults or {}).items()}
        for section, keys in _read(home.recipe).items():
            recipe[section] = recipe.get(section, {}) | keys
        flat = flattened(recipe)
    seen = facts.get("training", {}).get("words_seen")
    hashed = [place / "tokenizer.json" for place in (home.tokenizer, weights)]
    hashes = [sha256(file) for file in hashed if file.exists()]
    return Run(
        path=path,
        results=results,
        items=items,
        recipe=None if flat is None else {key: value for key, value in flat.items() if _makes_a_condition(key)},
        seed=tuple(flat.get(f"training.{key}") for key in SEEDS) if flat is not None else (),
        tokenizer=hashes[0] if hashes else None,
        masked=model.get("objective") == "masked" or any(_is_pseudo(figures) for figures in results.values()),
        events=[*(_read_lines(home.metrics) if home.metrics.exists() else []), *facts.get("milestones", [])],
        validation={unit: sum(entry.get(unit, 0) for entry in kept) for unit in ("tokens", "bytes")},
        words_seen=None if seen is None else float(seen),
    )


def group(runs: Sequence[Run], names: Sequence[str] | None = None) -> list[Condition]:
    """Return the conditions in the order of their first runs.

    Runs are of one condition when their recipes differ in seeds at most, or when `names` has one name for them. A
    condition has the name of what differs between the recipes, `key=value`; without a recipe, that of its folder.
    Raises UserError for two runs of one recipe and seed in one: a copy is no replicate. README.md, "Compare runs".
    """
    if names is not None:
        grouped = [[run for run, name in zip(runs, names, strict=True) if name == own] for own in dict.fromkeys(names)]
        named = list(dict.fromkeys(names))
    else:
        grouped = []
        for run in runs:
            same = [own for own in grouped if run.recipe is not None and own[0].recipe == run.recipe]
            if same:
                same[0].append(run)
            else:
                grouped.append([run])
        named = _names([own[0] for own in grouped])
    for own in grouped:
        if len({run.masked for run in own}) > 1:
            raise UserError("command line: --names: a masked and a causal model cannot be runs of one condition")
        for number, run in enumerate(own):
            twins = [other.path for other in own[:number] if (other.recipe, other.seed) == (run.recipe, run.seed)]
            if twins and run.recipe is not None:
                raise UserError(
                    f"{twins[0]} and {run.path} are runs of one recipe and one seed, and a repetition is no replicate: "
                    "leave one out, or compare them as two conditions with --names, a name for each folder"
                )
    return [Condition(name, own) for name, own in zip(named, grouped, strict=True)]


def differences(conditions: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the keys in which the recipes differ, with the value of each; `UNSET` where a recipe has none.

    >>> rest = {"results": {}, "items": {}, "seed": (), "tokenizer": None, "masked": False}
    >>> rest |= {"events": [], "validation": {}, "words_seen": None}
    >>> differences([Run(path=Path(f"rate-{rate}"), recipe={"training.lr": rate}, **rest) for rate in (1, 2)])
    {'training.lr': [1, 2]}
    """
    recipes = [run.recipe for run in conditions if run.recipe is not None]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    values = {key: [recipe.get(key, UNSET) for recipe in recipes] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def flattened(recipe: Mapping[str, Any], begin: str = "") -> dict[str, Any]:
    """Return a recipe with a key for each value, those of objects joined by dots.

    >>> flattened({"model": {"dropout": 0.1, "model_config": {"n_layer": 2}}})
    {'model.dropout': 0.1, 'model.model_config.n_layer': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        flat |= flattened(value, f"{begin}{key}.") if isinstance(value, Mapping) else {f"{begin}{key}": value}
    return flat


def shown(value: Any) -> str:
    """Return a value of a recipe as it stands in a name.

    >>> shown(0.0003), shown(None), shown([{"bundled": "all"}, {"path": "a.txt", "weight": 2.0}]), shown([1, 2])
    ('0.0003', 'null', 'all+a.txt (weight 2)', '1+2')
    """
    if isinstance(value, list):
        return "+".join(map(shown, value)) or "none"
    if isinstance(value, Mapping):
        first, *others = value.items()
        more = ", ".join(f"{key} {shown(part)}" for key, part in others)
        return shown(first[1]) + (f" ({more})" if more else "")
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _names(firsts: Sequence[Run]) -> list[str]:
    """Name each condition by its first run: what differs between the recipes, else the folder."""
    different = differences(firsts)
    names = []
    place = 0
    for run in firsts:
        parts = []
        if run.recipe is not None:
            for key, values in different.items():
                parts.append(f"{key.split('.', 1)[1].removeprefix('model_config.')}={shown(values[place])}")
            place += 1
        names.append(", ".join(parts) or run.path.resolve().name)
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, firsts, strict=True)]


def _makes_a_condition(key: str) -> bool:
    section, _, name = key.partition(".")
    untrained = section in _UNTRAINED_SECTIONS or name in _UNTRAINED or name in SEEDS
    return not untrained and not name.startswith(_UNTRAINED_BEGIN)


def _is_pseudo(figures: Any) -> bool:
    return isinstance(figures, Mapping) and "pseudo_bits_per_byte" in figures


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}: write it again, or leave the folder out") from error
    return found


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        try:
            return [json.loads(line) for line in file]
        except ValueError as error:
            raise UserError(f"{path} cannot be read: {error}: write it again, or leave the folder out") from error
