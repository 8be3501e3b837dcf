"""The figures of a finished model, and the registry of tasks that a recipe may name."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.evaluation.classification import load_classification, scored_texts
from hindi_babylm.evaluation.fine_tuning import check_classification, score_classification
from hindi_babylm.evaluation.minimal_pairs import encode_pairs, load_pairs, pair_texts, score_pairs
from hindi_babylm.evaluation.multiple_choice import encode_questions, load_questions, question_texts, score_questions
from hindi_babylm.evaluation.tables import HubTable
from hindi_babylm.storage import UserError, suggestion, write_json_lines

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hindi_babylm.evaluation.ngram import Floors
    from hindi_babylm.evaluation.scorer import Scorer

# The key under which corpus.json and results.json say what tasks held, by their names.
TASK_SHA256 = "task_sha256"


def load_final_model(path: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Open an exported folder as anybody would, in fp32, on the GPU where there is one.

    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया"], vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size).save_pretrained("tiny")
    >>> _ = tokenizer.save_pretrained("tiny")
    >>> model, tokenizer = load_final_model(Path("tiny"))
    >>> print(type(model).__name__, model.dtype, tokenizer.eos_token)
    GPT2LMHeadModel torch.float32 </s>
    """
    from hindi_babylm.evaluation.opening import open_scorer

    scorer = open_scorer(str(path))
    return scorer.model, scorer.tokenizer


def evaluate_model(
    scorer: "Scorer",
    *,
    splits: "Mapping[str, Dataset]",
    floors: "Floors | None",
    tasks: Sequence[str],
    items: Path | None = None,
) -> dict[str, Any]:
    """Return the perplexity family of each split and the figures of each task, as they stand in `results.json`.

    A split has the columns `text, source, document_id, work`. Beside the model's stand the figures of the n-grams of
    its training tokens. A masked model has a pseudo-perplexity: its figures have names of their own, and
    `scored_tokens`. What the figures are made of, a row for each document and item, is written to the folder `items`.

    >>> from datasets import Dataset
    >>> from hindi_babylm.evaluation.scorer import Scorer
    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> texts = ["राम घर गया", "सीता ने आम खाया"]
    >>> tokenizer = train_tokenizer(texts * 10, vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size)
    >>> names = {"source": ["mine", "mine"], "work": ["1", "2"], "document_id": ["1", "2"]}
    >>> scorer = Scorer.of(model, tokenizer, block_size=16)
    >>> figures = evaluate_model(
    ...     scorer, splits={"test": Dataset.from_dict({"text": texts, **names})}, floors=None, tasks=[]
    ... )
    >>> # Fresh weights guess: the perplexity is about the size of the vocabulary.
    >>> 0.8 < figures["test"]["perplexity"] / len(tokenizer) < 1.2
    True
    >>> sorted(figures["test"]["bits_per_byte"]), figures["test"]["words"]
    (['high', 'low', 'value'], 7)
    """
    results: dict[str, Any] = {}
    for name, documents in splits.items():
        results[name], rows = _score_split(scorer, documents, floors, description=f"Scoring {name}")
        if items is not None:
            write_json_lines(items / f"{name}.jsonl", rows)
    results |= {"minimal_pairs": {}, TASK_SHA256: {}}
    for task in map(find_task, tasks):
        kind = KINDS[task.kind]
        loaded = kind.load(task.place)
        figures, rows = kind.score(scorer, loaded, floors=floors)
        results.setdefault(task.kind, {})[task.name] = figures
        results[TASK_SHA256][task.name] = content_sha256(loaded)
        if items is not None:
            write_json_lines(items / f"{task.name}.jsonl", rows)
    return results


