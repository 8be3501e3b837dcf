"""The bundled minimal pairs as tasks of EleutherAI's lm-evaluation-harness: what `data/harness/*.yaml` name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hindi_babylm.evaluation.minimal_pairs import load_pairs
from hindi_babylm.evaluation.tasks import find_task

if TYPE_CHECKING:
    from datasets import Dataset


def load_task(*, suite: str, **metadata: Any) -> "dict[str, Dataset]":
    """Return the split `test` of a suite, a name of `TASKS` or a path: columns `phenomenon, sen, wrong_sen`.

    The harness calls it with all of the task's `metadata`. Sentences are those that our own evaluation scores.

    >>> load_task(suite="hindi_pairs_pud", version=1.0)["test"].num_rows
    560
    """
    from datasets import Dataset

    rows = [{"phenomenon": p.phenomenon, "sen": p.good, "wrong_sen": p.bad} for p in load_pairs(find_task(suite).place)]
    return {"test": Dataset.from_list(rows)}


def score_pair(doc: Mapping[str, str], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """Return the points of a pair from the log-probabilities of its sentences: 1, or 0.5 when they are equal, or 0.

    >>> score_pair({"phenomenon": "number"}, [(-12.5, False), (-12.5, False)])
    {'acc': 0.5, 'macro': ('number', 0.5)}
    """
    (good, _), (bad, _) = results
    points = 1.0 if good > bad else 0.5 if good == bad else 0.0
    return {"acc": points, "macro": (doc["phenomenon"], points)}


def macro_average(items: Sequence[tuple[str, float]]) -> float:
    """Return the mean over phenomena of the mean points of their pairs.

    >>> macro_average([("number", 1.0), ("number", 0.0), ("gender", 1.0)])
    0.75
    """
    phenomena: dict[str, list[float]] = {}
    for name, points in items:
        phenomena.setdefault(name, []).append(points)
    return sum(sum(points) / len(points) for points in phenomena.values()) / len(phenomena)
