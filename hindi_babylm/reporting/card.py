"""The model card, `final_model/README.md`: what the hub and a reader need to know of a run's model."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import duration
from hindi_babylm.reporting.licences import model_licence, sources_of
from hindi_babylm.reporting.privacy import machine_places, public_names, scrubbed
from hindi_babylm.reporting.report import UNITS, figure, floors
from hindi_babylm.storage import RunFolder, read_json, write_atomically

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
# Keys of a recipe that say where and how a run was done, not what came out.
NOT_OF_THE_MODEL = ("output_dir", "log_level", "project", "run_name", "report_to", "wandb_tags", "wandb_notes")


@dataclass(frozen=True)
class Figure:
    """A final figure as the card tells it: the key in `results.json`, on what, and its unit."""

    metric: str
    dataset: str
    unit: str
    entry: Mapping[str, Any]
    digits: int = 1
    task: tuple[str, str] | None = None
    """The hub's name of what was done, and ours, where it is not language modelling."""


def write_card(folder: RunFolder, *, hub_model_id: str | None = None, revisions: Sequence[str] = ()) -> Path:
    """Write the card of the finished run in `folder` into its `final_model` and return its path."""
    text = model_card(folder, hub_model_id=hub_model_id, revisions=revisions)
    with write_atomically(folder.card) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder.card


def model_card(folder: RunFolder, *, hub_model_id: str | None = None, revisions: Sequence[str] = ()) -> str:
    """Return the card of the finished run in `folder`, as the hub and `huggingface_hub.ModelCard` read it.

    Everything in it comes from the run's files, without the paths of the machine: what was not measured is not told.
    `hub_model_id` is the repository that it is written for, `revisions` are the branches with milestones there.
    """
    import jinja2

    recipe, results = read_json(folder.recipe), public_results(folder)
    names, places = public_names(recipe), machine_places(folder.path)
    sources = list(sources_of(recipe, names))
    public = scrubbed(_what_counts(recipe), names, places)
    ledger = {key: entry for key, entry in read_json(folder.corpus).items() if key != "tokenizer"}
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"figure": figure, "duration": duration, "cell": cell}
    licence = model_licence(sources)
    data = card_data(
        name=(hub_model_id or folder.path.resolve().name).rsplit("/", 1)[-1],
        results=results,
        licence=licence,
        datasets=[hub_id for hub_id in _hub_ids(recipe) if hub_id not in names],
    )
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=(hub_model_id or folder.path.resolve().name).rsplit("/", 1)[-1],
        model_id=hub_model_id or "final_model",
        published=hub_model_id is not None,
        masked=is_masked(results),
        licence=licence,
        sources=sources,
        recipe=public,
        recipe_json=json.dumps(public, ensure_ascii=False, indent=2),
        results=results,
        test=results["test"],
        figures=list(figures(results)),
        held_against=list(held_against(results)),
        floors=dict(floors(results["test"])),
        corpus=scrubbed(ledger, names, places),
        tokenizer=read_json(folder.corpus)["tokenizer"]["validation"],
        vocabulary=read_json(folder.final_model / "config.json")["vocab_size"],
        environment=read_json(folder.environment),
        revisions=revisions,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def public_results(folder: RunFolder) -> dict[str, Any]:
    """Return `results.json` without the paths of the machine, and without texts: figures alone are public."""
    names = public_names(read_json(folder.recipe))
    results: dict[str, Any] = scrubbed(read_json(folder.results), names, machine_places(folder.path))
    results.pop("continuations", None)  # their prompts are words of test documents
    return results


