"""Tables of a comparison: Markdown, LaTeX and CSV files, and what the screen shows."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
# The columns of comparison.csv, a row for each figure and condition.
COLUMNS = (
    *("figure", "unit", "condition", "runs", "seeds", "words_seen", "value", "low", "high", "sd", "items", "item"),
    *("baseline", "difference", "difference_low", "difference_high", "difference_unit", "effect", "effect_size"),
    *("test", "p", "p_holm", "family"),
)
HEADS = {
    "runs": "runs",
    "words_seen": "words seen",
    "value": "value [95 %]",
    "sd": "sd over runs",
    "difference": "difference [95 %]",
    "effect": "effect size",
    "p": "p",
    "p_holm": "p (Holm)",
    "items": "items",
}
# Those that fit the width of a page; the others stand in the other files.
PAPER = {"value": "value [95 %]", "difference": "difference [95 %]", "effect": "effect", "p_holm": "p (Holm)"}
METHOD = {
    "permutation": "Of one run each: the interval of a difference is a bootstrap over pairs of items, p a permutation "
    "within them (9,999 drawn, or all).",
    "t over runs and items": "Of several runs: value, interval and p take the runs and the items both as drawn (a t "
    "statistic with the variance of both).",
}
FAMILIES = {"figures": "Figures", "phenomena": "Minimal pairs by phenomenon"}
_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


def comparison_csv(rows: Sequence[Row]) -> str:
    """Return the rows in full precision; what there is none of is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def comparison_markdown(
    rows: Sequence[Row], conditions: Sequence[Row], notes: Sequence[str], plots: Mapping[str, str]
) -> str:
    """Return the document of a comparison: its conditions, a table a family, what was left out, and the plots."""
    lines = ["# Comparison", "", "| condition | run | seed | words seen | tokenizer |", "|---|---|---|---:|---|"]
    lines += [
        _markdown_line(
            [own["condition"], *(own[key] for key in ("run", "seed")), count(own["words_seen"]), own["hash"]]
        )
        for own in conditions
    ]
    for family, title in FAMILIES.items():
        own = [row for row in rows if row["family"] == family]
        if not own:
            continue
        heads = ["figure", "condition", *HEADS.values()]
        lines += ["", f"## {title}", "", _markdown_line(heads), f"|---|---|{'---:|' * len(HEADS)}"]
        lines += [_markdown_line([row["label"], row["condition"], *cells(row)]) for row in own]
    lines += ["", *(f"- {line}" for line in [*explanations(rows), *notes])]
    lines += [f"\n![{title}]({name})" for name, title in plots.items()]
    return "\n".join(lines) + "\n"


