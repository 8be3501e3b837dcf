"""A run that was stopped, anywhere, and continued by the same command equals one that never stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from hindi_babylm.run import main
from hindi_babylm.training.callbacks import Interruption
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.logged_run import logging_training_step

WriteRecipe = Callable[..., Path]
ROOT = Path(__file__).parent.parent
TIMES = {"seconds", "tokens_per_second", "peak_memory_bytes"}


def results_of(folder: Path) -> dict[str, Any]:
    """Return results.json without its times."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results["training"] = {name: value for name, value in results["training"].items() if name not in TIMES}
    return results


def events_of(folder: Path) -> list[dict[str, Any]]:
    """Return the events of metrics.jsonl without their speeds."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = ("runtime", "per_second")
    return [{name: v for name, v in json.loads(line).items() if not name.endswith(speeds)} for line in lines]


def assert_equal_runs(one: Path, other: Path) -> None:
    """Assert that two runs ended with the same bits and the same figures."""
    first, second = (load_file(folder / "final_model" / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert results_of(one) == results_of(other)
    assert events_of(one) == events_of(other)


def back_to(folder: Path, target: Path, step: int) -> None:
    """Copy a finished run to `target` as it would be had it been killed after writing the checkpoint of `step`."""
    shutil.copytree(folder, target)
    for path in (target / "checkpoints").glob("checkpoint_step_*.pt"):
        if int(path.stem.rsplit("_", 1)[1]) > step:
            path.unlink()
    (target / "checkpoints" / "checkpoint_best.pt").unlink()
    best = max(
        (torch.load(path, weights_only=True) for path in (target / "checkpoints").glob("*.pt")),
        key=lambda checkpoint: checkpoint["step"],
    )["trainer_state"]["best_global_step"]
    shutil.copy(target / "checkpoints" / f"checkpoint_step_{best}.pt", target / "checkpoints" / "checkpoint_best.pt")
    shutil.rmtree(target / "final_model")
    for name in ("results.json", "training.json"):
        (target / name).unlink()
    recipe = json.loads((target / "recipe.json").read_text(encoding="utf-8"))
    recipe["training"]["output_dir"] = str(target)
    (target / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")


@pytest.fixture
def block_log(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[str]]:
    """Log a hash of every row that a training step sees, by the number of completed steps."""
    log: dict[int, list[str]] = {}
    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", logging_training_step(log))
    return log


CELLS = [
    # architecture, accumulation, workers, precision, Muon: pairwise
    ("gpt2", 1, 0, "fp32", None),
    ("gpt2", 4, 2, "bf16", 0.01),
    ("gpt2", 4, 0, "fp32", 0.01),
    ("llama", 1, 2, "fp32", 0.01),
    ("llama", 4, 0, "bf16", None),
    ("llama", 4, 2, "fp32", None),
    ("gpt2", 1, 2, "bf16", None),
    ("llama", 1, 0, "bf16", 0.01),
]


@pytest.mark.parametrize(("architecture", "accumulation", "workers", "precision", "muon"), CELLS)
def test_resume_is_exact(
    write_recipe: WriteRecipe,
    block_log: dict[int, list[str]],
    architecture: str,
    accumulation: int,
    workers: int,
    precision: str,
    muon: float | None,
) -> None:
    """From the middle of an epoch, its end and the middle of a later one: same rows, same bits, same figures."""
    recipe = write_recipe(
        architecture=architecture,
        gradient_accumulation_steps=accumulation,
        dataloader_num_workers=workers,
        precision=precision,
        muon_learning_rate=muon,
        num_train_epochs=3,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=50,
        early_stopping_patience=50,
        seed=7,
    )
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["model"]["dropout"] = 0.2
    recipe.write_text(json.dumps(content), encoding="utf-8")
    main([str(recipe)])
    whole = recipe.parent / "run"
    seen = dict(block_log)
    steps = results_of(whole)["training"]["steps"]
    per_epoch = steps // 3
    assert per_epoch * 3 == steps
    assert per_epoch % 2 == 0 or per_epoch > 4, "no checkpoint near an epoch's end"
    middle, end = per_epoch // 2 // 2 * 2, per_epoch if per_epoch % 2 == 0 else 2 * per_epoch
    for step in (middle, end, 2 * per_epoch + 2):
        folder = recipe.parent / f"from-{step}"
        back_to(whole, folder, step)
        block_log.clear()
        main([str(folder / "recipe.json")])
        assert block_log == {number: rows for number, rows in seen.items() if number >= step}
        assert_equal_runs(whole, folder)


def command(recipe: Path, *, processes: int = 1) -> list[str]:
    """Return the command line of a run on `processes` processes."""
    if processes == 1:
        return [sys.executable, "-m", "hindi_babylm.run", str(recipe)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *launcher, "-m", "hindi_babylm.run", str(recipe), "--use_cpu", "true"]


def environment(**extra: str) -> dict[str, str]:
    """Return the surroundings of a subprocess: the package from this checkout, one thread a process."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | extra


