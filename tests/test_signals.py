"""A signal from outside while a stage before or after the training is at work."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runs import ROOT, command, environment, finish
from tests.test_console import long_recipe

WriteRecipe = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Reading ", "Encoding train: ", "Scoring validation: "])
def test_a_signal_after_a_line_of_a_stage_ends_the_run_with_code_75(write_recipe: WriteRecipe, line: str) -> None:
    """SIGTERM when a stage has told its line ends the run with code 75, and the same command finishes it."""
    recipe = long_recipe(write_recipe)  # minimal pairs leave seconds between the last line and the end
    with subprocess.Popen(
        command(recipe), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), cwd=ROOT
    ) as process:
        assert process.stdout is not None
        shown = ""
        for told in process.stdout:
            shown += told
            if told.startswith(line):
                process.send_signal(signal.SIGTERM)
                break
        shown += process.stdout.read()
    assert process.returncode == 75, shown
    assert shown.endswith("Interrupted. The same command continues.\n")
    assert not (recipe.parent / "run" / "results.json").exists()
    finish(recipe)
    assert (recipe.parent / "run" / "results.json").exists()


@pytest.mark.parametrize("module", ["hindi_babylm", "hindi_babylm.run"])
@pytest.mark.parametrize("rank", [0, 1])
def test_processes_beside_the_main_one_end_without_a_teardown(module: str, rank: int) -> None:
    """What was printed is there, the exit code is 0, and Python's teardown is the main process's alone."""
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(print, 'teardown')\n"
        "sys.argv = ['x', '--help']\n"
        f"runpy.run_module('{module}', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(RANK=str(rank)), capture_output=True, text=True, check=True
    )
    assert "usage: " in done.stdout
    assert done.stdout.endswith("teardown\n") is (rank == 0)
