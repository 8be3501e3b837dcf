"""The tables and plots of a comparison, from rows made by hand."""

import csv
import io
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.reporting.comparison import (
    COLUMNS,
    HEADS,
    cells,
    comparison_csv,
    comparison_latex,
    comparison_markdown,
    comparison_text,
    latex,
)
from hindi_babylm.reporting.comparison_plots import draw_differences, draw_learning_curve, mean_of_seeds

SPITEFUL = r"lr=1e-3_50%, a|b & {x} #1 $^~ <c> \d"


def row(condition: str, **changes: Any) -> dict[str, Any]:
    """Return a row of bits per byte, with a difference unless it is told otherwise."""
    return {
        **{"figure": "test.bits_per_byte", "label": "test, bits a byte", "unit": "bits a byte"},
        **{"condition": condition, "runs": 3, "seeds": "1; 2; 3", "words_seen": 540000.0, "value": 0.1 + 0.2},
        **{"low": 0.28, "high": 0.33, "sd": 0.01234, "items": 1200, "item": "works", "baseline": "base"},
        **{"difference": -0.02345, "difference_low": -0.03, "difference_high": -0.01, "difference_unit": "bits a byte"},
        **{"effect": "relative, %", "effect_size": -7.25, "test": "permutation", "p": 0.0002, "p_holm": 0.0123},
        **{"family": "figures", "evidence": "test"},
        **changes,
    }


NOTHING = dict.fromkeys(("baseline", "difference", "effect", "effect_size", "test", "p", "p_holm", "sd"))
BASE = row("base", **NOTHING, runs=1)
ROWS = [BASE, row(SPITEFUL)]


def test_csv_has_every_column_in_full_precision() -> None:
    """A number comes back as it was, a name whole; what there is none of is empty."""
    table = list(csv.DictReader(io.StringIO(comparison_csv(ROWS))))
    assert tuple(table[0]) == COLUMNS
    assert float(table[1]["value"]) == 0.1 + 0.2
    assert table[1]["condition"] == SPITEFUL
    assert table[0]["difference"] == table[0]["p"] == ""


def test_cells_round_for_reading() -> None:
    """Each number has its interval and a sign where it is a difference; what there is none of is a dash."""
    told = dict(zip(HEADS, cells(ROWS[1]), strict=True))
    assert told == {
        **{"runs": "3", "words_seen": "540,000", "value": "0.300 [0.280, 0.330]", "sd": "0.0123"},
        **{"difference": "-0.0234 [-0.0300, -0.0100]", "effect": "-7.2 %", "p": "0.0002", "p_holm": "0.012"},
        "items": "1,200 works",
    }
    assert cells(BASE)[3:8] == ["-"] * 5
    accuracy = {"unit": "%", "value": 85.25, "difference_unit": "points", "effect": "Cohen's h", "effect_size": 0.123}
    points = {"difference": 1.25, "difference_low": -0.5, "difference_high": 3.0, "low": 80.0, "high": 100.0}
    told = dict(zip(HEADS, cells(row("x", **accuracy, **points)), strict=True))
    assert (told["value"], told["difference"], told["effect"]) == (
        "85.2 [80.0, 100.0]",
        "+1.2 [-0.5, +3.0]",
        "h +0.12",
    )
    words = {"unit": "perplexity a word", "value": 12345.67, "low": 1.0, "high": math.inf, "difference_unit": "%"}
    told = dict(zip(HEADS, cells(row("x", **words, words_seen=None)), strict=True))
    assert (told["value"], told["words_seen"], told["effect"]) == ("12,346 [1, inf]", "unknown", "-")


