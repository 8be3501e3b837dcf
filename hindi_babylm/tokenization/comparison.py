"""Train tokenizers on the same texts and measure them side by side: rows, a table, a plot."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hindi_babylm.console import say
from hindi_babylm.orthography import count_bytes
from hindi_babylm.storage import write_atomically
from hindi_babylm.tokenization.report import encode, tokenizer_report, unigram_bits_per_byte
from hindi_babylm.tokenization.training import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Row = dict[str, Any]


class Figure(NamedTuple):
    """How a figure is shown: the two lines over it in the table, its meaning, its factor and decimals."""

    head: tuple[str, str]
    meaning: str
    factor: int = 1
    decimals: int = 2


FIGURES = {
    "vocabulary": Figure(("vocab", "size"), "tokens of the vocabulary", decimals=0),
    "tokens_per_word": Figure(("tok/", "word"), "tokens a word", decimals=3),
    "bytes_per_token": Figure(("bytes", "/tok"), "bytes a token"),
    "cuts_in_aksharas": Figure(("cuts", "ak.%"), "cuts in aksharas, % of the boundaries", 100),
    "unknown": Figure(("unk", "%"), "unknown tokens, %", 100),
    "round_trip": Figure(("whole", "%"), "documents that come back whole, %", 100, 1),
    "vocabulary_used": Figure(("used", "%"), "vocabulary used, %", 100, 1),
    "unigram_bits_per_byte": Figure(("bits/", "byte"), "bits per byte of a unigram", decimals=3),
    "train_seconds": Figure(("train", "s"), "training, s", decimals=1),
    "encode_megabytes_per_second": Figure(("enc.", "MB/s"), "encoding, MB/s", decimals=1),
}
NAME_WIDTH = 17


def compare_tokenizers(
    train: Sequence[str],
    texts: Sequence[str],
    *,
    algorithms: Sequence[str] = (),
    vocab_sizes: Sequence[int] = (),
    tokenizers: Sequence[str] = (),
) -> list[Row]:
    """Train each algorithm at each size on `train`, and measure it and the existing `tokenizers` on unseen `texts`.

    A row has the name, the figures of `FIGURES`, and `vocab_size` as it was asked for. Once a text gives an
    algorithm no more tokens, larger sizes would repeat the tokenizer and are left out.

    >>> rows = compare_tokenizers(["राम घर गया"] * 9, ["राम घर गई"], algorithms=["bpe"], vocab_sizes=[512, 600])
    >>> print([(row["name"], row["vocabulary"], row["unknown"]) for row in rows])
    [('bpe', 274, 0.0)]
    """
    rows = []
    for name in tokenizers:
        say(f"{name}:")
        rows.append(
            {"name": name, "vocab_size": None, "train_seconds": None, **_measured(load_tokenizer(name), train, texts)}
        )
    for algorithm in algorithms:
        for size in sorted(set(vocab_sizes)):
            say(f"{algorithm}, {size:,} tokens:")
            started = time.monotonic()
            tokenizer = train_tokenizer(train, algorithm=algorithm, vocab_size=size)
            seconds = time.monotonic() - started
            rows.append(
                {"name": algorithm, "vocab_size": size, "train_seconds": seconds, **_measured(tokenizer, train, texts)}
            )
            if len(tokenizer) < size:
                say(f"{algorithm}: {len(tokenizer):,} tokens are all that the text gives; larger sizes are left out")
                break
    return rows


def _measured(tokenizer: "PreTrainedTokenizerFast", train: Sequence[str], texts: Sequence[str]) -> Row:
    started = time.monotonic()
    deque(encode(tokenizer, texts), maxlen=0)
    seconds = time.monotonic() - started
    return {
        "vocabulary": len(tokenizer),
        **tokenizer_report(tokenizer, texts),
        "unigram_bits_per_byte": unigram_bits_per_byte(tokenizer, train, texts),
        "encode_megabytes_per_second": sum(map(count_bytes, texts)) / 1e6 / max(seconds, 1e-9),
    }


def comparison_table(rows: Sequence[Row]) -> str:
    """Return the rows as a table of 80 columns."""
    widths = [7, 7, *[6] * (len(FIGURES) - 2)]
    heads = [[figure.head[line] for figure in FIGURES.values()] for line in (0, 1)]
    lines: list[tuple[str, list[str]]] = [("", heads[0]), ("tokenizer", heads[1])]
    lines += [(_short(row["name"]), _shown(row)) for row in rows]
    return "\n".join(
        f"{name:<{NAME_WIDTH}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for name, cells in lines
    )


def comparison_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table of Markdown, whose columns say what they are."""
    lines = [["tokenizer", *(figure.meaning for figure in FIGURES.values())], ["---", *["---:"] * len(FIGURES)]]
    lines += [[row["name"], *_shown(row)] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(row: Mapping[str, Any]) -> list[str]:
    return [
        "-" if row[name] is None else f"{row[name] * figure.factor:,.{figure.decimals}f}"
        for name, figure in FIGURES.items()
    ]


def _short(name: str) -> str:
    """Return a name that fits its column; of a long path the end says more."""
    return name if len(name) < NAME_WIDTH else "..." + name[4 - NAME_WIDTH :]


def plot_comparison(rows: Sequence[Row], path: Path) -> None:
    """Draw tokens a word and the share of cuts in aksharas over the size of the vocabulary, as SVG."""
    import matplotlib
    import matplotlib.figure

    # Text stays text, and the same rows give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hindi_babylm"}):
        drawing = matplotlib.figure.Figure(figsize=(10, 4.5), layout="constrained")
        panels = drawing.subplots(1, 2)
        for axes, name in zip(panels, ("tokens_per_word", "cuts_in_aksharas"), strict=True):
            for (tokenizer, sizes, values), marker in zip(_lines(rows, name), cycle("osD^vP*X<>")):
                shown = [FIGURES[name].factor * value for value in values]
                axes.plot(sizes, shown, marker=marker, label=_short(tokenizer))
            axes.set(xscale="log", xlabel=FIGURES["vocabulary"].meaning, ylim=(0, None))
            axes.set_title(FIGURES[name].meaning, fontsize=9)
            axes.grid(alpha=0.3)
        drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
        with write_atomically(path) as temporary:
            drawing.savefig(temporary, format="svg", metadata={"Date": None})


def _lines(rows: Sequence[Row], figure: str) -> Iterator[tuple[str, list[int], list[float]]]:
    """Yield each tokenizer's name, its vocabularies, and the figure at each."""
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        yield name, [row["vocabulary"] for row in own], [row[figure] for row in own]
