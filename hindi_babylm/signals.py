"""How a command ends: by a signal, with the exit code that says so, and beside others; importable without torch."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: a run goes on when it is started again


def interruption_signals() -> list[signal.Signals]:
    """Return the signals that end a run in order; none outside of the main thread, which alone may handle them."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGUSR1") if name in signal.Signals.__members__]


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Let a signal end the block with SystemExit and `EXIT_INTERRUPTED`; a training in it has handlers of its own."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(EXIT_INTERRUPTED)

    before = {number: signal.signal(number, leave) for number in interruption_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_process() -> None:
    """End a process that is done, beside the main one of its run, without Python's teardown; the main one goes on.

    At the teardown gloo's threads may abort the process, and the launcher would end the main one with it.
    """
    if os.environ.get("RANK", "0") != "0":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
