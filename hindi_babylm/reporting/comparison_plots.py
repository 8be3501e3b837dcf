"""Plots of a comparison as static SVG: the differences with their intervals, and the learning curves of all runs."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hindi_babylm.reporting.curves import POINTS, averaged, set_log_scale

Row = Mapping[str, Any]
WIDTH, BAR_HEIGHT, CURVE_HEIGHT, LINE_HEIGHT = 7.2, 0.32, 2.8, 0.19  # inches
LABEL, NAME, TITLE = 34, 70, 58  # characters of a line of a condition's name, beside a bar and below curves; of a title
# Key of an event -> title, unit of the y axis, and whether it is logarithmic.
CURVES = {
    "loss": ("Training loss", "nats a token", False),
    "eval_loss": ("Validation loss", "nats a token", False),
    "eval_perplexity": ("Validation perplexity", "a token", True),
    "bits_per_byte": ("Validation bits a byte, of packed blocks", "bits a byte", False),
    "epoch_train_loss": ("Training loss, mean of an epoch", "nats a token", False),
    "learning_rate": ("Learning rate", "", False),
    "grad_norm": ("Gradient norm before clipping", "", True),
    "tokens_per_second": ("Throughput", "tokens a second", False),
}


def draw_differences(rows: Sequence[Row]) -> str | None:
    """Draw each difference with its 95 % interval, a panel a figure; None where nothing was compared.

    Of the figures of one likelihood the first is drawn: the others are its multiples. Equal rows give equal bytes.
    """
    compared = [row for row in rows if row["difference"] is not None and row["family"] == "figures"]
    drawn: dict[str, str] = {}
    for row in compared:
        drawn.setdefault(row["evidence"], row["figure"])
    panels = [[row for row in compared if row["figure"] == figure] for figure in drawn.values()]
    if not panels:
        return None
    titles = [textwrap.wrap(_title(panel[0]), TITLE) for panel in panels]
    heights = [
        len(panel) * max(map(_lines, panel)) + 1.4 + 0.6 * len(title)
        for panel, title in zip(panels, titles, strict=True)
    ]
    with _style("differences"):
        import matplotlib.figure

        drawing = matplotlib.figure.Figure(figsize=(WIDTH, BAR_HEIGHT * sum(heights) + 0.4), layout="constrained")
        shapes = drawing.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel, title in zip(shapes, panels, titles, strict=True):
            places = np.arange(len(panel))
            values, low, high = (
                np.array([row[name] for row in panel], dtype=np.float64)
                for name in ("difference", "difference_low", "difference_high")
            )
            axes.axvline(0, color="#888888", linewidth=1)
            # The interval of a bootstrap need not hold the value that it was drawn around.
            axes.hlines(places, low, high, color="#2b5c8a", linewidth=2)
            axes.plot(values, places, "o", color="#2b5c8a", markersize=5)
            axes.set_yticks(places, ["\n".join(_wrapped(row["condition"])) for row in panel], fontsize=9)
            axes.set_ylim(len(panel) - 0.5, -0.5)
            axes.tick_params(axis="x", labelsize=9)
            axes.set_title("\n".join(title), fontsize=10, loc="left")
            axes.grid(axis="x", alpha=0.25)
            axes.spines[["top", "right", "left"]].set_visible(False)
        baseline = textwrap.shorten(str(compared[0]["baseline"]), 70, placeholder="...")
        shapes[-1].set_xlabel(f"difference to {baseline}, 95 % interval", fontsize=9)
        return _svg(drawing)


def draw_learning_curve(key: str, runs: Mapping[str, Sequence[Sequence[tuple[float, float, float]]]]) -> str | None:
    """Draw one metric of all runs over the words seen: each seed thin, their mean thick; None without a point.

    `runs` holds, by condition, `(step, words seen, value)` of each event of each run. The mean is taken at the steps
    that every seed of a condition has reached. The same events give the same bytes.
    """
    title, unit, log = CURVES.get(key, (key.replace("_", " "), "", False))
    with _style(key):
        import matplotlib
        import matplotlib.figure
        from matplotlib.ticker import EngFormatter

        named = sum(len(_wrapped(name, NAME)) for name in runs)
        size = WIDTH, CURVE_HEIGHT + LINE_HEIGHT * named
        drawing = matplotlib.figure.Figure(figsize=size, layout="constrained")
        axes = drawing.subplots()
        drawn = []
        for place, (name, seeds) in enumerate(runs.items()):
            color = matplotlib.color_sequences["tab10"][place % 10]
            style: dict[str, Any] = {"color": color, "linestyle": ("-", "--", ":")[place // 10 % 3]}
            lines = [line for line in map(_line, seeds) if len(line[0])]
            for x, y in lines if len(lines) > 1 else ():
                axes.plot(x, y, linewidth=0.7, alpha=0.45, **style)
            x, y = _line(mean_of_seeds(seeds))
            if len(x):
                told = "\n".join(_wrapped(name, NAME)) + (f" (mean of {len(lines)} runs)" if len(lines) > 1 else "")
                axes.plot(x, y, linewidth=2, marker="o" if len(x) == 1 else None, label=told, **style)
                drawn.append(y)
        if not drawn:
            return None
        axes.set_xlabel("words seen", fontsize=9)
        axes.set_ylabel(unit, fontsize=9)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.tick_params(labelsize=9)
        axes.set_xlim(left=0)
        axes.set_title(title, fontsize=10, loc="left")
        if log and all((y > 0).all() for y in drawn):
            set_log_scale(axes)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        # Beside the curves, not over them: names are long, and curves fill the corners.
        drawing.legend(loc="outside lower left", fontsize=9, frameon=False)
        return _svg(drawing)


def mean_of_seeds(seeds: Sequence[Sequence[tuple[float, float, float]]]) -> list[tuple[float, float, float]]:
    """Return step, words seen and value as means over the seeds, at the steps that all of them have.

    >>> mean_of_seeds([[(1, 10, 4.0), (2, 20, 2.0)], [(1, 12, 5.0)]])
    [(1, 11.0, 4.5)]
    """
    by_step = [{step: (words, value) for step, words, value in seed} for seed in seeds if seed]
    shared = [step for step in (by_step[0] if by_step else {}) if all(step in seed for seed in by_step)]
    means = [np.mean([seed[step] for seed in by_step], axis=0).tolist() for step in shared]
    return [(step, words, value) for step, (words, value) in zip(shared, means, strict=True)]


def _line(points: Sequence[tuple[float, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([point[1:] for point in points], dtype=np.float64).reshape(-1, 2)
    return averaged(values[:, 0], values[:, 1], points=POINTS)


def _title(row: Row) -> str:
    better = "higher" if row["difference_unit"] == "points" else "lower"
    return f"{row['label'].rsplit(', ', 1)[0]}: difference in {row['difference_unit']}, {better} is better"


def _wrapped(name: str, width: int = LABEL) -> list[str]:
    return textwrap.wrap(name, width, max_lines=3, placeholder="...") or [""]


def _lines(row: Row) -> float:
    return math.ceil(0.6 * len(_wrapped(row["condition"])))


def _style(salt: str) -> Any:
    import matplotlib

    # Text stays text; the same salt gives the same names of parts.
    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"})


def _svg(drawing: Any) -> str:
    file = io.StringIO()
    drawing.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return file.getvalue()
