"""The figures that runs have in common, condition by condition, and how they differ from those of the baseline."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hindi_babylm.comparison.measures import KINDS, Measure, kind_of, measures, texts_of
from hindi_babylm.comparison.runs import Condition, Run
from hindi_babylm.comparison.significance import (
    Difference,
    Scores,
    compare_scores,
    estimate,
    holm,
    limits_where_all_agree,
)
from hindi_babylm.metrics import perplexity
from hindi_babylm.storage import UserError

Row = dict[str, Any]
CHOSEN_ON = "validation"  # the best weights are chosen by it, so it judges no model
TOLERANCE = 1e-6


def compare_conditions(conditions: Sequence[Condition], baseline: Condition) -> tuple[list[Row], list[str]]:
    """Return a row for each figure and condition, and lines that say what was left out, and why.

    Raises UserError when the conditions were scored on other texts under one name. README.md, "Compare runs".
    """
    runs = [run for condition in conditions for run in condition.runs]
    names, notes = _common(runs)
    rows: list[Row] = []
    known: dict[tuple[str, str], float] = {}  # evidence and condition -> p
    order = list(KINDS)
    for name in sorted(names, key=lambda name: order.index(kind_of(runs[0].items[name]))):
        _check_same(runs, name)
        kind = kind_of(runs[0].items[name])
        for masked in (False, True):
            if kind != "document_id" and masked:
                continue
            chosen = [own for own in conditions if kind != "document_id" or own.runs[0].masked == masked]
            if chosen:
                for measure in measures(kind, name, chosen, notes):
                    rows += _rows(measure, name, chosen, baseline, known)
    rows.sort(key=lambda row: row["family"] != "figures")
    _adjust(rows)
    return rows, notes + _warnings(conditions, rows)


def _common(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Return the names of the items that all runs have, and a line for each that some lack."""
    names = [name for name in dict.fromkeys(name for run in runs for name in run.items) if name != CHOSEN_ON]
    notes = []
    for name in names:
        lacking = [str(run.path) for run in runs if not run.items.get(name)]
        if lacking:
            notes.append(
                f"{name} is left out: {_listed(lacking)} {'has' if len(lacking) == 1 else 'have'} no scores of it."
            )
    common = [name for name in names if all(run.items.get(name) for run in runs)]
    if not common:
        raise UserError(
            f"the runs were scored on nothing in common ({_listed(names)}): score them on the same texts and tasks "
            "with hindi-babylm evaluate RUN --texts X --tasks Y, or leave some out"
        )
    return common, notes


def _check_same(runs: Sequence[Run], name: str) -> None:
    first = texts_of(runs[0].items[name])
    for run in runs[1:]:
        other = texts_of(run.items[name])
        if other == first:
            continue
        places = [number for number, (one, two) in enumerate(zip(first, other, strict=False), 1) if one != two]
        where = f"line {places[0]} is another" if places else "they begin alike"
        raise UserError(
            f"{runs[0].path}/items/{name}.jsonl and {run.path}/items/{name}.jsonl are scores of other texts "
            f"({len(first):,} and {len(other):,}; {where}): leave one run out, or score both on the same with "
            "hindi-babylm evaluate RUN --texts X --tasks Y, and compare the folders that it writes"
        )


def _rows(
    measure: Measure,
    name: str,
    conditions: Sequence[Condition],
    baseline: Condition,
    known: dict[tuple[str, str], float],
) -> Iterator[Row]:
    scores = {}
    for condition in conditions:
        read = [measure.read(run.items[name]) for run in condition.runs]
        tops, bottoms = (np.stack([pair[part] for pair in read]) for part in (0, 1))
        scores[condition.name] = Scores(tops, bottoms, measure.strata)
    for condition in conditions:
        own = scores[condition.name]
        values = [_on_scale(measure, float(value)) for value in own.figures()]
        _check_reported(measure, condition, values)
        found = estimate(own) if len(values) > 1 else None
        row: Row = {
            "figure": ".".join(measure.place),
            "label": f"{measure.label}, {measure.unit}",
            "unit": measure.unit,
            "condition": condition.name,
            "runs": len(values),
            "words_seen": condition.words_seen,
            "value": _on_scale(measure, found.value) if found else values[0],
            **_interval(measure, condition.runs[0], own, found),
            "sd": float(np.std(values, ddof=1)) if found else None,
            "items": len(measure.strata),
            "item": measure.items,
            **dict.fromkeys(("baseline", "difference", "difference_low", "difference_high", "difference_unit")),
            **dict.fromkeys(("effect", "effect_size", "test", "p", "p_holm")),
            "family": measure.family,
            "evidence": measure.evidence,
        }
        if baseline.name in scores and condition is not baseline:
            base, key = scores[baseline.name], (measure.evidence, condition.name)
            difference = compare_scores(base, own, p=known.get(key))
            known[key] = difference.p
            row |= {"baseline": baseline.name, **_difference(measure, difference, base, own)}
        yield row


