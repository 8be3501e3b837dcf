"""What a person sees while a run goes on: lines, warnings, bars; plain lines where there is no terminal."""

import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
# TrainingArguments.log_level -> what is printed while a run goes on: 2 lines and bars, 1 warnings alone, 0 nothing.
LEVELS = {"passive": 2, "debug": 2, "info": 2, "warning": 1, "error": 0, "critical": 0}
BOLD, YELLOW = "1", "33"
_level = LEVELS["passive"]


def set_level(name: str) -> None:
    """Print from now on what `log_level` asks for, one of `LEVELS`."""
    global _level
    _level = LEVELS[name]


def say(line: str, *, heading: bool = False) -> None:
    """Print a line on stdout at once, without tearing a bar; on a terminal it is `fitted`."""
    if _level == 2:
        line = fitted(line)
        _print(_styled(line, BOLD, sys.stdout) if heading else line, sys.stdout)


def show(text: str) -> None:
    """Print what a command was called for, on stdout, whatever the level; on a terminal each line is `fitted`."""
    _print("\n".join(map(fitted, text.split("\n"))), sys.stdout)


def warn(text: str) -> None:
    """Print `Warning: ...` on stderr at once, without tearing a bar."""
    if _level >= 1:
        _print(f"{_styled('Warning:', YELLOW, sys.stderr)} {text}", sys.stderr)


def shows_bars() -> bool:
    """Tell whether progress is shown as bars on stderr, which takes a terminal."""
    return _level == 2 and sys.stderr.isatty()


def bar(description: str, total: int | None, *, unit: str = "it", initial: int = 0) -> "tqdm[Any]":
    """Return a progress bar on stderr, as wide as the terminal; without a terminal it stays silent."""
    settings: dict[str, Any] = {"disable": not shows_bars(), "dynamic_ncols": True}
    return tqdm(total=total, initial=initial, desc=shortened(description, _columns() // 2), unit=unit, **settings)


@contextmanager
def stage(description: str, total: int, unit: str) -> "Iterator[tqdm[Any]]":
    """Yield the bar of a stage over `total` units; without a terminal its end is a line with size and duration."""
    started = time.monotonic()
    with bar(description, total, unit=f" {unit}") as progress:
        yield progress
    tell_end(description, f"{total:,} {unit}", started)


def track(items: Sequence[Item], description: str, unit: str) -> Iterator[Item]:
    """Yield the items of a stage one by one under its bar."""
    with stage(description, len(items), unit) as progress:
        for item in items:
            yield item
            progress.update()


def tell_end(description: str, size: str, started: float) -> None:
    """Print the line of a stage that began at `started` of the monotonic clock, where no bar has shown it."""
    if not shows_bars():
        say(f"{description}: {size}, {duration(time.monotonic() - started)}")


def fitted(line: str) -> str:
    """Return a line `shortened` to the terminal's width; a log has it whole."""
    return shortened(line, _columns()) if sys.stdout.isatty() else line


def shortened(line: str, columns: int) -> str:
    """Return a line with its longest path cut in the middle, as far as `columns` ask for it; at least 16 stay.

    >>> shortened("Model: runs/a-folder-with-a-long-name/final_model", 40)
    'Model: runs/a-fol...ong-name/final_model'
    """
    path = max((word for word in line.split() if os.sep in word), key=len, default="")
    keep = max(16, len(path) - (len(line) - columns) - 3)
    if len(line) <= columns or keep + 3 >= len(path):
        return line
    return line.replace(path, f"{path[: keep // 3]}...{path[keep // 3 - keep :]}", 1)


def _columns() -> int:
    return shutil.get_terminal_size().columns


def duration(seconds: float) -> str:
    """Return a time as a person reads it.

    >>> duration(3.21), duration(245), duration(4000), duration(36000)
    ('3.2 s', '245 s', '66.7 min', '10.0 h')
    """
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def quiet_warnings() -> None:
    """Silence by name what libraries say and a user can do nothing about: `SILENCED`."""
    for message in SILENCED:
        warnings.filterwarnings("ignore", message=message)


def quiet_bars() -> None:
    """Silence the bars of libraries that would stand beside ours."""
    import datasets
    import huggingface_hub.utils
    import transformers

    transformers.utils.logging.disable_progress_bar()  # of saving and loading weights: a second each
    if not shows_bars():
        datasets.disable_progress_bars()
        huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]  # of its public listing


def _print(text: str, stream: Any) -> None:
    try:
        tqdm.write(text, file=stream)
        stream.flush()  # the log of a cluster shows it while the run goes on
    except BrokenPipeError:  # `... | head` has read enough: the command goes on for nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _styled(text: str, code: str, stream: Any) -> str:
    """Return `text` in a style where `stream` is a terminal that has them and NO_COLOR (no-color.org) is not set."""
    plain = not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


# Beginning of a library's warning, as a regular expression -> why nobody needs to see it.
SILENCED = {
    "`gradient_checkpointing` is deprecated": "the specification's name, which each supported version takes",
    r"barrier\(\): using the device under current context": "the device is the process's own; accelerate calls it",
    r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`": "fp16 skips steps until its scale fits",
}