def test_latex_sets_every_sign_as_it_stands() -> None:
    """No sign of a name is left that LaTeX would read as a command, and the columns of each line are those declared."""
    text = comparison_latex(ROWS)
    for sign in "&%$#_{}":
        assert f"\\{sign}" in latex(SPITEFUL)
    escaped = r"lr=1e-3\_50\%, a\textbar{}b \& \{x\} \#1 \$\textasciicircum{}\textasciitilde{} "
    assert latex(SPITEFUL) == escaped + r"\textless{}c\textgreater{} \textbackslash{}d"
    columns = re.search(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}", text)
    assert columns is not None
    head, figure, *lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert figure == rf"\multicolumn{{{len(columns[1])}}}{{@{{}}l@{{}}}}{{test, bits a byte (1,200 works)}} \\"
    assert len(lines) == len(ROWS)
    assert {len(re.split(r"(?<!\\)&", line)) for line in (head, *lines)} == {len(columns[1])}
    assert "$-$0.0234 [$-$0.0300, $-$0.0100]" in text
    assert f"A: base (1 run, 540,000 words seen). B: {latex(SPITEFUL)} (3 runs, 540,000 words seen)." in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    plain = re.sub(r"\\[&%$#_{}]", "", text).replace("$-$", "")
    assert "$" not in plain
    assert "#" not in plain
    assert plain.count("{") == plain.count("}")
    assert all("%" not in line for line in plain.splitlines()[1:])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX")
def test_latex_fits_a_page(tmp_path: Path) -> None:
    """LaTeX sets the table without an error, and no line of it is wider than the text of a page."""
    accuracy: dict[str, Any] = {
        "figure": "x",
        "label": "a_suite, macro accuracy by bits a byte, %",
        "unit": "%",
        "item": "sentences",
    }
    wide: dict[str, Any] = {"value": 83.41, "low": 16.02, "high": 100.0, "difference": -13.55, "difference_low": -96.94}
    wide |= {"difference_high": 69.8, "difference_unit": "points", "effect": "Cohen's h", "effect_size": -0.28}
    words: dict[str, Any] = {
        "figure": "y",
        "label": "test, perplexity a word",
        "unit": "perplexity a word",
        "value": 336804.7,
    }
    words |= {"low": 129712.1, "high": 874532.1, "difference": 147.5, "difference_low": 117.0, "difference_high": 182.2}
    words |= {"difference_unit": "%", "effect": "relative, %", "effect_size": 147.5}
    rows = [*ROWS, row(SPITEFUL, **accuracy, **wide), row("a", **words)]
    (tmp_path / "table.tex").write_text(comparison_latex(rows), encoding="utf-8")
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-jobname=page", page]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout


def test_markdown_keeps_its_columns() -> None:
    """A name with a bar or a tag breaks neither its row nor the page."""
    conditions = [{"condition": SPITEFUL, "run": "runs/a|b", "seed": "1", "words_seen": None, "hash": "0123"}]
    text = comparison_markdown(ROWS, conditions, ["a note"], {"differences.svg": "Differences"})
    lines = [line for line in text.splitlines() if line.startswith("| test")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {len(HEADS) + 4}
    assert "<c>" not in text
    assert "- a note\n" in text
    assert "![Differences](differences.svg)" in text


def test_the_screen_has_letters_for_long_names() -> None:
    """Each condition is named once, and its lines have its letter, value, difference and corrected p."""
    text = comparison_text(ROWS, ["a note"])
    assert f"B  {SPITEFUL} (3 runs, 540,000 words seen)" in text
    assert text.count(SPITEFUL) == 1
    (line,) = [line for line in text.splitlines() if line.startswith("  B")]
    assert " ".join(line.split()) == "B 0.300 [0.280, 0.330] -0.0234 [-0.0300, -0.0100] -7.2 % p 0.012"
    assert "- p is corrected for all comparisons of its table" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("  ")) <= 80


def test_a_difference_without_width_is_told_when_there_is_one() -> None:
    """That the interval of a difference has no width is explained in every table that has one, and in no other."""
    told = "has no width, all items and runs agreed on it, which does not show that others would."
    empty = row("empty", difference=0.1 + 0.2, difference_low=0.1 + 0.2, difference_high=0.3)
    for rows, shown in ((ROWS, False), ([*ROWS, empty], True)):
        for text in (comparison_text(rows, []), comparison_latex(rows), comparison_markdown(rows, [], [], {})):
            assert (told in text) == shown


