"""`report.html`: what a run was and what came out, in one file that needs no network."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hindi_babylm.console import duration
from hindi_babylm.orthography import split_clusters
from hindi_babylm.reporting.curves import draw_curves
from hindi_babylm.storage import RunFolder, read_json, write_atomically

TEMPLATE = Path(__file__).parent / "report.html.jinja"
SOURCES_SHOWN = 40
UNITS = {
    "bits_per_byte": "bits a byte",
    "bits_per_character": "bits a character",
    "bits_per_akshara": "bits an akshara",
    "word_perplexity": "perplexity a word",
    "token_perplexity": "perplexity a token (this tokenizer only)",
}
# Figures of a masked model, which compare with no causal one's.
UNITS |= {f"pseudo_{name}": f"pseudo {unit}" for name, unit in UNITS.items()}


def write_report(folder: RunFolder, *, title: str) -> Path:
    """Write `report.html` of the finished run in `folder` and return its path.

    Everything in it comes from the run's own files: `results.json`, `metrics.jsonl`, `corpus.json`, `recipe.json`
    and `environment.json`. Text of the corpus and of the model is escaped.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"figure": figure, "duration": duration, "size": size, "json": _as_json, "parts": parts}
    with open(folder.metrics, encoding="utf-8") as file:
        events = [json.loads(line) for line in file]
    results = read_json(folder.results)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        results=results,
        floors=dict(floors(results["test"])),
        standing=list(standing(results)),
        units=UNITS,
        masked="pseudo_bits_per_byte" in results["test"],
        curves=draw_curves(events, masked="pseudo_bits_per_byte" in results["test"]),
        corpus=read_json(folder.corpus),
        sources_shown=SOURCES_SHOWN,
        recipe=read_json(folder.recipe),
        environment=read_json(folder.environment),
    )
    with write_atomically(folder.report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder.report


def floors(test: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Mapping[str, Any], float]]]:
    """Yield each n-gram floor with its bits a byte, and by what share of it the model is below.

    A masked model has none: its pseudo-likelihood knows both sides of a token.
    """
    if "bits_per_byte" not in test:
        return
    for name, entry in test.items():
        if name.endswith("gram_bits_per_byte"):
            yield name.removesuffix("_bits_per_byte"), (entry, 1 - test["bits_per_byte"]["value"] / entry["value"])


class Standing(NamedTuple):
    """Where a model stands against an n-gram of the same tokens."""

    what: str
    model: Mapping[str, float | None]
    floor: Mapping[str, float | None]
    told: str
    lost: bool
    digits: int


def standing(results: Mapping[str, Any]) -> Iterator[Standing]:
    """Yield how the model compares with each n-gram, in bits a byte of the test split and on each suite of pairs."""
    for name, (entry, share) in floors(results["test"]):
        told = f"{100 * abs(share):.1f} % {'MORE' if share < 0 else 'fewer'} bits"
        yield Standing(f"bits a byte, {name}", results["test"]["bits_per_byte"], entry, told, share < 0, 3)
    for suite, score in results["minimal_pairs"].items():
        model, floor = score["macro"], score["trigram"]["macro"]
        points = model["value"] - floor["value"]
        told = f"{abs(points):.1f} points {'LESS' if points < 0 else 'more'}"
        yield Standing(f"{suite}, %, trigram", model, floor, told, points < 0, 1)


def parts(sample: Mapping[str, str]) -> tuple[str, str]:
    """Return a prompt and its continuation, cut where two aksharas meet, so that each is shaped as a whole.

    A model may begin with a vowel sign of the prompt's last letter.

    >>> parts({"prompt": "एक राजकुमा", "continuation": "री थी"}), parts({"prompt": "एक कह", "continuation": "ानी"})
    (('एक राजकुमा', 'री थी'), ('एक कहा', 'नी'))
    """
    text, end = sample["prompt"] + sample["continuation"], 0
    for cluster in split_clusters(text):
        if end >= len(sample["prompt"]):
            break
        end += len(cluster)
    return text[:end], text[end:]


def figure(entry: Mapping[str, float | None], digits: int = 3) -> str:
    """Return a figure with its 95 % interval, as text.

    >>> figure({"value": 0.9021, "low": 0.889, "high": 0.918})
    '0.902 [0.889, 0.918]'
    """
    value, low, high = (_number(entry[name], digits) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "past the range of a float"
    return f"{value:,.{digits}f}" if value < 1e7 else f"{value:.3e}"


def size(count: float) -> str:
    """Return bytes in a unit that a person reads."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
