"""What a figure of `results.json` is made of: the items of a run as parts of a ratio."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hindi_babylm.comparison.runs import Condition, Item, Run
from hindi_babylm.metrics import cases_of, signatures, tabulated
from hindi_babylm.storage import UserError

Arrays = tuple[np.ndarray, np.ndarray]
# Fields of an item that say what it is, by the field that tells its kind; the others say how a model did.
KINDS = {
    "document_id": ("document_id", "work", "bytes", "characters", "words", "aksharas"),
    "phenomenon": ("phenomenon", "sen", "wrong_sen"),
    "choices": ("context", "choices", "answer"),
    "predicted": ("text", "label"),
}
# Figure of a text -> what it is divided by, its unit, and its scale: bits, or the logarithm of a perplexity.
LIKELIHOODS = {
    "bits_per_byte": ("bytes", "bits a byte", "bits"),
    "bits_per_character": ("characters", "bits a character", "bits"),
    "bits_per_akshara": ("aksharas", "bits an akshara", "bits"),
    "word_perplexity": ("words", "perplexity a word", "log"),
    "token_perplexity": ("tokens", "perplexity a token", "log"),
}


@dataclass(frozen=True)
class Measure:
    """A figure: where `results.json` has it, its label, unit and scale, what was drawn, and how it follows from items.

    `scale` is `bits`, `log` (of a perplexity), `accuracy` or `points`, both in percent. `read` turns the rows of a
    run into the `(items, averages, parts)` arrays of `Scores`: an item is what was drawn, with all of its rows.
    Measures with one `evidence` test one hypothesis.
    """

    place: tuple[str, ...]
    label: str
    unit: str
    scale: str
    items: str
    evidence: str
    read: Callable[[Sequence[Item]], Arrays]
    strata: np.ndarray
    family: str = "figures"


def same_tokenizer(runs: Sequence[Run]) -> bool:
    """Tell whether figures per token compare: all tokenizers are known and one."""
    return len({run.tokenizer for run in runs}) == 1 and runs[0].tokenizer is not None


def same_texts(runs: Sequence[Run], name: str) -> bool:
    """Tell whether all runs were scored on the same texts under `name`."""
    return all(name in run.items and texts_of(run.items[name]) == texts_of(runs[0].items[name]) for run in runs)


def kind_of(items: Sequence[Item]) -> str:
    """Return the field by which the kind of items is told, a key of `KINDS`."""
    found = [field for field in KINDS if field in items[0]]
    if not found:
        raise UserError(f"items with the fields {', '.join(items[0])} are of no known kind: score them again")
    return found[0]


def texts_of(items: Sequence[Item]) -> list[tuple[Any, ...]]:
    """Return what each item is, without how a model did."""
    return [tuple(item.get(field) for field in KINDS[kind_of(items)]) for item in items]


def measures(kind: str, name: str, conditions: Sequence[Condition], notes: list[str]) -> Iterator[Measure]:
    """Yield the figures of the items under `name`, all of one kind; `notes` gets a line for what is left out."""
    items = conditions[0].runs[0].items[name]
    runs = [run for condition in conditions for run in condition.runs]
    if kind == "document_id":
        _, works = np.unique([str(item["work"]) for item in items], return_inverse=True)
        for figure, (unit, told, scale) in LIKELIHOODS.items():
            if unit == "tokens" and not same_tokenizer(runs):
                notes.append(
                    f"Loss and perplexity per token of {name} are left out: they do not compare across tokenizers "
                    f"({', '.join(_tokenizers(conditions))})."
                )
                continue
            pseudo = runs[0].masked
            yield Measure(
                place=(name, f"pseudo_{figure}" if pseudo else figure),
                label=name,
                unit=f"pseudo {told}" if pseudo else told,
                scale=scale,
                items="works",
                evidence=f"pseudo {name}" if pseudo else name,
                read=_likelihood(works, unit, math.log(2) if scale == "bits" else 1.0),
                strata=np.zeros(works.max() + 1),
            )
    elif kind == "phenomenon":
        yield from _of_pairs(name, items)
    elif kind == "choices":
        cases = cases_of([item["context"] for item in items])
        drawn = "questions" if len(set(cases)) == len(items) else "contexts"
        read = _shares(cases, np.zeros(len(items), dtype=int))
        place, strata = ("multiple_choice", name, "accuracy"), np.zeros(len(set(cases)))
        yield Measure(place, f"{name}, accuracy", "%", "accuracy", drawn, name, read, strata)
    else:
        rows = [item for run in runs for item in run.items[name]]
        classes = np.unique([str(label) for item in rows for label in (item["label"], *item["predicted"].values())])
        place, read, strata = ("fine_tuning", name, "macro_f1"), _macro_f1(classes), np.zeros(len(items))
        yield Measure(place, f"{name}, macro-F1", "%", "points", "texts", name, read, strata)
        # Of the same predictions, but no function of macro-F1: a hypothesis of its own.
        place, evidence = ("fine_tuning", name, "accuracy"), f"{name} accuracy"
        yield Measure(place, f"{name}, accuracy", "%", "accuracy", "texts", evidence, _right, strata)


def _of_pairs(name: str, items: Sequence[Item]) -> Iterator[Measure]:
    """Yield the accuracies of minimal pairs, whose sentences were drawn: strata are those paired in the same phenomena.

    The accuracy by nats a byte is another choice between the same sentences, so a hypothesis of its own.
    """
    phenomena, index = np.unique([item["phenomenon"] for item in items], return_inverse=True)
    sentences = [str(item["sen"]) for item in items]
    shared: dict[str, Any] = {"unit": "%", "scale": "accuracy", "items": "sentences"}
    for place, label, evidence, by_byte in (
        (("macro",), "macro accuracy", name, False),
        (("per_byte", "macro"), "macro accuracy by bits a byte", f"{name} by byte", True),
    ):
        yield Measure(
            place=("minimal_pairs", name, *place),
            label=f"{name}, {label}",
            **shared,
            evidence=evidence,
            read=_shares(sentences, index, by_byte=by_byte),
            strata=signatures(tabulated(sentences, index, np.ones(len(items)))),
        )
    for number, phenomenon in enumerate(phenomena if len(phenomena) > 1 else ()):
        chosen = np.flatnonzero(index == number)
        own, part = [sentences[place] for place in chosen], np.zeros(len(chosen), dtype=int)
        yield Measure(
            place=("minimal_pairs", name, "phenomena", str(phenomenon), "accuracy"),
            label=f"{name}, {phenomenon}",
            **shared,
            evidence=f"{name} {phenomenon}",
            read=_shares(own, part, chosen),
            strata=signatures(tabulated(own, part, np.ones(len(chosen)))),
            family="phenomena",
        )


def _likelihood(works: np.ndarray, unit: str, nats: float) -> Callable[[Sequence[Item]], Arrays]:
    """Read the likelihood of works: documents of one work resemble each other, so a work is what was drawn."""

    def read(items: Sequence[Item]) -> Arrays:
        top = np.bincount(works, [item["nll"] / nats for item in items])
        return top[:, None, None], np.bincount(works, [float(item[unit]) for item in items])[:, None, None]

    return read


def _shares(
    cases: Sequence[object], parts: np.ndarray, chosen: np.ndarray | None = None, *, by_byte: bool = False
) -> Callable[[Sequence[Item]], Arrays]:
    """Read the points of the `chosen` rows by case and part, those of the rows or those by nats a byte."""

    def read(items: Sequence[Item]) -> Arrays:
        points = _points_by_byte(items) if by_byte else np.asarray([item["points"] for item in items], dtype=np.float64)
        points = points if chosen is None else points[chosen]
        counts = tabulated(cases, parts, np.ones(len(points)))
        return 100 * tabulated(cases, parts, points)[:, None], counts[:, None]

    return read


def _points_by_byte(items: Sequence[Item]) -> np.ndarray:
    """Return 1 for each pair whose better sentence has fewer nats a byte, 0.5 for a tie up to rounding: `(items,)`."""
    good, bad = (
        np.asarray([item[f"{which}nll"] / item[f"{which}bytes"] for item in items], dtype=np.float64)
        for which in ("", "wrong_")
    )
    return np.where(np.isclose(good, bad, rtol=1e-9, atol=0), 0.5, (good < bad).astype(float))


def _right(items: Sequence[Item]) -> Arrays:
    """Read whether each classifier is right on each text."""
    found = [[str(label) == str(item["label"]) for label in item["predicted"].values()] for item in items]
    points = 100.0 * np.asarray(found)[..., None]
    return points, np.ones_like(points)


def _macro_f1(classes: np.ndarray) -> Callable[[Sequence[Item]], Arrays]:
    """Read the F1 of each class, of each classifier: twice the hits over the true and the called texts."""

    def read(items: Sequence[Item]) -> Arrays:
        true = np.asarray([str(item["label"]) for item in items])[:, None, None] == classes
        called = np.asarray([list(map(str, item["predicted"].values())) for item in items])[..., None] == classes
        return 200.0 * (true & called), true.astype(np.float64) + called

    return read


def _tokenizers(conditions: Sequence[Condition]) -> Iterator[str]:
    for condition in conditions:
        hashes = dict.fromkeys(run.tokenizer for run in condition.runs)
        yield f"{condition.name}: {' and '.join(value[:12] if value else 'unknown' for value in hashes)}"