def words_of(svg: str) -> str:
    """Return the text of a drawing, after checking that it is whole XML without scripts."""
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    assert "<script" not in svg
    return " ".join("".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text"))


def test_differences_are_drawn_a_panel_a_hypothesis() -> None:
    """The plot names each condition and figure, once for one likelihood; equal rows give equal bytes."""
    akshara = {
        "figure": "test.bits_per_akshara",
        "label": "test, bits an akshara",
        "difference_unit": "bits an akshara",
    }
    rows = [BASE, row("a", evidence="test"), row("b"), row("a", **akshara)]
    svg = draw_differences(rows)
    assert svg is not None
    assert svg == draw_differences(rows)
    text = words_of(svg)
    assert "test: difference in bits a byte, lower is better" in text
    share = draw_differences([row("a", label="x, accuracy, %", difference_unit="points")])
    assert "x, accuracy: difference in points, higher is better" in words_of(str(share))
    label = f"{'suite ' * 10}, macro accuracy by bits a byte, %"
    long = str(draw_differences([row("a", label=label, difference_unit="points")]))
    lines = re.findall(r"<text[^>]*>([^<]*suite[^<]*|[^<]*is better)</text>", long)
    assert len(lines) == 3  # a title has its room: nothing is cut off at the edge
    assert max(map(len, lines)) <= 58
    assert "akshara" not in text
    assert "difference to base, 95 % interval" in text
    assert draw_differences([BASE]) is None


def test_curves_are_drawn_with_their_mean() -> None:
    """Each seed has a thin line, their mean a thick one, and a long legend its own room; no point is no curve."""
    seeds = [[(1, 10.0, 4.0), (2, 20.0, 2.0), (3, 30.0, 1.0)], [(1, 12.0, 5.0), (2, 22.0, 3.0)]]
    assert mean_of_seeds(seeds) == [(1, 11.0, 4.5), (2, 21.0, 2.5)]
    runs = {"one": seeds, "<two>": [[(1, 10.0, 3.0)]]}
    more = runs | {f"condition {number}": seeds for number in range(9)}
    svg = draw_learning_curve("eval_perplexity", runs)
    assert svg is not None
    assert svg == draw_learning_curve("eval_perplexity", runs)
    text = words_of(svg)
    for told in ("Validation perplexity", "words seen", "one (mean of 2 runs)", "<two>"):
        assert told in text
    heights = [
        float(str(draw_learning_curve("loss", many)).split('height="')[1].split("pt")[0]) for many in (runs, more)
    ]
    assert heights[0] < heights[1]
    widths = [float(width) for width in re.findall(r"stroke-width: (0\.7|2)[;\"]", svg)]
    assert widths.count(0.7) >= 2
    assert draw_learning_curve("loss", {"one": [[]]}) is None


def test_a_perplexity_has_numbers_along_its_axis() -> None:
    """A logarithmic axis is labelled between the powers of ten, of which it may hold one."""
    svg = draw_learning_curve("eval_perplexity", {"one": [[(1, 10.0, 330.0), (2, 20.0, 20.0)]]})
    assert {"20", "50", "100", "200"} <= set(words_of(str(svg)).split())


@pytest.mark.parametrize("key", ["loss", "some_new_metric"])
def test_a_metric_without_a_title_has_its_name(key: str) -> None:
    """A metric that nobody has told the plots of is drawn under its key."""
    svg = draw_learning_curve(key, {"one": [[(1, 10.0, 4.0), (2, 20.0, -2.0)]]})
    assert svg is not None
    assert {"loss": "Training loss", "some_new_metric": "some new metric"}[key] in words_of(svg)
