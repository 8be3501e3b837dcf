"""The curves of a run as SVG: what each step and each evaluation showed, over the words seen."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

POINTS = 600  # of a curve; more steps are averaged into so many
SIZE = (4.8, 2.7)  # inches: text of 10 points stays readable when the width is that of a phone
TRAIN, EVALUATION = "#4a80b5", "#b5432a"


class Curve(NamedTuple):
    """A drawing: its title, what it says in words for those who cannot see it, the SVG element, and a remark."""

    title: str
    description: str
    svg: str
    note: str = ""


def draw_curves(events: Sequence[Mapping[str, Any]], *, masked: bool = False) -> list[Curve]:
    """Draw loss, validation perplexity, learning rate, gradient norm and throughput of the events of `metrics.jsonl`.

    The same events give the same bytes. A run without evaluations has no curve of perplexity. The curves of a masked
    model are those of the masked tokens, and say so. The throughput of several steps drawn as one is their tokens
    over their time, where they have equally many tokens.
    """
    token = "a masked token" if masked else "a token"
    steps = [event for event in events if "loss" in event]
    evaluations = [event for event in events if "eval_loss" in event]
    timed = [event for event in steps if "tokens_per_second" in event]
    curves = [
        _draw("Loss", f"nats {token}", {"train": (steps, "loss"), "validation": (evaluations, "eval_loss")}),
        _draw("Validation perplexity", f"of {token}", {"validation": (evaluations, "eval_perplexity")}, log=True),
        _draw("Learning rate", "", {"train": (steps, "learning_rate")}),
        _draw("Gradient norm before clipping", "", {"train": (steps, "grad_norm")}, log=True),
        _draw("Throughput", "tokens a second", {"train": (timed, "tokens_per_second")}, rate=True),
    ]
    return [curve for curve in curves if curve is not None]


def averaged(x: np.ndarray, y: np.ndarray, *, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `points` means of neighbours in both, in order; what is not finite stays out of them.

    >>> x, y = averaged(np.arange(6.0), np.array([1.0, 3.0, 5.0, 7.0, np.nan, 9.0]), points=3)
    >>> print(x, y)
    [0.5 2.5 5. ] [2. 6. 9.]
    """
    points = max(1, min(points, len(x)))
    groups = zip(np.array_split(x, points), np.array_split(y, points), strict=True)
    kept = [(a[np.isfinite(b)], b[np.isfinite(b)]) for a, b in groups]
    means = np.array([(a.mean(), b.mean()) for a, b in kept if len(b)]).reshape(-1, 2)
    return means[:, 0], means[:, 1]


def set_log_scale(axes: Any) -> None:
    """Make the y axis of drawn lines logarithmic, with plain numbers along it."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 10 * low:  # there may be no power of ten to label
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_minor_locator(NullLocator())
    elif high < 1000 * low:  # or too few of them
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _draw(
    title: str,
    unit: str,
    lines: Mapping[str, tuple[Sequence[Mapping[str, Any]], str]],
    *,
    log: bool = False,
    rate: bool = False,
) -> Curve | None:
    """Draw lines over the words seen, or over steps where words were not counted; None without a point.

    A `rate` of steps has a harmonic mean, and its axis begins at 0.
    """
    import matplotlib
    import matplotlib.figure
    from matplotlib.ticker import EngFormatter

    over = "words_seen" if all("words_seen" in event for events, _ in lines.values() for event in events) else "step"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        drawing = matplotlib.figure.Figure(figsize=SIZE, layout="constrained")
        axes = drawing.subplots()
        told = []
        for name, (events, key) in lines.items():
            values = np.array([(event[over], event[key]) for event in events], dtype=np.float64).reshape(-1, 2)
            x, y = averaged(values[:, 0], 1 / values[:, 1] if rate else values[:, 1], points=POINTS)
            y = 1 / y if rate else y
            if not len(y) or (log and (y <= 0).any()):
                continue
            style: dict[str, Any] = (
                {"color": EVALUATION, "marker": "o", "markersize": 3} if name == "validation" else {"color": TRAIN}
            )
            axes.plot(x, y, label=name, linewidth=1.6, **({"marker": "o"} if len(y) == 1 else {}) | style)
            told.append(f"{name} from {y[0]:.4g} to {y[-1]:.4g}")
        if not told:
            return None
        axes.set_xlabel("words seen" if over == "words_seen" else "steps", fontsize=10)
        axes.set_ylabel(unit, fontsize=10)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.tick_params(labelsize=10)
        axes.set_xlim(left=0)
        if rate:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        if log:
            set_log_scale(axes)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(told) > 1:
            axes.legend(fontsize=10, frameon=False)
        file = io.StringIO()
        drawing.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # The element scales with the page; its own size is only its shape.
    for name in ("width", "height"):
        svg = re.sub(rf'(<svg[^>]*?) {name}="[^"]*"', r"\1", svg, count=1)
    description = f"{title} over {over.replace('_', ' ')}: {'; '.join(told)}"
    return Curve(
        title,
        description,
        svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1),
        "of the steps alone, without evaluations and checkpoints" if rate else "",
    )
