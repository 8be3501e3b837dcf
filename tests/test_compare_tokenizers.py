import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.commands.compare_tokenizers import main
from hindi_babylm.orthography import count_words
from hindi_babylm.preparation import read_corpus
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.tokenization.algorithms import TOKENIZERS
from hindi_babylm.tokenization.comparison import (
    FIGURES,
    compare_tokenizers,
    comparison_markdown,
    comparison_table,
    plot_comparison,
)
from hindi_babylm.tokenization.report import tokenizer_report, unigram_bits_per_byte
from hindi_babylm.tokenization.training import train_tokenizer
from tests.test_tokenization import TEXTS, trained

WriteRecipe = Callable[..., Path]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def test_rows_have_the_figures_of_the_report() -> None:
    """Each row holds what the measures say of that tokenizer, trained on the one part and measured on the other."""
    rows = compare_tokenizers(TEXTS[10:], TEXTS[:10], algorithms=["bpe", "unigram"], vocab_sizes=[560, 530, 560])
    assert [(row["name"], row["vocab_size"]) for row in rows] == [
        *(("bpe", 530), ("bpe", 560)),
        *(("unigram", 530), ("unigram", 560)),
    ]
    for row in rows:
        tokenizer = train_tokenizer(TEXTS[10:], algorithm=row["name"], vocab_size=row["vocab_size"])
        expected = tokenizer_report(tokenizer, TEXTS[:10])
        assert {name: row[name] for name in expected} == expected
        assert row["unigram_bits_per_byte"] == unigram_bits_per_byte(tokenizer, TEXTS[10:], TEXTS[:10])
        assert row["vocabulary"] == len(tokenizer)
        assert row["train_seconds"] > 0
        assert row["encode_megabytes_per_second"] > 0
        assert set(FIGURES) | {"name", "vocab_size"} == set(row)


def test_sizes_that_would_repeat_a_tokenizer_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """An algorithm that has taken all that the text gives is not trained again for a larger vocabulary."""
    rows = compare_tokenizers(TEXTS, TEXTS, algorithms=["character"], vocab_sizes=[1000, 600, 800])
    assert [row["vocab_size"] for row in rows] == [600]
    size = rows[0]["vocabulary"]
    assert (
        f"character: {size:,} tokens are all that the text gives; larger sizes are left out" in capsys.readouterr().out
    )


def row_of(name: str, **figures: Any) -> dict[str, Any]:
    """Return a row with the widest figures that occur."""
    widest = {
        **{"vocabulary": 256_000, "tokens_per_word": 12.345, "bytes_per_token": 12.345, "cuts_in_aksharas": 0.98765},
        **{"unknown": 0.9876, "round_trip": 1.0, "vocabulary_used": 1.0, "unigram_bits_per_byte": 1.23456},
        **{"train_seconds": 999.94, "encode_megabytes_per_second": 99.94},
    }
    return {"name": name, "vocab_size": 1, **widest, **figures}