def _difference(measure: Measure, found: Difference, base: Scores, other: Scores) -> Row:
    before, after = (float(scores.figures().mean()) for scores in (base, other))
    row: Row = {"test": found.test, "p": found.p, "difference_unit": measure.unit}
    spread = {"difference": found.value, "difference_low": found.low, "difference_high": found.high}
    if measure.scale == "log":
        # Perplexities differ by a factor: the test is on the mean of the logarithms.
        spread = {name: 100 * math.expm1(value) for name, value in spread.items()}
        row |= {"difference_unit": "%", "effect": "relative, %", "effect_size": spread["difference"]}
    elif measure.scale == "bits":
        row |= {"effect": "relative, %", "effect_size": 100 * found.value / before}
    elif measure.scale == "accuracy":
        one, two = (2 * math.asin(math.sqrt(min(100.0, max(0.0, value)) / 100)) for value in (before, after))
        row |= {"effect": "Cohen's h", "effect_size": two - one}
    if measure.scale in ("accuracy", "points"):
        row["difference_unit"] = "points"
        spread |= {"difference_low": max(-100.0, found.low), "difference_high": min(100.0, found.high)}
    return row | spread


def _on_scale(measure: Measure, value: float) -> float:
    return perplexity(value, 1) if measure.scale == "log" else value


def _interval(measure: Measure, run: Run, scores: Scores, found: Difference | None) -> Row:
    """Return the interval of several runs as it was `found`, of one as `results.json` has it."""
    exact = limits_where_all_agree(scores) if measure.scale == "accuracy" else None
    if exact:
        low, high = exact
    elif found and measure.unit == "%":
        low, high = max(0.0, found.low), min(100.0, found.high)
    elif found:
        low, high = _on_scale(measure, found.low), _on_scale(measure, found.high)
    else:
        entry = _entry(run, measure.place[:-1] if measure.family == "phenomena" else measure.place)
        low, high = (math.inf if entry[end] is None else entry[end] for end in ("low", "high"))
    return {"low": low, "high": high}


def _entry(run: Run, place: Sequence[str]) -> Any:
    """Return what `results.json` has of a figure: the value with its interval, or the value."""
    entry: Any = run.results
    for part in place:
        if not isinstance(entry, Mapping) or part not in entry:
            raise UserError(
                f"{run.path}/results.json lacks {'.'.join(place)}, of which items/ holds scores: "
                f"hindi-babylm evaluate {run.path} writes a folder with both, to be named instead"
            )
        entry = entry[part]
    return entry


def _check_reported(measure: Measure, condition: Condition, values: Sequence[float]) -> None:
    for run, value in zip(condition.runs, values, strict=True):
        entry = _entry(run, measure.place)
        told = entry["value"] if isinstance(entry, Mapping) else entry
        if told is not None and abs(value - told) > TOLERANCE * max(1.0, abs(told)):
            raise UserError(
                f"{run.path}: items/ and results.json are of two evaluations ({'.'.join(measure.place)} is {value:g} "
                f"by the one and {told:g} by the other): hindi-babylm evaluate {run.path} writes a folder with "
                "both, to be named instead"
            )


def _adjust(rows: list[Row]) -> None:
    """Correct for the hypotheses of each table; figures of one evidence have one p and test one hypothesis."""
    for family in dict.fromkeys(row["family"] for row in rows):
        own = [row for row in rows if row["family"] == family and row["p"] is not None]
        tested = {(row["evidence"], row["condition"]): row["p"] for row in own}
        adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
        for row in own:
            row["p_holm"] = adjusted[row["evidence"], row["condition"]]


def _warnings(conditions: Sequence[Condition], rows: Sequence[Row]) -> list[str]:
    """Return lines on how far the differences go."""
    lines = []
    masked = [condition.name for condition in conditions if condition.runs[0].masked]
    if masked and len(masked) < len(conditions):
        lines.append(
            f"{_listed(masked)}: masked, so scored by pseudo-likelihood, which knows both sides of a token. Its "
            "bits and perplexities stand by themselves and are compared with no causal model's."
        )
    seen = [condition.words_seen for condition in conditions]
    known = [value for value in seen if value is not None]
    if known and max(known) > 1.01 * min(known):
        lines.append("The conditions have seen different numbers of words: see the column.")
    if None in seen:
        lines.append("How many words were seen is not known of an evaluation without its run.")
    tested = [row for row in rows if row["p"] is not None]
    if any(row["test"] == "permutation" for row in tested):
        lines.append(
            "Of one run each, a difference is one of these two models, and of the classifiers fine-tuned from them: "
            "another seed may move them as far. Runs of the same recipe with another --seed and --output_dir make it "
            "one of the recipes."
        )
    if any(len(own.runs) == 2 for own in conditions):
        lines.append(
            "Two runs hardly tell their spread: where they differ, intervals are so wide that they say little, and a "
            "very small p is too small. Take three or more."
        )
    return lines


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
