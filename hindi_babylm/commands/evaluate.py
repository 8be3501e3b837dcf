"""`hindi-babylm evaluate MODEL`: the figures of any causal or masked model on texts and tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.commands import carry_out
from hindi_babylm.console import quiet_bars, quiet_warnings, say, show, warn
from hindi_babylm.evaluation.provenance import tell_not_cut_out
from hindi_babylm.evaluation.tasks import DEFAULT_TASKS, TASKS, find_tasks
from hindi_babylm.recipe.parsing import read_flags, source_from_flag
from hindi_babylm.storage import (
    RunFolder,
    UserError,
    read_json,
    replace_folder,
    suggestion,
    write_json,
)

if TYPE_CHECKING:
    from datasets import Dataset

    from hindi_babylm.evaluation.ngram import Floors
    from hindi_babylm.evaluation.scorer import Scorer

USAGE = """\
usage: hindi-babylm evaluate MODEL [--texts X ...] [--tasks X ...]
           [--train_texts X ...] [--output_dir D] [--block_size N]
           [--revision R]

Score a finished model in fp32: perplexity and bits per byte, akshara, word
and token of texts, and tasks, each with its 95 % interval. MODEL is a run
folder, a model folder (also one of a run's revisions) or a hub id of any
causal or masked model of transformers; code that comes with it is never run.

  --texts X ...        files, folders, globs or hub ids, as for a corpus; they
                       are put into NFC and are not cleaned
                       [the test split, where MODEL is of a run]
  --tasks X ...        names: {tasks},
                       or paths; none for none
                       [those of the run, else {defaults}]
  --train_texts X ...  texts that MODEL was trained on, for the floors of a
                       unigram and a trigram [the train split of the run]
  --output_dir D       where results.json and items/ are written
                       [runs/NAME-evaluation, or beside the run]
  --block_size N       tokens of a window [that of the run, else the model's
                       context, at most {longest}]
  --revision R         branch, tag or commit of a hub id
  --help               this page

Example:
  hindi-babylm evaluate runs/base/revisions/chck_1M --texts stories.txt

A longer document is read in windows that overlap by half. The context of its
first token is BOS, or else EOS, or else CLS. A masked model has each token
masked in turn: its pseudo figures compare with those of masked models alone.
Bits per token and perplexity per token compare under one tokenizer only."""
FLAGS = ("texts", "tasks", "train_texts", "output_dir", "block_size", "revision")


def main(argv: Sequence[str] | None = None) -> None:
    """Run `hindi-babylm evaluate MODEL [--texts ...] [--tasks ...]`."""
    carry_out(argv, evaluate, page=_help)


def _help() -> str:
    return USAGE.format(tasks=", ".join(TASKS), defaults=" ".join(DEFAULT_TASKS), longest=2048)


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    model: str
    run: RunFolder | None
    """The run that the model is of."""
    texts: list[str]
    train_texts: list[str]
    tasks: list[str]
    folder: Path
    block_size: int | None
    revision: str | None


def evaluate(words: Sequence[str]) -> dict[str, Any]:
    """Carry out the command line, write its files, print its table, and return what `results.json` holds."""
    from hindi_babylm.reporting.summary import evaluation_summary

    asked = read_command_line(words)
    quiet_warnings()
    quiet_bars()
    if asked.run:
        tell_not_cut_out(asked.run, asked.tasks)
    from hindi_babylm.evaluation.opening import open_scorer
    from hindi_babylm.evaluation.scorer import Scorer
    from hindi_babylm.evaluation.tasks import check_tasks, evaluate_model
    from hindi_babylm.modeling import count_parameters
    from hindi_babylm.training.machine import set_up_machine

    set_up_machine()
    scorer = open_scorer(asked.model, revision=asked.revision, block_size=asked.block_size)
    if asked.run:  # whose documents were divided by EOS, whatever else its tokenizer has
        scorer = Scorer.of(scorer.model, scorer.tokenizer, block_size=scorer.block_size)
    check_tasks(scorer.tokenizer, asked.tasks, room=scorer.room)
    texts = _texts(asked)
    floors = _floors(asked, scorer)
    losses = {} if texts is None else _losses(scorer, texts)
    splits = {} if texts is None else {"test": texts}
    if texts is not None and len(set(texts["work"])) == 1:
        warn("all texts are of one work: figures over them have intervals of no width, which say nothing")
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{asked.folder} cannot be made: {error.strerror}: choose another --output_dir") from error
    with replace_folder(RunFolder(asked.folder).items) as items:  # those of an evaluation before this one go
        figures = evaluate_model(scorer, splits=splits, floors=floors, tasks=asked.tasks, items=items)
    results = {
        "format": 1,
        "model": {
            "name": asked.model,
            "revision": asked.revision,
            "architecture": scorer.model.config.model_type,
            "objective": "masked" if scorer.masked else "causal",
            "parameters": count_parameters(scorer.model),
            "block_size": scorer.block_size,
            "tokenizer": scorer.tokenizer.name_or_path,
            "vocabulary": len(scorer.tokenizer),
            "first_context": scorer.tokenizer.convert_ids_to_tokens(scorer.first),
        },
        "texts": asked.texts,
        "train_texts": asked.train_texts,
        "lost_by_tokenizer": losses,
        **figures,
    }
    write_json(asked.folder / "results.json", results)
    show(evaluation_summary(results, folder=asked.folder))
    return results


def read_command_line(words: Sequence[str]) -> Asked:
    """Read the command line; raise UserError for what is wrong with it, before a library is imported."""
    if not words or words[0].startswith("-"):
        raise UserError("no model: hindi-babylm evaluate runs/base (see --help)")
    flags = read_flags(words[1:])
    for name, values in flags.items():
        if name not in FLAGS:
            raise UserError(f"command line: --{name}: evaluate has no such flag; {suggestion(name, FLAGS)}")
        if not values:
            raise UserError(f"command line: --{name}: expected a value (see --help)")
        if name in ("output_dir", "block_size", "revision") and len(values) > 1:
            raise UserError(f"command line: --{name}: expected one value, got {len(values)}: {' '.join(values)}")
    model, run = _find_model(words[0])
    recipe: dict[str, Any] = read_json(run.recipe) if run else {}
    if run and "revision" in flags:
        raise UserError("command line: --revision goes with a hub id: leave it out, or name a folder of revisions/")
    size = flags.get("block_size", [None])[0]
    if size is not None and (not size.isdecimal() or int(size) < 4):
        raise UserError(f"command line: --block_size {size}: expected a whole number of at least 4")
    tasks = flags.get("tasks") or recipe.get("evaluation", {}).get("tasks", list(DEFAULT_TASKS))
    tasks = [] if tasks == ["none"] else tasks
    try:
        find_tasks(tasks)
    except UserError as error:
        raise UserError(f"command line: --tasks: {str(error).removeprefix('evaluation: ')}") from error
    texts = flags.get("texts", [])
    if not texts and not run and not tasks:
        raise UserError("command line: nothing to score: give --texts, or leave --tasks none out")
    name = Path(words[0]).resolve().name if Path(words[0]).exists() else words[0].replace("/", "-")
    if run and run.path.resolve() != Path(words[0]).resolve():
        name = f"{run.path.resolve().name}-{name}"
    beside = run.path.resolve().parent if run else Path("runs")
    folder = Path(flags["output_dir"][0]).expanduser() if "output_dir" in flags else beside / f"{name}-evaluation"
    if (folder / "recipe.json").exists():
        raise UserError(f"{folder} holds a run: choose another --output_dir")
    if RunFolder(folder).items.exists() and not RunFolder(folder).results.exists():
        raise UserError(f"{folder} holds a folder items that is of no evaluation: choose another --output_dir")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another --output_dir")
    return Asked(
        model=model,
        run=run,
        texts=texts,
        train_texts=flags.get("train_texts", []),
        tasks=tasks,
        folder=folder,
        block_size=int(size) if size is not None else recipe.get("model", {}).get("block_size"),
        revision=flags.get("revision", [None])[0],
    )


def _find_model(word: str) -> tuple[str, RunFolder | None]:
    """Return the folder or hub id of the weights, and the run that they are of."""
    path = Path(word).expanduser()
    if not path.exists():
        if word.count("/") > 1 or word.startswith((".", "/", "~")) or path.suffix in (".json", ".pt"):
            raise UserError(f"there is no model {word!r}: give a run folder, a model folder or a hub id")
        return word, None
    for folder in (path.resolve(), path.resolve().parent, path.resolve().parent.parent):
        run = RunFolder(folder)
        if run.recipe.exists() and run.tokens.exists():
            weights = run.final_model if folder == path.resolve() else path
            if not (weights / "config.json").exists():
                raise UserError(f"{word} holds no finished model: there is no {weights / 'config.json'}")
            return str(weights), run
    if not (path / "config.json").exists():
        raise UserError(f"{word} is no model folder: it has no config.json")
    return str(path), None


def _read(paths: Sequence[str], flag: str) -> "Dataset":
    """Read texts as a corpus is read, put into NFC and otherwise as they are."""
    import datasets

    from hindi_babylm.corpus.sources import load_source

    parts = []
    for path in paths:
        try:
            documents, ledger = load_source(source_from_flag(path), hygiene=["nfc"], max_document_words=10**9)
        except UserError as error:
            raise UserError(f"command line: --{flag}: {str(error).removeprefix('corpus: ')}") from error
        for line in ledger.lines():
            say(f"  {line}")
        if not len(documents):
            raise UserError(f"command line: --{flag}: {path} has no text")
        parts.append(documents.select_columns(["text", "source", "document_id", "work"]))
    return datasets.concatenate_datasets(parts)


def _texts(asked: Asked) -> "Dataset | None":
    from hindi_babylm.packing import read_documents

    if asked.texts:
        return _read(asked.texts, "texts")
    return read_documents(asked.run.tokens / "test") if asked.run else None


def _floors(asked: Asked, scorer: "Scorer") -> "Floors | None":
    """Return the n-grams of the training tokens, or None where these are not known."""
    import numpy as np

    from hindi_babylm.evaluation.ngram import Floors
    from hindi_babylm.packing import TokenStore

    if asked.train_texts:
        end = np.asarray([scorer.first])
        documents = scorer.encode(_read(asked.train_texts, "train_texts")["text"])
        tokens: Any = np.concatenate([part for tokens in documents for part in (tokens, end)])
    elif asked.run:
        tokens = TokenStore(asked.run.tokens / "train").tokens
    else:
        say("No floors: --train_texts names the texts that the model was trained on.")
        return None
    ids = scorer.tokenizer.get_vocab().values()  # which have gaps in some tokenizers of others
    return Floors(tokens, vocab_size=max(ids) + 1, eos_token_id=scorer.first)


def _losses(scorer: "Scorer", texts: "Dataset") -> dict[str, int]:
    """Count what a tokenizer does not keep, and warn of it: unknown tokens, and documents that come back otherwise."""
    unknown = scorer.tokenizer.unk_token_id
    encoded = scorer.encode(texts["text"])
    back = [scorer.tokenizer.decode(tokens, clean_up_tokenization_spaces=False) for tokens in encoded]
    # White space between tokens is often made up by the decoder.
    lost = sum("".join(text.split()) != "".join(found.split()) for text, found in zip(texts["text"], back, strict=True))
    losses = {"unknown_tokens": sum(int((tokens == unknown).sum()) for tokens in encoded), "lossy_documents": lost}
    if any(losses.values()):
        warn(
            f"the tokenizer loses text: {losses['unknown_tokens']:,} unknown tokens, and {lost:,} of {len(texts):,} "
            "documents do not come back as they were; its bits per byte are too low and do not compare"
        )
    return losses