def finish(recipe: Path, *, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a recipe to its end."""
    done = subprocess.run(
        command(recipe, processes=processes), capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def moved(recipe: Path, name: str) -> Path:
    """Return a copy of a recipe whose run folder is another."""
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["training"]["output_dir"] = str(recipe.parent / name)
    path = recipe.with_name(f"{name}.json")
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_two_processes_give_the_losses_of_one(write_recipe: WriteRecipe) -> None:
    """Two processes of 4 rows give the losses, the evaluation and the word counts of one process of 8."""
    recipe = write_recipe(num_train_epochs=2)
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
def test_two_processes_train_on_the_rows_of_one(write_recipe: WriteRecipe, block_log: dict[int, list[str]]) -> None:
    """At every step two processes see together the rows that one sees, each once, in every epoch."""
    recipe = write_recipe(num_train_epochs=3, eval_strategy="no", save_strategy="no")
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
def test_two_processes_resume_exactly(write_recipe: WriteRecipe) -> None:
    """A checkpoint of two processes continues on two to the same bits, and is refused on one."""
    recipe = write_recipe(
        num_train_epochs=2,
        save_strategy="steps",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        save_total_limit=50,
    )
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["model"]["dropout"] = 0.2
    recipe.write_text(json.dumps(content), encoding="utf-8")
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


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signal_writes_a_checkpoint_and_the_same_command_continues(write_recipe: WriteRecipe, name: str) -> None:
    """A signal ends the run after its step with code 75 and a checkpoint, from which it goes on exactly."""
    recipe = write_recipe(num_train_epochs=40, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    main([str(recipe)])
    copy = moved(recipe, "stopped")
    process = subprocess.Popen(
        command(copy), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    metrics = recipe.parent / "stopped" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "the same command continues" in output
    (checkpoint,) = (recipe.parent / "stopped" / "checkpoints").glob("checkpoint_step_*.pt")
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < step < results_of(recipe.parent / "run")["training"]["steps"]
    again = finish(copy)
    assert f"Resuming from {checkpoint}" in again.stdout
    assert_equal_runs(recipe.parent / "run", recipe.parent / "stopped")


def signalling_at(stop: int) -> Callable[..., None]:
    """Return an `on_step_end` during which a signal arrives after step `stop`."""
    original = Interruption.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        if state.global_step == stop:
            os.kill(os.getpid(), signal.SIGUSR1)
        original(self, args, state, *rest, **kwargs)

    return on_step_end


def test_signal_in_an_epoch_costs_nothing_with_the_default_strategies(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle and at the end of epochs, a run with evaluations and patience goes on exactly."""
    recipe = write_recipe(num_train_epochs=4, early_stopping_patience=2, learning_rate=0.3)
    main([str(recipe)])
    steps = results_of(recipe.parent / "run")["training"]["steps"]
    for stop in (4, 9, 13):
        copy = moved(recipe, f"stopped-{stop}")
        with monkeypatch.context() as patch:
            patch.setattr(Interruption, "on_step_end", signalling_at(stop))
            with pytest.raises(SystemExit) as ended:
                main([str(copy)])
        assert ended.value.code == 75
        assert stop < steps
        main([str(copy)])
        assert_equal_runs(recipe.parent / "run", recipe.parent / f"stopped-{stop}")


def test_folder_in_use_is_refused(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A second process on a run folder that is being written is refused in one line."""
    from hindi_babylm.storage import RunFolder

    recipe = write_recipe()
    with RunFolder(recipe.parent / "run").locked(), pytest.raises(SystemExit) as stop:
        main([str(recipe)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {recipe.parent / 'run'} is in use by another process: ")
    assert not (recipe.parent / "run").exists()


def test_named_checkpoint_of_another_recipe_is_refused(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint would bring its own schedule and rates along: another recipe's is refused with the keys."""
    recipe = write_recipe(save_strategy="steps", save_steps=4, eval_strategy="steps", eval_steps=4)
    main([str(recipe)])
    checkpoint = recipe.parent / "run" / "checkpoints" / "checkpoint_best.pt"
    with pytest.raises(SystemExit):
        main([str(moved(recipe, "other")), "--learning_rate", "0.5", "--resume_from_checkpoint", str(checkpoint)])
    assert "of another recipe (it differs in training.learning_rate)" in capsys.readouterr().err


def kill_and_finish(recipe: Path, *, kills: int, processes: int, seed: int) -> None:
    """Kill a run at random moments of its life, each time going on with the same command, and let it finish."""
    draw = random.Random(seed)
    started = time.monotonic()
    finish(recipe, processes=processes)
    life = time.monotonic() - started
    copy = moved(recipe, "killed")
    for _ in range(kills):
        process = subprocess.Popen(
            command(copy, processes=processes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        try:
            process.wait(timeout=draw.uniform(0.3, 1.0) * life)
            break  # the machine was faster this time: the run is finished
        except subprocess.TimeoutExpired:
            ranks = psutil.Process(process.pid).children()
            if ranks:
                draw.choice(ranks).kill()  # one rank alone: the launcher ends the other
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finish(copy, processes=processes)
    assert_equal_runs(recipe.parent / "run", recipe.parent / "killed")


def killed_recipe(write_recipe: WriteRecipe, architecture: str) -> Path:
    """Return a recipe with dropout and accumulation that writes a checkpoint every other step."""
    recipe = write_recipe(
        architecture=architecture,
        gradient_accumulation_steps=2,
        num_train_epochs=4,
        save_strategy="steps",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
    )
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["model"]["dropout"] = 0.2
    recipe.write_text(json.dumps(content), encoding="utf-8")
    return recipe


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_killed_run_ends_as_if_nothing_had_happened(write_recipe: WriteRecipe, architecture: str) -> None:
    """Three kills at random moments change neither the weights nor the figures."""
    kill_and_finish(killed_recipe(write_recipe, architecture), kills=3, processes=1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_run_killed_twenty_times_ends_as_if_nothing_had_happened(write_recipe: WriteRecipe, architecture: str) -> None:
    """Twenty kills at random moments change neither the weights nor the figures."""
    kill_and_finish(killed_recipe(write_recipe, architecture), kills=20, processes=1, seed=2)


@pytest.mark.slow
def test_two_processes_killed_five_times(write_recipe: WriteRecipe) -> None:
    """Five kills of a run on two processes change neither the weights nor the figures."""
    kill_and_finish(killed_recipe(write_recipe, "gpt2"), kills=5, processes=2, seed=3)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    """Leave nothing of a file."""
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    """Put a file of another program in the place of a checkpoint."""
    torch.save({"model": torch.zeros(3)}, path)


class _Code:
    """A pickle that runs code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def pickled_code(path: Path) -> None:
    """Put a file with code in the place of a checkpoint."""
    torch.save({"format": 1, "code": _Code(path.with_name("ran"))}, path)


@pytest.mark.parametrize("damage", [truncate, flip, empty, foreign, pickled_code])
def test_damaged_checkpoint_is_passed_over_by_name(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    """A newest checkpoint that is not usable is named in one line, nothing in it is run, and the next one is used."""
    recipe = write_recipe(num_train_epochs=2, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2)
    main([str(recipe)])
    folder = recipe.parent / "run"
    newest = max((folder / "checkpoints").glob("checkpoint_step_*.pt"), key=lambda path: path.stat().st_mtime_ns)
    shutil.copytree(folder, recipe.parent / "whole")
    newest.unlink()  # the best one may be the same file
    shutil.copy(recipe.parent / "whole" / "checkpoints" / newest.name, newest)
    damage(newest)
    for name in ("results.json", "training.json"):
        (folder / name).unlink()
    capsys.readouterr()
    main([str(recipe)])
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith(f"Passed over {newest}: not a")]) == 1
    assert f"Resuming from {folder / 'checkpoints' / 'checkpoint_step_'}" in out
    assert not (folder / "checkpoints" / "ran").exists()
    assert_equal_runs(recipe.parent / "whole", folder)


def test_named_checkpoint_that_is_damaged_is_refused(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume_from_checkpoint of a damaged, missing or alien file ends the command in one line with code 2."""
    recipe = write_recipe(save_strategy="steps", save_steps=4, eval_strategy="steps", eval_steps=4, save_total_limit=50)
    main([str(recipe)])
    checkpoint = recipe.parent / "run" / "checkpoints" / "checkpoint_step_4.pt"
    torch.save(torch.load(checkpoint, weights_only=True) | {"model_state_dict": {}}, recipe.parent / "alien.pt")
    truncate(checkpoint)
    for path, message in (
        (checkpoint, "not a usable checkpoint"),
        (recipe.parent / "missing.pt", "not a usable checkpoint (FileNotFoundError"),
        (recipe.parent / "alien.pt", "the checkpoint is of another model"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(moved(recipe, "other")), "--overwrite", "--resume_from_checkpoint", str(path)])
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
        assert line.startswith(f"error: {path}: ")
        assert message in line


def test_resume_from_a_named_file(write_recipe: WriteRecipe) -> None:
    """--resume_from_checkpoint continues another folder's run exactly, and is no part of the recipe."""
    recipe = write_recipe(
        num_train_epochs=2,
        save_strategy="steps",
        save_steps=4,
        eval_strategy="steps",
        eval_steps=4,
        save_total_limit=50,
    )
    main([str(recipe)])
    checkpoint = recipe.parent / "run" / "checkpoints" / "checkpoint_step_8.pt"
    copy = moved(recipe, "fork")
    before = {path: path.stat().st_mtime_ns for path in (recipe.parent / "run").rglob("*") if path.is_file()}
    main([str(copy), "--resume_from_checkpoint", str(checkpoint)])
    after = {path: path.stat().st_mtime_ns for path in (recipe.parent / "run").rglob("*") if path.is_file()}
    assert after == before, "the run that the checkpoint is taken from is left alone"
    assert events_of(recipe.parent / "run") == events_of(recipe.parent / "fork")
    main([str(copy)])  # finished: the flag does not make another recipe of it


def test_load_checkpoint_gives_model_and_tokenizer(write_recipe: WriteRecipe) -> None:
    """A checkpoint opens as a model and tokenizer that score like the exported ones, best for best."""
    from transformers import AutoModelForCausalLM

    from hindi_babylm.training.checkpoint import load_checkpoint

    recipe = write_recipe(architecture="llama")
    main([str(recipe)])
    model, tokenizer = load_checkpoint(recipe.parent / "run" / "checkpoints" / "checkpoint_best.pt")
    exported = AutoModelForCausalLM.from_pretrained(recipe.parent / "run" / "final_model")
    ids = tokenizer("राम घर जाता है ।", return_tensors="pt")["input_ids"]
    assert torch.equal(model(ids).logits, exported(ids).logits)


def test_early_stopping_is_not_undone_by_a_kill(write_recipe: WriteRecipe) -> None:
    """A run that had stopped early and was killed before its export does not train on when it is continued."""
    recipe = write_recipe(num_train_epochs=9, learning_rate=1e-30, weight_decay=0.0, early_stopping_patience=2)
    main([str(recipe)])
    folder = recipe.parent / "run"
    shutil.copytree(folder, recipe.parent / "whole")
    shutil.rmtree(folder / "final_model")
    for name in ("results.json", "training.json"):
        (folder / name).unlink()
    main([str(recipe)])
    assert results_of(folder)["training"]["epochs"] == 3
    assert_equal_runs(recipe.parent / "whole", folder)


def test_kill_between_the_two_names_of_the_best_checkpoint(write_recipe: WriteRecipe) -> None:
    """A best checkpoint whose second name was not made before the kill is the best one all the same."""
    recipe = write_recipe(
        learning_rate=1e-2,
        save_strategy="steps",
        save_steps=4,
        eval_strategy="steps",
        eval_steps=4,
        save_total_limit=50,
    )
    main([str(recipe)])
    back_to(recipe.parent / "run", recipe.parent / "again", 8)
    checkpoints = recipe.parent / "again" / "checkpoints"
    assert torch.load(checkpoints / "checkpoint_best.pt", weights_only=True)["step"] == 8
    shutil.copy(checkpoints / "checkpoint_step_4.pt", checkpoints / "checkpoint_best.pt")
    # No later evaluation is better, so what stands under the second name decides what is exported.
    state = torch.load(checkpoints / "checkpoint_step_8.pt", weights_only=True)
    state["finished"] = True
    torch.save(state, checkpoints / "checkpoint_step_8.pt")
    main([str(recipe.parent / "again" / "recipe.json")])
    weights = load_file(recipe.parent / "again" / "final_model" / "model.safetensors")
    assert all(torch.equal(value, state["model_state_dict"][name]) for name, value in weights.items())


def test_leftovers_of_a_killed_write_are_swept(write_recipe: WriteRecipe) -> None:
    """The temporary file of a write that a kill cut short is gone once the run is continued."""
    recipe = write_recipe(save_strategy="steps", save_steps=4, eval_strategy="steps", eval_steps=4)
    main([str(recipe)])
    leftover = recipe.parent / "run" / "checkpoints" / ".checkpoint_step_9.pt.x1y2.tmp"
    leftover.write_bytes(b"half a checkpoint")
    for name in ("results.json", "training.json"):
        (recipe.parent / "run" / name).unlink()
    main([str(recipe)])
    assert not leftover.exists()


def test_patience_survives_a_resume(write_recipe: WriteRecipe) -> None:
    """A run that waits for a better evaluation stops at the same step whether or not it was resumed in between."""
    recipe = write_recipe(
        num_train_epochs=9,
        learning_rate=1e-30,
        weight_decay=0.0,
        early_stopping_patience=3,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=50,
    )
    main([str(recipe)])
    assert results_of(recipe.parent / "run")["training"]["steps"] == 8
    back_to(recipe.parent / "run", recipe.parent / "again", 6)
    main([str(recipe.parent / "again" / "recipe.json")])
    assert_equal_runs(recipe.parent / "run", recipe.parent / "again")