def test_the_table_fits_80_columns_and_shows_the_rows() -> None:
    """Every line has at most 80 columns with the widest figures, each number in its place; columns never touch."""
    names = [*TOKENIZERS, "some/long/path/to/an-existing-tokenizer"]
    rows = [row_of(name) for name in names] + [row_of("other", train_seconds=None)]
    lines = comparison_table(rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == [
        *("bpe", "256,000", "12.345", "12.35", "98.77", "98.76", "100.0", "100.0", "1.235", "999.9", "99.9"),
    ]
    assert lines[-2].split()[0] == "...ing-tokenizer"
    assert lines[-1].split()[-2] == "-"
    assert all(len(line.split()) == len(FIGURES) + 1 for line in lines[1:])


def test_the_markdown_has_a_column_a_figure() -> None:
    """The table of Markdown has full names, a heading a figure, and the same cells."""
    lines = comparison_markdown([row_of("a/very/long/name/of/a/tokenizer")]).splitlines()
    assert [line.count(" | ") for line in lines] == [len(FIGURES)] * 3
    assert lines[2].startswith("| a/very/long/name/of/a/tokenizer | 256,000 | 12.345 |")


def test_the_plot_is_a_static_file_with_a_line_a_tokenizer(tmp_path: Path) -> None:
    """The SVG is whole XML without scripts, names every tokenizer, and is the same for the same rows."""
    rows = [row_of(name, vocabulary=size) for name in TOKENIZERS for size in (1000, 2000)]
    plot_comparison(rows, tmp_path / "one.svg")
    plot_comparison(rows, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "<script" not in text
    words = {"".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")}
    assert set(TOKENIZERS) <= words
    assert {FIGURES["tokens_per_word"].meaning, FIGURES["cuts_in_aksharas"].meaning} <= words


def test_the_command_writes_table_json_markdown_and_plot(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """The train split trains, the validation split is measured; the files hold the rows, the screen the table."""
    trained("bpe").save_pretrained("mine")
    recipe = write_recipe()
    words = [str(recipe), "--algorithms", "bpe", "character", "--vocab_sizes", "512", "--tokenizers", "mine", "--plot"]
    main([*words, "--validation_fraction", "0.3"])
    folder = Path("runs/tiny-tokenizers")
    assert sorted(path.name for path in folder.iterdir()) == ["comparison.json", "comparison.md", "comparison.svg"]
    record = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    splits, _ = read_corpus(parse_recipe(recipe, ["--validation_fraction", "0.3"]))
    assert record["corpus"]["validation_fraction"] == 0.3
    assert record["words"] == {name: sum(map(count_words, splits[name]["text"])) for name in ("train", "validation")}
    captured = capsys.readouterr()
    rows = record["tokenizers"]
    assert [row["name"] for row in rows] == ["mine", "bpe", "character"]
    for row, tokenizer in zip(rows, [trained("bpe"), None, None], strict=True):
        if tokenizer is None:
            tokenizer = train_tokenizer(splits["train"]["text"], algorithm=row["name"], vocab_size=512)
        expected = tokenizer_report(tokenizer, splits["validation"]["text"])
        assert {name: row[name] for name in expected} == expected
    assert comparison_table(rows) in captured.out
    assert [line for line in captured.out.splitlines() if line.startswith("runs/")] == [
        f"{folder}/comparison.{name}" for name in ("json", "md", "svg")
    ]
    assert captured.err == ""
    document = (folder / "comparison.md").read_text(encoding="utf-8")
    assert comparison_markdown(rows) in document
    assert "(comparison.svg)" in document
    assert f"Trained on {record['words']['train']:,} words" in document


def test_defaults_are_every_algorithm_at_the_size_of_the_recipe(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without flags all algorithms are trained at `vocab_size`, with the recipe's own tokenizer, and no plot."""
    trained("bpe").save_pretrained("mine")
    path = write_recipe()
    recipe = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**recipe, "tokenizer": {"tokenizer": "mine"}}), encoding="utf-8")
    asked: dict[str, Any] = {}

    def compare(train: Any, texts: Any, **settings: Any) -> list[dict[str, Any]]:
        asked.update(settings)
        return [row_of("mine")]

    monkeypatch.setattr("hindi_babylm.commands.compare_tokenizers.compare_tokenizers", compare)
    main([str(path), "--output_dir", "here"])
    assert asked == {"algorithms": list(TOKENIZERS), "vocab_sizes": [32_000], "tokenizers": ["mine"]}
    assert sorted(path.name for path in Path("here").iterdir()) == ["comparison.json", "comparison.md"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--algorithms", "bpee"], "command line: --algorithms bpee: unknown; did you mean 'bpe'?"),
        (["--algorithms"], "command line: --algorithms: expected one or more values (see --help)"),
        (["--vocab_sizes", "511"], "command line: --vocab_sizes 511: expected whole numbers of at least 512"),
        (["--vocab_sizes", "1e4"], "command line: --vocab_sizes 1e4: expected whole numbers of at least 512"),
        (["--vocab_sizes", "-5"], "command line: --vocab_sizes -5: expected whole numbers of at least 512"),
        (
            ["--vocab_size", "600"],
            "command line: --vocab_size: compare-tokenizers has no such flag; did you mean 'vocab_sizes'?",
        ),
        (["--plot", "yes"], "command line: --plot takes no value, got yes"),
        (["--output_dir", "a", "b"], "command line: --output_dir: expected one folder, got 2"),
        (["--max_words", "x"], 'command line: --max_words = "x": expected a whole number or null'),
        (["--output_dir", "taken"], "taken cannot be written: File exists: choose another --output_dir"),
        (["stray"], "command line: unexpected 'stray'; flags are written --key value"),
        (["--plot", "--plot"], "command line: --plot is given twice; keep one"),
    ],
    ids=" ".join,
)
def test_bad_flags_are_refused_in_one_line(
    words: list[str], message: str, write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong ends the command with exit code 2, one line, and nothing written."""
    Path("taken").touch()
    path = write_recipe()
    before = set(Path().iterdir())
    with pytest.raises(SystemExit) as stopped:
        main([str(path), *words])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert set(Path().iterdir()) == before


def test_no_recipe_and_a_missing_tokenizer(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a recipe the command says how it is called; a tokenizer that cannot be opened is named."""
    for words, start in (
        ([], "error: no recipe: hindi-babylm compare-tokenizers"),
        (["--plot"], "error: no recipe: hindi-babylm compare-tokenizers"),
        ([str(write_recipe()), "--tokenizers", "not/there"], "error: tokenizer: cannot open 'not/there'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(start)
        assert len(error.splitlines()) == 1


def test_the_help_names_everything_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names each algorithm, flag and column, and fits a terminal of 80 columns."""
    main(["--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for name in (*TOKENIZERS, "--algorithms", "--vocab_sizes", "--tokenizers", "--plot", "--output_dir", "--corpus"):
        assert name in text
    assert all(figure.meaning in text for figure in FIGURES.values())


def test_a_signal_is_told(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted comparison ends with exit code 75 and says so."""

    def interrupted(*args: Any, **settings: Any) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("hindi_babylm.commands.compare_tokenizers.compare_tokenizers", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main([str(write_recipe())])
    assert stopped.value.code == 75
    assert capsys.readouterr().out.splitlines()[-1] == "Interrupted."
