import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hindi_babylm.corpus.workers import AHEAD, map_in_order
from hindi_babylm.storage import UserError
from tests.runs import environment


def square(number: int) -> int:
    """Return the square, the later the smaller the number."""
    time.sleep(0.01 / (1 + number % 5))
    return number * number


def process_of(number: int) -> int:
    """Return the process that works on the number."""
    time.sleep(0.05)
    return os.getpid()


def die(number: int) -> int:
    """End as a process does that the system kills for its memory."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2, 4, None])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_results_come_in_the_order_of_the_batches(count: int, workers: int | None) -> None:
    """Any number of workers gives the results of a plain map, in its order."""
    assert list(map_in_order(square, range(count), workers=workers)) == [number**2 for number in range(count)]


def test_several_processes_work_and_one_batch_needs_none() -> None:
    """Many batches are spread over processes; a single one, or one worker, stays in this one."""
    assert len(set(map_in_order(process_of, range(12), workers=3))) > 1
    assert os.getpid() not in set(map_in_order(process_of, range(12), workers=3))
    assert set(map_in_order(process_of, range(1), workers=3)) == {os.getpid()}
    assert set(map_in_order(process_of, range(5), workers=1)) == {os.getpid()}


def test_no_more_batches_are_held_than_the_workers_need() -> None:
    """A long stream of batches is read as its results are taken, not into memory."""
    taken = 0

    def batches() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = map_in_order(functools.partial(pow, 2), batches(), workers=2)
    for done in range(1, 6):
        next(results)
        assert taken <= done + AHEAD * 2 + 1
    results.close()  # type: ignore[attr-defined]
    assert taken < 20


def test_a_killed_worker_is_told_in_one_line() -> None:
    """A worker that the system kills ends the stage with a line that says so and a way out."""
    with pytest.raises(UserError, match=r"one of 2 worker processes was killed.*lower preprocessing_num_workers"):
        list(map_in_order(die, range(20), workers=2))


def test_workers_end_with_a_killed_main_process(tmp_path: Path) -> None:
    """No worker outlives a main process that was killed in the middle."""
    program = """
import os, sys, time
from hindi_babylm.corpus.workers import map_in_order
from tests.test_workers import process_of
for pid in map_in_order(process_of, range(10_000), workers=3):
    print(pid, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    workers = {int(process.stdout.readline()) for _ in range(9)}
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(is_running(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not a zombie that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