def comparison_latex(rows: Sequence[Row]) -> str:
    """Return a table a family for a paper, which needs the package booktabs and fits a page of 345 pt.

    Conditions have the letters of the screen, which the caption explains.
    """
    lines = ["% needs \\usepackage{booktabs}"]
    letters = _letters(rows)
    for family, title in FAMILIES.items():
        own = [row for row in rows if row["family"] == family]
        if not own:
            continue
        lines += ["\\begin{table}", "\\centering", "\\footnotesize", "\\setlength{\\tabcolsep}{4pt}"]
        lines += [f"\\begin{{tabular}}{{@{{}}l{'r' * len(PAPER)}@{{}}}}", "\\toprule"]
        lines += [" & ".join(["", *map(latex, PAPER.values())]) + r" \\"]
        before = None
        for row in own:
            if row["figure"] != before:
                told = latex(f"{row['label']} ({row['items']:,} {row['item']})")
                lines += ["\\midrule", f"\\multicolumn{{{len(PAPER) + 1}}}{{@{{}}l@{{}}}}{{{told}}} \\\\"]
            shown = dict(zip(HEADS, cells(row), strict=True))
            numbers = (re.sub(r"-(?=\d)", "$-$", latex(shown[name])) for name in PAPER)
            lines.append(f"{letters[row['condition']]} & {' & '.join(numbers)} \\\\")
            before = row["figure"]
        first = {row["condition"]: row for row in reversed(own)}
        named = [f"{letters[name]}: {_condition(first[name])}." for name in letters if name in first]
        caption = latex(" ".join([f"{title}.", *named, *explanations(own)]))
        lines += ["\\bottomrule", "\\end{tabular}", f"\\caption{{{caption}}}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def comparison_text(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """Return the figures for the screen, each condition under the letter that stands before its name."""
    letters = _letters(rows)
    first = {row["condition"]: row for row in reversed(rows)}
    lines = [f"{letter}  {_condition(first[name])}" for name, letter in letters.items()]
    before = None
    for row in rows:
        if row["figure"] != before:
            lines += ["", f"{row['label']} ({row['items']:,} {row['item']})"]
            before = row["figure"]
        told = dict(zip(HEADS, cells(row), strict=True))
        line = f"  {letters[row['condition']]}  {told['value']:<23} "
        if row["difference"] is not None:
            line += f"{told['difference']:<27}{told['effect']:<11} p {told['p_holm']}"
        lines.append(line.rstrip())
    below = [line.replace("p (Holm) is", "p is") for line in explanations(rows)]  # the only p of the screen
    lines += ["", *(f"- {line}" for line in [*below, *notes])]
    return "\n".join(lines)


def cells(row: Row) -> list[str]:
    """Return the cells of a row under `HEADS`, rounded for reading; `-` where there is nothing."""
    unit = "bits" if "bits" in row["unit"] else row["unit"]
    digits = {"bits": 3, "%": 1}.get(unit, 1 if row["value"] < 1000 else 0)
    difference = "-"
    if row["difference"] is not None:
        sign = " %" if row["difference_unit"] == "%" else ""
        parts = (row[name] for name in ("difference", "difference_low", "difference_high"))
        value, low, high = (f"{part:+.{4 if unit == 'bits' else 1}f}" for part in parts)
        difference = f"{value}{sign} [{low}, {high}]"
    effect = "-"
    if row["effect"] is not None and row["difference_unit"] != "%":
        size = row["effect_size"]
        effect = f"{size:+.1f} %" if row["effect"] == "relative, %" else f"h {size:+.2f}"
    return [
        str(row["runs"]),
        count(row["words_seen"]),
        f"{row['value']:,.{digits}f} [{row['low']:,.{digits}f}, {row['high']:,.{digits}f}]",
        "-" if row["sd"] is None else f"{row['sd']:,.{digits + 1}f}",
        difference,
        effect,
        probability(row["p"]),
        probability(row["p_holm"]),
        f"{row['items']:,} {row['item']}",
    ]


def explanations(rows: Sequence[Row]) -> list[str]:
    """Return what a reader must know to read the table, a sentence each."""
    compared = [row for row in rows if row["p"] is not None]
    if not compared:
        return ["Intervals are 95 %. Nothing was compared: all runs are of one condition."] if _is_one(rows) else []
    lines = [f"Differences are to {compared[0]['baseline']}."]
    lines += [METHOD[test] for test in dict.fromkeys(row["test"] for row in compared)]
    lines.append(
        "p (Holm) is corrected for all comparisons of its table; figures of one likelihood are one comparison."
    )
    effects = {row["effect"] for row in compared}
    if "Cohen's h" in effects:
        lines.append("Differences of accuracies are in points, their effect size is Cohen's h.")
    if "relative, %" in effects:
        lines.append("The effect size of bits is the relative difference, as is a difference of perplexities.")
        lines.append("Bits and perplexities are the better the lower.")
    if any(math.isclose(row["difference_low"], row["difference_high"], abs_tol=1e-9) for row in compared):
        lines.append(
            "Where the interval of a difference has no width, all items and runs agreed on it, which does not show "
            "that others would."
        )
    if any(row["unit"] == "%" for row in compared):
        lines.append("Accuracies and F1 are the better the higher.")
    return lines


def probability(p: float | None) -> str:
    """Return a p value as text.

    >>> probability(0.0312), probability(1e-9), probability(None)
    ('0.031', '<0.0001', '-')
    """
    if p is None:
        return "-"
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"


def count(words: float | None) -> str:
    """Return a number of words, or that it is not known."""
    return "unknown" if words is None else f"{words:,.0f}"


def latex(text: str) -> str:
    """Return text that LaTeX sets as it stands.

    >>> print(latex("a_b & 5 %"))
    a\\_b \\& 5 \\%
    """
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _letters(rows: Sequence[Row]) -> dict[str, str]:
    """Return the letter of each condition, in the order of the rows; past Z it is a number."""
    names = dict.fromkeys(row["condition"] for row in rows)
    return {name: chr(ord("A") + place) if place < 26 else str(place + 1) for place, name in enumerate(names)}


def _condition(row: Row) -> str:
    runs = f"{row['runs']} run{'s' if row['runs'] > 1 else ''}"
    return f"{row['condition']} ({runs}, {count(row['words_seen'])} words seen)"


def _markdown_line(parts: Iterable[str]) -> str:
    escaped = (
        " ".join(str(part).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split()) for part in parts
    )
    return f"| {' | '.join(escaped)} |"


def _is_one(rows: Sequence[Row]) -> bool:
    return len({row["condition"] for row in rows}) == 1