def card_data(*, name: str, results: Mapping[str, Any], licence: str | None, datasets: list[str]) -> "ModelCardData":
    """Return the metadata of a card: language, licence, datasets, and the results as a `model-index`."""
    from huggingface_hub import EvalResult, ModelCardData

    masked = is_masked(results)
    modelling = ("fill-mask", "masked language modelling") if masked else ("text-generation", "language modelling")
    return ModelCardData(
        language="hi",
        license=licence,
        library_name="transformers",
        pipeline_tag=modelling[0],
        tags=["hindi-babylm", "babylm", "hindi", results["model"]["architecture"]],
        datasets=datasets or None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=(found.task or modelling)[0],
                task_name=(found.task or modelling)[1],
                dataset_type=re.sub(r"[^\w.-]+", "-", found.dataset),
                dataset_name=found.dataset,
                dataset_split="test",
                metric_type=found.metric,
                metric_name=f"{found.unit}, 95 % interval {figure(found.entry, found.digits).split(' ', 1)[1]}",
                metric_value=round(found.entry["value"], 6),
            )
            for found in figures(results)
            if found.entry["value"] is not None
        ],
    )


def figures(results: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield the final figures: those of the test split, and those of each task."""
    for name, unit in UNITS.items():
        if name in results["test"]:
            digits = 1 if name.endswith("perplexity") else 3
            yield Figure(name, "held-out test split", unit, results["test"][name], digits)
    for suite, scores in results["minimal_pairs"].items():
        yield Figure("accuracy", suite, "% of minimal pairs, macro average, chance 50", scores["macro"])
    choosing, classifying = ("multiple-choice", "multiple choice"), ("text-classification", "fine-tuning")
    for suite, scores in results.get("multiple_choice", {}).items():
        unit = f"% of questions, multiple choice, chance {scores['chance']:.1f}"
        yield Figure("accuracy", suite, unit, scores["accuracy"], task=choosing)
    for suite, scores in results.get("fine_tuning", {}).items():
        told = f"after fine-tuning, mean of {len(scores['seeds'])} seeds, %"
        yield Figure("macro_f1", suite, f"macro-F1 {told}", scores["macro_f1"], task=classifying)
        yield Figure("accuracy", suite, f"accuracy {told}", scores["accuracy"], task=classifying)


def held_against(results: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield what the figures of tasks are to be held against, and those of the other ways to score, as far as known."""
    for kind, told in HELD_AGAINST.items():
        for suite, scores in results.get(kind, {}).items():
            for key, (metric, unit) in told.items():
                if key in scores:
                    yield Figure(metric, suite, unit, scores[key][metric])


def is_masked(results: Mapping[str, Any]) -> bool:
    """Tell whether the figures are those of a masked model, which compare with no causal one's."""
    return "pseudo_bits_per_byte" in results["test"]


def cell(text: object) -> str:
    """Return text for a cell of a Markdown table, in which it is neither markup nor the end of the cell.

    >>> cell("a|b <script>\\n*c*")
    'a\\\\|b &lt;script> \\\\*c\\\\*'
    """
    line = " ".join(str(text).split()).replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in "|*`[]\\" else sign for sign in line)


def _hub_ids(recipe: Mapping[str, Any]) -> list[str]:
    return [str(source["hub_id"]) for source in recipe["corpus"]["sources"] if "hub_id" in source]


def _what_counts(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without what says where and how it was run and published, so that anybody can repeat it."""
    kept = {name: dict(section) for name, section in recipe.items() if name != "reporting"}
    kept["training"] = {key: value for key, value in kept["training"].items() if key not in NOT_OF_THE_MODEL}
    return kept


# Kind of task -> key of a suite in `results.json` -> the figure there, and what the card calls it.
HELD_AGAINST = {
    "minimal_pairs": {
        "per_byte": ("macro", "% of minimal pairs, by NLL a byte"),
        "length_only": ("macro", "% of minimal pairs of always taking the sentence of fewer tokens"),
        "trigram": ("macro", "% of minimal pairs of a trigram of the same tokens: a floor"),
    },
    "multiple_choice": {
        "per_byte": ("accuracy", "% of questions, by NLL a byte"),
        "trigram": ("accuracy", "% of questions of a trigram of the same tokens: a floor"),
    },
    "fine_tuning": {
        "bag_of_words": ("macro_f1", "macro-F1 of a bag of words, %"),
        "majority": ("macro_f1", "macro-F1 of the most frequent label, %"),
    },
}
