"""Map a function over batches on all cores, in order and in bounded memory."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

from hindi_babylm.signals import interruption_signals
from hindi_babylm.storage import UserError

Batch = TypeVar("Batch")
Result = TypeVar("Result")
AHEAD = 2  # batches in work for each worker


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[Batch], Result], batches: Iterable[Batch], *, workers: int | None
) -> Iterator[Result]:
    """Yield `function(batch)` of each batch in the order of the batches, from `workers` processes (all cores).

    At most `AHEAD` batches a worker are held. A single batch, or one worker, needs no process. Raises UserError when
    a worker is killed.
    """
    batches = iter(batches)
    first = list(islice(batches, 2))
    workers = workers or available_cores()
    if len(first) < 2 or workers == 1:
        yield from map(function, chain(first, batches))
        return
    pending: deque[Future[Result]] = deque()
    # The function goes to each worker once, with what is bound to it: that may be large.
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(function,))
    try:
        for batch in chain(first, batches):
            if len(pending) >= AHEAD * workers:
                yield pending.popleft().result()
            pending.append(pool.submit(_run, batch))
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        guard = ", or put a script's own calls under if __name__ == '__main__'"
        raise UserError(
            f"corpus: one of {workers} worker processes was killed, often for want of memory; "
            "lower preprocessing_num_workers, or ask for more memory"
            + (guard if multiprocessing.get_start_method() != "fork" else "")
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_function: Callable[[Any], Any]


def _begin(function: Callable[[Any], Any]) -> None:
    """Leave signals to the main process, and end when it has ended, however that came about."""
    global _function
    _function = function
    for number in interruption_signals():
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _run(batch: Any) -> Any:
    return _function(batch)
