"""Several processes train as one does."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hindi_babylm.modeling import KEEP_DOCUMENTS_APART
from hindi_babylm.run import main
from hindi_babylm.storage import read_json
from tests.conftest import hindi_sentences
from tests.runs import (
    EVERY_OTHER_STEP,
    ROOT,
    assert_equal_runs,
    back_to,
    command,
    environment,
    events_of,
    finish,
    moved,
    results_of,
)

WriteRecipe = Callable[..., Path]


def command_lines(pid: int) -> list[list[str]]:
    """Return the words of a process and of all that it has started."""
    parents, words = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words[int(path.name)] = (path / "cmdline").read_text(encoding="utf-8").split("\0")
            parents[int(path.name)] = int((path / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
    family = {pid}
    while more := {own for own, parent in parents.items() if parent in family} - family:
        family |= more
    return [words[own] for own in family if own in words]


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
@pytest.mark.parametrize("architecture", ["gpt2", "deberta-v2"])
def test_two_processes_give_the_losses_of_one(write_recipe: WriteRecipe, architecture: str) -> None:
    """Two processes of 4 rows give the losses, the evaluation and the word counts of one process of 8."""
    document_attention = architecture in KEEP_DOCUMENTS_APART
    recipe = write_recipe(
        architecture=architecture,
        num_train_epochs=2,
        ema_decay=0.9,
        repack=True,
        document_attention=document_attention,
    )
    main([str(recipe)])
    finish(moved(recipe, "two"), processes=2)
    one, two = events_of(recipe.parent / "run"), events_of(recipe.parent / "two")
    assert [event["step"] for event in one] == [event["step"] for event in two]
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            tolerance = 1e-6 if name == "eval_loss" else 1e-4 if name in ("grad_norm", "eval_perplexity") else 1e-5
            assert second[name] == pytest.approx(value, abs=tolerance), (name, first, second)


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
@pytest.mark.parametrize(
    ("architecture", "curriculum", "pacing", "epochs"),
    [
        pytest.param("gpt2", "none", "staged", 3, marks=pytest.mark.slow),
        pytest.param("gpt2", "length", "staged", 3, marks=pytest.mark.slow),
        ("gpt2", "lexical", "competence", 3),
        pytest.param("gpt2", "morphology", "cumulative", 6, marks=pytest.mark.slow),
        ("deberta-v2", "length", "staged", 3),
    ],
)
def test_two_processes_train_on_the_rows_of_one(
    write_recipe: WriteRecipe,
    block_log: dict[int, list[str]],
    architecture: str,
    curriculum: str,
    pacing: str,
    epochs: int,
) -> None:
    """At every step two processes see together the rows that one sees, masked alike, each as often, in every epoch."""
    paced = {"curriculum": curriculum, "pacing": pacing, "num_train_epochs": epochs}
    recipe = write_recipe(architecture=architecture, **paced, eval_strategy="no", save_strategy="no")
    main([str(recipe)])
    content = json.loads(moved(recipe, "two").read_text(encoding="utf-8"))
    content["training"]["use_cpu"] = True
    copy = recipe.with_name("two.json")
    copy.write_text(json.dumps(content), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "tests.logged_run", str(copy), str(recipe.parent / "rows")],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((recipe.parent / f"rows-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    padding = set()
    for step, rows in block_log.items():
        together = ranks[0][str(step)] + ranks[1][str(step)]
        extra = sorted(set(together) - set(rows))
        padding.update(extra)
        assert sorted(row for row in together if row not in extra) == sorted(rows), f"step {step}"
    assert len(padding) == 1, "rows that fill up an epoch are all one and the same"
    assert len(block_log) == len(ranks[0])


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
@pytest.mark.parametrize("architecture", ["gpt2", pytest.param("deberta-v2", marks=pytest.mark.slow)])
def test_two_processes_resume_exactly(write_recipe: WriteRecipe, architecture: str) -> None:
    """A checkpoint of two processes continues on two to the same bits, and is refused on one."""
    recipe = write_recipe(
        architecture=architecture,
        dropout=0.2,
        ema_decay=0.9,
        repack=True,
        document_attention=architecture in KEEP_DOCUMENTS_APART,
        num_train_epochs=2,
        **EVERY_OTHER_STEP,
        save_total_limit=50,
    )
    finish(recipe, processes=2)
    back_to(recipe.parent / "run", recipe.parent / "again", 4)
    done = subprocess.run(
        command(recipe.parent / "again" / "recipe.json"),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 2
    assert "was written by 2 processes and cannot be continued exactly by 1: start 2" in done.stderr
    recipe = recipe.parent / "again" / "recipe.json"
    finish(recipe, processes=2)
    assert_equal_runs(recipe.parent.parent / "run", recipe.parent)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_one_process_fine_tunes_for_all(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    """A run of two processes fine-tunes as one process does from its model, and none waits for it meanwhile."""
    folder = tmp_path / "toy"
    folder.mkdir()
    for split, count in {"train": 32, "dev": 4, "test": 40}.items():
        rows = [f"{('फल', 'जल')[n % 2]} {hindi_sentences(1, seed=count + n)}\t{n % 2}" for n in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]), encoding="utf-8")
    words = [*command(write_recipe(max_steps=4), processes=2), "--tasks", str(folder)]
    surroundings: Any = {"env": environment(OMP_NUM_THREADS="2"), "cwd": ROOT}  # of 1 a run on a CPU makes more
    alone, log, end = False, tmp_path / "log", time.monotonic() + 400
    with (
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(words, stdout=file, stderr=file, **surroundings) as job,
    ):
        while job.poll() is None and time.monotonic() < end:
            lines = command_lines(job.pid)
            if any("hindi_babylm.evaluation.classifier" in line for line in lines):
                alone = alone or sum("hindi_babylm.run" in line for line in lines) == 2  # the launcher is one of them
            time.sleep(0.2)
        job.terminate()  # the launcher ends its processes
    assert job.returncode == 0, log.read_text(encoding="utf-8")
    assert alone, "the other process was there to the end"
    run = tmp_path / "run"
    again = [sys.executable, "-m", "hindi_babylm", "evaluate", str(run), "--tasks", str(folder)]
    done = subprocess.run(again, capture_output=True, text=True, check=False, **surroundings)
    assert done.returncode == 0, done.stderr
    first, second = (path / "items" / "toy.jsonl" for path in (run, tmp_path / "run-evaluation"))
    assert first.read_bytes() == second.read_bytes()
    figures = [read_json(path.parents[1] / "results.json")["fine_tuning"]["toy"] for path in (first, second)]
    assert figures[0] == figures[1]
    predicted = [json.loads(line)["predicted"] for line in first.read_text(encoding="utf-8").splitlines()]
    assert {label for row in predicted for label in row.values()} == {"0", "1"}


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_sharded_run_uses_the_stock_checkpoints(write_recipe: WriteRecipe) -> None:
    """Under FSDP the log says that checkpoints are the stock sharded folders, and the newest whole one continues."""
    recipe = write_recipe(
        dropout=0.2,
        fsdp=True,
        num_train_epochs=2,
        **EVERY_OTHER_STEP,
        save_total_limit=50,
    )
    whole, again = recipe.parent / "run", recipe.parent / "again"
    done = finish(recipe, processes=2, module="tests.fsdp_run")
    assert "under FSDP or DeepSpeed checkpoints are transformers' folders, checkpoint-{step}, and no .pt files" in (
        done.stderr
    )
    assert not (whole / "checkpoints").exists()
    steps = results_of(whole)["training"]["steps"]
    assert sorted(whole.glob("checkpoint-*")) == sorted(whole / f"checkpoint-{n}" for n in range(2, steps + 1, 2))

    shutil.copytree(whole, again)
    shutil.rmtree(again / "final_model")
    for name in ("results.json", "training.json"):
        (again / name).unlink()
    (again / "checkpoint-8" / "trainer_state.json").write_text("{", encoding="utf-8")
    for step in range(10, steps + 1, 2):
        shutil.rmtree(again / f"checkpoint-{step}")
    done = finish(moved(recipe, "again"), processes=2, module="tests.fsdp_run")
    assert f"passed over {again / 'checkpoint-8'}: not written to its end" in done.stderr
    assert f"Resuming from {again / 'checkpoint-6'}" in done.stdout
    assert_equal_runs(whole, again)
    seconds = [json.loads((whole / "checkpoint-6" / "hindi_babylm.json").read_text(encoding="utf-8"))["seconds"]]
    seconds.append(json.loads((again / "results.json").read_text(encoding="utf-8"))["training"]["seconds"])
    assert 0 < seconds[0] < seconds[1]
