"""`hindi-babylm compare-tokenizers RECIPE`: tokenizers trained on one corpus, side by side."""

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hindi_babylm.commands import carry_out
from hindi_babylm.console import quiet_bars, quiet_warnings, set_level, show
from hindi_babylm.preparation import read_corpus, tell_corpus
from hindi_babylm.recipe.parsing import flag_words, parse_recipe, read_flags
from hindi_babylm.recipe.sections import CorpusSection, Recipe
from hindi_babylm.storage import UserError, suggestion, write_atomically, write_json
from hindi_babylm.tokenization.algorithms import TOKENIZERS
from hindi_babylm.tokenization.comparison import (
    FIGURES,
    compare_tokenizers,
    comparison_markdown,
    comparison_table,
    plot_comparison,
)
from hindi_babylm.tokenization.vocabulary import MINIMUM_VOCABULARY

USAGE = """\
usage: hindi-babylm compare-tokenizers RECIPE [--algorithms A ...]
           [--vocab_sizes N ...] [--tokenizers X ...] [--plot] [--output_dir D]
           [--corpus X ...] [--max_words N] ...

Train tokenizers on the train split of the recipe's corpus and measure them
on its validation split, which they have not seen. Nothing else is trained.

  --algorithms A ...      which to train [all]:
{algorithms}
  --vocab_sizes N ...     at which sizes, {minimum} or more
                          [vocab_size of the recipe]
  --tokenizers X ...      existing ones, folders or hub ids, to compare with
                          [tokenizer of the recipe, where it names one]
  --plot                  draw comparison.svg too
  --output_dir D          where comparison.json and comparison.md are written
                          [runs/<name of the recipe>-tokenizers]
  --corpus X ...          files, folders, globs or hub ids, for the recipe's
                          sources; the other keys of section corpus too
  --help                  this page

Example:
  hindi-babylm compare-tokenizers recipes/quickstart.json \\
      --algorithms bpe unigram --vocab_sizes 4096 8192 16384 --plot

The columns of the table:
{figures}

Fewer tokens a word (fertility) make texts shorter. A cut in an akshara, an
orthographic syllable, leaves a matra or half a conjunct to the next token. The
unigram has the shares of the tokens in the train split, add one: the floor of
any model with this tokenizer. Which one a model learns best from, only models
tell, by their bits per byte. Seconds and megabytes swing with the machine."""
OWN_FLAGS = ("algorithms", "vocab_sizes", "tokenizers", "plot", "output_dir")
CORPUS_FLAGS = ("corpus", *(f.name for f in dataclasses.fields(CorpusSection)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run `hindi-babylm compare-tokenizers RECIPE [--algorithms ...] [--vocab_sizes ...]`."""
    carry_out(argv, compare, page=_help)


def compare(words: Sequence[str]) -> list[dict[str, Any]]:
    """Carry out the command line, write its files, print its table, and return its rows."""
    if not words or words[0].startswith("-"):
        raise UserError("no recipe: hindi-babylm compare-tokenizers recipes/quickstart.json (see --help)")
    flags = read_flags(words[1:])
    for name in flags:
        if name not in (*OWN_FLAGS, *CORPUS_FLAGS):
            raise UserError(
                f"command line: --{name}: compare-tokenizers has no such flag; "
                f"{suggestion(name, (*OWN_FLAGS, *CORPUS_FLAGS))}"
            )
    recipe = parse_recipe(
        words[0], [word for name in flags if name in CORPUS_FLAGS for word in flag_words(name, flags[name])]
    )
    algorithms, sizes, tokenizers = _chosen(flags, recipe)
    folder = _folder(flags.get("output_dir"), recipe)
    plotted = "plot" in flags
    if plotted and flags["plot"]:
        raise UserError(f"command line: --plot takes no value, got {' '.join(flags['plot'])}")
    set_level(recipe.training["log_level"])
    quiet_warnings()
    quiet_bars()
    splits, ledger = read_corpus(recipe)
    tell_corpus(splits, ledger)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}: choose another --output_dir") from error
    rows = compare_tokenizers(
        splits["train"]["text"],
        splits["validation"]["text"],
        algorithms=algorithms,
        vocab_sizes=sizes,
        tokenizers=tokenizers,
    )
    measured = {split: ledger.words(split) for split in ("train", "validation")}
    record = {"format": 1, "corpus": recipe.resolved()["corpus"], "words": measured, "tokenizers": rows}
    write_json(folder / "comparison.json", record)
    if plotted:
        plot_comparison(rows, folder / "comparison.svg")
    with write_atomically(folder / "comparison.md") as temporary:
        temporary.write_text(_document(recipe, measured, rows, plotted=plotted), encoding="utf-8")
    show("\n" + comparison_table(rows) + "\n")
    for name in ("json", "md", "svg")[: 3 if plotted else 2]:
        show(str(folder / f"comparison.{name}"))
    return rows


def _chosen(flags: dict[str, list[str]], recipe: Recipe) -> tuple[list[str], list[int], list[str]]:
    """Return the algorithms, sizes and existing tokenizers that the flags, or else the recipe, ask for."""
    for name in ("algorithms", "vocab_sizes", "tokenizers"):
        if name in flags and not flags[name]:
            raise UserError(f"command line: --{name}: expected one or more values (see --help)")
    algorithms = flags.get("algorithms", list(TOKENIZERS))
    for name in algorithms:
        if name not in TOKENIZERS:
            raise UserError(f"command line: --algorithms {name}: unknown; {suggestion(name, TOKENIZERS)}")
    sizes = flags.get("vocab_sizes", [str(recipe.tokenizer.vocab_size)])
    for size in sizes:
        if not size.isdecimal() or int(size) < MINIMUM_VOCABULARY:
            raise UserError(
                f"command line: --vocab_sizes {size}: expected whole numbers of at least {MINIMUM_VOCABULARY}"
            )
    existing = [recipe.tokenizer.tokenizer] if recipe.tokenizer.tokenizer is not None else []
    return list(dict.fromkeys(algorithms)), list(map(int, sizes)), flags.get("tokenizers", existing)


def _folder(given: list[str] | None, recipe: Recipe) -> Path:
    if given is None:
        return Path("runs") / f"{recipe.path.stem}-tokenizers"
    if len(given) != 1:
        raise UserError(f"command line: --output_dir: expected one folder, got {len(given)}")
    return Path(given[0]).expanduser()


def _document(recipe: Recipe, words: dict[str, int], rows: list[dict[str, Any]], *, plotted: bool) -> str:
    lines = [
        f"# Tokenizers on the corpus of {recipe.path.name}",
        "",
        f"Trained on {words['train']:,} words, measured on {words['validation']:,} words of other works.",
        "",
        comparison_markdown(rows),
    ]
    if plotted:
        lines += ["", "![tokens a word, and cuts in aksharas, by vocabulary](comparison.svg)"]
    return "\n".join(lines) + "\n"


def _help() -> str:
    algorithms = textwrap.fill(", ".join(TOKENIZERS), 78, initial_indent=" " * 26, subsequent_indent=" " * 26)
    figures = [f"  {' '.join(figure.head):<14}{figure.meaning}" for figure in FIGURES.values()]
    return USAGE.format(algorithms=algorithms, figures="\n".join(figures), minimum=MINIMUM_VOCABULARY)