def _score_split(
    scorer: "Scorer", documents: "Dataset", floors: "Floors | None", *, description: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the figures of a split, and a row for each of its documents."""
    from hindi_babylm.evaluation.perplexity import document_items, score_documents
    from hindi_babylm.evaluation.pseudo_likelihood import SCORED_TOKENS, pseudo_figures

    texts = documents["text"]
    encoded = scorer.encode(texts)
    if not any(map(len, encoded)):
        raise UserError(
            f"evaluation: the tokenizer {scorer.tokenizer.name_or_path!r} makes no token of the {len(texts)} texts "
            f"({texts[0][:60]}...): give other texts, or a model whose tokenizer knows their letters"
        )
    nll, scored = scorer.nll(texts, description, limit=SCORED_TOKENS)
    measured: Any = {
        "nll": nll,
        "tokens": [len(tokens) for tokens in encoded],
        "floors": {"unigram": floors.unigram_nll(encoded), "trigram": floors.trigram_nll(encoded)} if floors else {},
    }
    figures = score_documents(texts=texts, sources=documents["source"], works=documents["work"], **measured)
    rows = document_items(documents, **measured)
    if scorer.masked:
        figures = pseudo_figures(figures, scored=int(scored.sum()))
        rows = [{**row, "scored_tokens": int(tokens)} for row, tokens in zip(rows, scored, strict=True)]
    return figures, rows


@dataclass(frozen=True)
class Task:
    """A task that was found: the name of its figures, its kind, and where its items lie."""

    name: str
    kind: str
    place: Path | HubTable


@dataclass(frozen=True)
class Kind:
    """What tasks of one kind have in common; the name of a kind is that of its section in `results.json`."""

    told_by: str
    """How a path of this kind looks, as errors say it."""
    accepts: Callable[[Path | HubTable], bool]
    """Tells whether a place is of this kind, by its name or by what lies there."""
    load: Callable[[Any], Any]
    """`(place)` -> the items; raises UserError for what is no task of this kind. Imports no torch."""
    texts: Callable[[Any], list[str]]
    """`(items)` -> the texts that no model may have been trained on."""
    check: Callable[..., object]
    """`(tokenizer, items, *, room)` raises UserError for items that do not fit, before a model is trained."""
    score: Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]
    """`(scorer, items, *, floors)` -> the figures of the model, and a row for each item."""


def find_task(name: str) -> Task:
    """Return the task of a name of `TASKS` or of a path.

    Raises UserError for a name that is no task, for a path where nothing lies, and for what is no task.

    >>> find_task("hindi_pairs_pud").kind
    'minimal_pairs'
    """
    known = "; or the path of " + ", ".join(kind.told_by for kind in KINDS.values())
    place: Path | HubTable
    if name in TASKS:
        place, own = TASKS[name], name
    else:
        place = path = Path(name).expanduser()
        own = path.resolve().name if path.is_dir() else path.stem
        if path.parent == Path() and not path.suffix and not path.exists():
            raise UserError(f"evaluation: unknown task {name!r}; {suggestion(name, TASKS)}{known}")
        if not path.exists():
            raise UserError(f"evaluation: there is no {name!r}; a task is one of {', '.join(TASKS)}{known}")
    kinds = [kind for kind, entry in KINDS.items() if entry.accepts(place)]
    if not kinds:
        raise UserError(f"evaluation: {name!r} is no task; a task is one of {', '.join(TASKS)}{known}")
    return Task(own, kinds[0], place)


def find_tasks(names: Sequence[str]) -> list[Task]:
    """Return the tasks of names and paths, having read those that lie here.

    Raises UserError for what is no task, and for two of one name, or that of a split: their figures would have
    one place.

    >>> [task.name for task in find_tasks(["hindi_pairs_pud", "multiblimp_hin_pud"])]
    ['hindi_pairs_pud', 'multiblimp_hin_pud']
    """
    tasks = [find_task(name) for name in names]
    for task in tasks:
        if [other.name for other in tasks].count(task.name) > 1 or task.name in SPLITS:
            what = "the name of a split" if task.name in SPLITS else "the name of two tasks"
            raise UserError(f"evaluation: {task.name!r} is {what}: rename the file, or leave one out")
        if isinstance(task.place, Path):
            KINDS[task.kind].load(task.place)
    return tasks


def check_tasks(tokenizer: "PreTrainedTokenizerFast", tasks: Sequence[str], *, room: int) -> None:
    """Raise UserError for a task that a model with room for so many tokens cannot do, before it is trained."""
    for task in map(find_task, tasks):
        kind = KINDS[task.kind]
        kind.check(tokenizer, kind.load(task.place), room=room)


def task_texts(name: str) -> list[str]:
    """Return the texts of a task, which no model that it measures may have been trained on.

    >>> len(task_texts("hindi_pairs_pud"))
    1120
    """
    task = find_task(name)
    return KINDS[task.kind].texts(KINDS[task.kind].load(task.place))


def content_sha256(items: Any) -> str:
    """Return the SHA-256 of the items of a task as they were read: the same for a file, its copies and a hub table.

    >>> content_sha256([]) == hashlib.sha256(b"[]").hexdigest()
    True
    """

    def fields(item: Any) -> dict[str, Any]:
        return {name: value for name, value in vars(item).items() if name != "name"}  # that of the folder is no content

    return hashlib.sha256(json.dumps(items, default=fields, sort_keys=True).encode("ascii")).hexdigest()


BUNDLED = Path(__file__).parent.parent / "data"
SPLITS = ("train", "validation", "test")
# Name -> what lies in the package, or a table of the hub.
TASKS: dict[str, Path | HubTable] = {
    "hindi_pairs_pud": BUNDLED / "pairs" / "hindi_pairs_pud.tsv",
    "multiblimp_hin_pud": BUNDLED / "pairs" / "multiblimp_hin_pud.tsv",
    "multiblimp_hin": HubTable("jumelet/multiblimp", "hin"),
    "sib200_hin": BUNDLED / "classification" / "sib200_hin",
}
DEFAULT_TASKS = ("hindi_pairs_pud", "multiblimp_hin_pud")
KINDS: dict[str, Kind] = {
    "minimal_pairs": Kind(
        told_by="a .tsv of minimal pairs",
        accepts=lambda place: isinstance(place, HubTable) or place.suffix == ".tsv",
        load=load_pairs,
        texts=pair_texts,
        check=encode_pairs,
        score=score_pairs,
    ),
    "multiple_choice": Kind(
        told_by="a .jsonl of questions",
        accepts=lambda place: isinstance(place, Path) and place.suffix == ".jsonl",
        load=load_questions,
        texts=question_texts,
        check=encode_questions,
        score=score_questions,
    ),
    "fine_tuning": Kind(
        told_by="a folder with train.tsv, dev.tsv and test.tsv to fine-tune on",
        accepts=lambda place: isinstance(place, Path) and place.is_dir(),
        load=load_classification,
        texts=scored_texts,
        check=check_classification,
        score=score_classification,
    ),
}
