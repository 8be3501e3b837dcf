"""The events of all runs of a comparison as points over the words seen, a curve a metric."""

import math
from collections.abc import Iterator, Sequence

from hindi_babylm.comparison.measures import same_texts, same_tokenizer
from hindi_babylm.comparison.runs import Condition, Run

Points = list[tuple[float, float, float]]
# Of an event, what is no metric: where it stands, and the times of an evaluation.
_NO_METRIC = (
    "step",
    "epoch",
    "words_seen",
    "words",
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
)


def learning_curves(conditions: Sequence[Condition]) -> tuple[dict[str, dict[str, list[Points]]], list[str]]:
    """Return `(step, words seen, value)` of each event by metric, condition and run, and lines on what was left out.

    Metrics are those of `metrics.jsonl` and of the milestones. `bits_per_byte` is the validation loss times tokens
    over bytes of the split, in bits; what counts in tokens, as the loss itself, compares only with one tokenizer.
    """
    told = [own for own in conditions if all(run.events for run in own.runs)]
    notes = []
    if len(told) < len(conditions):
        silent = ", ".join(own.name for own in conditions if own not in told)
        notes.append(f"Learning curves are left out of what has no metrics.jsonl: {silent}.")
    runs = [run for own in told for run in own.runs]
    by_token = bool(runs) and same_tokenizer(runs) and len({run.masked for run in runs}) == 1
    validated = bool(runs) and same_texts(runs, "validation")
    if runs and not by_token:
        notes.append(
            "Curves of loss, perplexity and throughput per token are left out: they compare only with one tokenizer."
        )
    if runs and not validated:
        notes.append("Curves of the validation split are left out: the runs have other validation texts.")
    curves: dict[str, dict[str, list[Points]]] = {}
    for own in told:
        for place, run in enumerate(own.runs):
            for key, step, words, value in _points(run):
                of_validation = key == "bits_per_byte" or key.startswith("eval_")
                if (_is_per_token(key) and not by_token) or (of_validation and not validated):
                    continue
                lines = curves.setdefault(key, {}).setdefault(own.name, [[] for _ in own.runs])
                lines[place].append((step, words, value))
    return curves, notes


def _points(run: Run) -> Iterator[tuple[str, float, float, float]]:
    """Yield metric, step, words seen and value of each event and milestone once, in order of steps."""
    found: dict[tuple[float, str], tuple[float, float]] = {}
    tokens, size = run.validation["tokens"] - 1, run.validation["bytes"]  # the first token of the store has no context
    for event in run.events:
        if "words_seen" not in event:
            continue
        for name, value in event.items():
            if name in _NO_METRIC or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            # A milestone has an evaluation like the others; a masked one says what it is in another way.
            key = name.replace("eval_milestone_", "eval_").replace("masked_token_", "eval_")
            found.setdefault((event["step"], key), (event["words_seen"], float(value)))
            if key == "eval_loss" and size and not run.masked:
                bits = float(value) * tokens / size / math.log(2)
                found.setdefault((event["step"], "bits_per_byte"), (event["words_seen"], bits))
    for (step, key), (words, value) in sorted(found.items()):
        yield key, step, words, value


def _is_per_token(key: str) -> bool:
    return any(part in key for part in ("loss", "perplexity", "token"))
