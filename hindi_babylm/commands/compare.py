"""`hindi-babylm compare RUN RUN ...`: runs and evaluations side by side, with paired tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.commands import carry_out
from hindi_babylm.console import show
from hindi_babylm.recipe.checking import known_keys
from hindi_babylm.recipe.parsing import read_flags
from hindi_babylm.storage import UserError, suggestion, write_atomically

if TYPE_CHECKING:
    from hindi_babylm.comparison.runs import Condition, Run

USAGE = """\
usage: hindi-babylm compare RUN RUN ... [--baseline NAME] [--names A B ...]
           [--output_dir DIR]

Compare finished runs (run folders) and evaluations (folders that
hindi-babylm evaluate has written) on the same texts, pairs and tasks.

  --baseline NAME   the condition that the others are compared with, by its
                    name or one of its folders [that of the first RUN]
  --names A B ...   names of the conditions, one for each RUN in order; RUNs
                    of one name are repetitions of one condition
  --output_dir DIR  where the files are written [runs/comparison]
  --help            this page

Examples:
  hindi-babylm compare runs/base runs/muon
  hindi-babylm compare runs/base-* runs/muon-* --baseline runs/base-1

Runs whose recipes differ in their seed alone are one condition. It is named by
what differs between the recipes, and the tests take its runs as replicates.

Written: comparison.md, comparison.tex (booktabs), comparison.csv (full
precision), differences.svg, and curve-*.svg over the words seen.

Tests are paired: over documents by work, over minimal pairs by good sentence,
over questions by context, and over texts. Holm's correction is over all
comparisons of a table. Loss and perplexity per token are compared with one
tokenizer only, figures of masked models with no causal model's."""
OWN_FLAGS = ("baseline", "names", "output_dir")


def main(argv: Sequence[str] | None = None) -> None:
    """Run `hindi-babylm compare RUN RUN ... [--baseline NAME] [--names A B ...] [--output_dir DIR]`."""
    carry_out(argv, compare, page=lambda: USAGE)


def compare(words: Sequence[str]) -> list[dict[str, Any]]:
    """Carry out the command line, write its files, print its table, and return its rows."""
    from hindi_babylm.comparison.curves import learning_curves
    from hindi_babylm.comparison.figures import compare_conditions
    from hindi_babylm.comparison.runs import group, read_run
    from hindi_babylm.reporting import comparison as tables
    from hindi_babylm.reporting.comparison_plots import CURVES, draw_differences, draw_learning_curve

    first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    paths, flags = [Path(word).expanduser() for word in words[:first]], read_flags(words[first:])
    _check(paths, flags)
    folder = Path(flags.get("output_dir", ["runs/comparison"])[0]).expanduser()
    defaults: dict[str, dict[str, Any]] = {}
    for name, asked in known_keys().items():
        defaults.setdefault(asked.section, {})[name] = asked.default
    runs = [read_run(path, defaults) for path in paths]
    conditions = group(runs, flags.get("names"))
    baseline = _baseline(flags.get("baseline"), conditions)
    conditions = [baseline, *(own for own in conditions if own is not baseline)]
    rows, notes = compare_conditions(conditions, baseline)
    seeds = {own.name: "; ".join(_seed(run) for run in own.runs) for own in conditions}
    rows = [{**row, "seeds": seeds[row["condition"]]} for row in rows]
    curves, silent = learning_curves(conditions)
    drawings = {"differences.svg": ("Differences with 95 % intervals", draw_differences(rows))}
    for key in sorted(curves, key=lambda key: (list(CURVES).index(key) if key in CURVES else len(CURVES), key)):
        title = CURVES.get(key, (key,))[0]
        drawings[f"curve-{key}.svg"] = (f"{title} over words seen", draw_learning_curve(key, curves[key]))
    plots = {name: title for name, (title, svg) in drawings.items() if svg is not None}
    described = [_described(own.name, run) for own in conditions for run in own.runs]
    files = {
        "comparison.md": tables.comparison_markdown(rows, described, notes + silent, plots),
        "comparison.csv": tables.comparison_csv(rows),
        "comparison.tex": tables.comparison_latex(rows),
        **{name: svg for name, (_, svg) in drawings.items() if svg is not None},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in {*folder.glob("curve-*.svg"), *folder.glob("differences.svg")}:
            stale.unlink()  # of an earlier comparison, that might have had more
        for name, text in files.items():
            with write_atomically(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}: choose another --output_dir") from error
    show("\n" + tables.comparison_text(rows, notes + silent) + "\n")
    for name in files:
        show(str(folder / name))
    return rows


def _check(paths: Sequence[Path], flags: Mapping[str, list[str]]) -> None:
    for name, values in flags.items():
        if name not in OWN_FLAGS:
            raise UserError(f"command line: --{name}: compare has no such flag; {suggestion(name, OWN_FLAGS)}")
        if name == "names" and len(values) != len(paths):
            raise UserError(
                f"command line: --names: expected a name for each of {len(paths)} folders, got {len(values)}"
            )
        if name != "names" and len(values) != 1:
            raise UserError(f"command line: --{name}: expected one value, got {len(values)}")
    if len(paths) < 2:
        raise UserError("nothing to compare: hindi-babylm compare RUN RUN ... takes two folders or more (see --help)")
    resolved = [path.resolve() for path in paths]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            raise UserError(f"{paths[place]} is given twice: leave one out")


def _baseline(given: Sequence[str] | None, conditions: "Sequence[Condition]") -> "Condition":
    if given is None:
        return conditions[0]
    folder = Path(given[0]).expanduser().resolve()
    for condition in conditions:
        if given[0] == condition.name or any(run.path.resolve() == folder for run in condition.runs):
            return condition
    names = [condition.name for condition in conditions]
    raise UserError(f"command line: --baseline {given[0]}: no such condition; {suggestion(given[0], names)}")


def _described(condition: str, run: "Run") -> dict[str, Any]:
    return {
        "condition": condition,
        "run": str(run.path),
        "seed": _seed(run),
        "words_seen": run.words_seen,
        "hash": run.tokenizer[:12] if run.tokenizer else "unknown",
    }


def _seed(run: "Run") -> str:
    return ", ".join(str(seed) for seed in run.seed if seed is not None) or "unknown"
