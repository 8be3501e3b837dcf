"""The command that runs all that needs a GPU: its parts, its slices of time, its table; none of it needs one here."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import gpu
from hindi_babylm.run import main as run
from hindi_babylm.storage import read_json
from tests.runs import ROOT, results_of

WriteRecipe = Callable[..., Path]
# Ends in order when it is stopped, and is done when it is started again.
CONTINUED = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *rest: sys.exit(75))
if not pathlib.Path(sys.argv[1]).exists():
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the recipes are."""
    monkeypatch.chdir(ROOT)


def test_the_parts_are_the_tests_the_benchmarks_and_every_recipe_that_reads_no_network(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A dry run prints the command of each part and checks it; each bundled recipe has one, but for the streamed."""
    gpu.main(["--dry_run", "--folder", str(tmp_path / "gpu"), "--max_words", "1000"])
    lines = capsys.readouterr().out.splitlines()
    names = {path.stem for path in (ROOT / "recipes").glob("*.json")} - {"strict_small"}
    assert {line.split(":")[0] for line in lines} == {"tests", "document_attention", "checkpoint"} | names
    assert all("--max_words 1000" in line for line in lines if "hindi_babylm.run" in line)
    assert not (tmp_path / "gpu").exists()


def test_a_flag_that_a_recipe_does_not_take_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run ends with code 2 and the recipe's own line."""
    with pytest.raises(SystemExit) as stop:
        gpu.main(["--dry_run", "--parts", "base", "--learning_rat", "1"])
    assert stop.value.code == 2
    assert "did you mean 'learning_rate'" in capsys.readouterr().err


def test_slices_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that outlasts its slice is stopped and taken up again; one that is done, or failed, is not run twice."""
    words = [sys.executable, "-c"]
    parts = {
        "once": [*words, "print('told')"],
        "long": [*words, CONTINUED, str(tmp_path / "begun")],
        "bad": [*words, "import sys; sys.exit(3)"],
    }
    monkeypatch.setattr(gpu, "commands", lambda folder, flags: parts)
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(gpu, "SHORTEST_SECONDS", 0.0)
    codes = []
    for minutes in ("0.1", "1", "1"):
        with pytest.raises(SystemExit) as stop:
            gpu.main(["--folder", str(tmp_path / "gpu"), "--minutes", minutes])
        codes.append(stop.value.code)
    assert codes == [75, 1, 1]
    assert read_json(tmp_path / "gpu" / "done.json") == {"once": 0, "long": 0, "bad": 3}
    assert (tmp_path / "gpu" / "once.log").read_text(encoding="utf-8") == "told\n"
    assert "bad: failed (3), see bad.log" in (tmp_path / "gpu" / "gpu.md").read_text(encoding="utf-8")


def test_the_table_has_the_figures_of_a_run(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    """A recipe that is done has a row with its device, precision, sizes, peak memory and bits."""
    run([str(write_recipe(max_steps=3))])
    shutil.copytree(tmp_path / "run", tmp_path / "gpu" / "base")
    (line,) = [text for text in gpu.table(tmp_path / "gpu", {"base": 0, "large": 1}).splitlines() if "| base" in text]
    results = results_of(tmp_path / "run")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == "base"
    assert cells[2] == "fp32"
    assert cells[3] == f"{results['model']['parameters']:,}"
    assert cells[4] == "3"
    assert cells[8] == f"{results['test']['bits_per_byte']['value']:.4f}"
    peak = read_json(tmp_path / "run" / "results.json")["training"]["peak_memory_bytes"]
    assert float(cells[7]) == pytest.approx(peak / 1e9, abs=0.005)
