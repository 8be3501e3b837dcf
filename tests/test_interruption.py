"""Signals and kills at any moment change nothing in the end."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hindi_babylm.run import main
from hindi_babylm.training.interruption import Interruption, leave_signals_to_main
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.runs import EVERY_OTHER_STEP, ROOT, assert_equal_runs, command, environment, finish, moved, results_of

WriteRecipe = Callable[..., Path]


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGUSR1"))]
)
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
    assert "Interrupted. The same command continues." in output
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


@pytest.mark.parametrize(
    "settings",
    [
        {"max_steps": 13},
        {"max_steps": 13, "save_strategy": "steps", "save_steps": 4, "load_best_model_at_end": False},
        {"num_train_epochs": 2, "early_stopping_patience": 1, "learning_rate": 1e-30, "weight_decay": 0.0},
    ],
    ids=str,
)
def test_signal_in_the_last_step_costs_nothing(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Stopped in its last step, with the evaluation to come, a run says 75 and then ends as one left alone."""
    recipe = write_recipe(**settings)
    main([str(recipe)])
    copy = moved(recipe, "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(
            Interruption, "on_step_end", signalling_at(results_of(recipe.parent / "run")["training"]["steps"])
        )
        with pytest.raises(SystemExit) as ended:
            main([str(copy)])
    assert ended.value.code == 75
    assert not (recipe.parent / "stopped" / "final_model").exists()
    main([str(copy)])
    assert_equal_runs(recipe.parent / "run", recipe.parent / "stopped")


def killed_recipe(write_recipe: WriteRecipe, architecture: str) -> Path:
    """Return a recipe with dropout and accumulation that writes a checkpoint every other step."""
    return write_recipe(
        architecture=architecture,
        dropout=0.2,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        **EVERY_OTHER_STEP,
    )


def kill_and_finish(recipe: Path, *, kills: int, processes: int, seed: int) -> None:
    """Kill runs at random moments of their life until `kills` kills have landed; each ends as one left alone did."""
    draw = random.Random(seed)
    folder, copy = recipe.parent / "killed", moved(recipe, "killed")
    started = time.monotonic()
    process = start(recipe, processes=processes)
    while not (recipe.parent / "run").exists() and process.poll() is None:
        time.sleep(0.01)
    first_write = time.monotonic() - started
    assert process.wait() == 0
    life = time.monotonic() - started
    landed = finished = 0
    while landed < kills or not finished:
        process = start(copy, processes=processes)
        try:
            # A run that goes on has less to do than a new one: it may end before its moment has come.
            process.wait(timeout=draw.uniform(first_write, life) if landed < kills else None)
            assert process.returncode == 0
            assert_equal_runs(recipe.parent / "run", folder)
            shutil.rmtree(folder)
            finished += 1
        except subprocess.TimeoutExpired:
            ranks = psutil.Process(process.pid).children()
            if processes > 1 and ranks:
                draw.choice(ranks).kill()  # one rank alone: the launcher ends the other
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            landed += 1


def start(recipe: Path, *, processes: int) -> "subprocess.Popen[bytes]":
    """Start a run in a process group of its own; what it prints goes to `printed.txt` beside the recipe."""
    with (recipe.parent / "printed.txt").open("wb") as printed:
        return subprocess.Popen(
            command(recipe, processes=processes),
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )


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
@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_two_processes_killed_five_times(write_recipe: WriteRecipe) -> None:
    """Five kills of one of two processes alone change neither the weights nor the figures."""
    kill_and_finish(killed_recipe(write_recipe, "gpt2"), kills=5, processes=2, seed=3)


def kill_before_changes(recipe: Path, *, every: int) -> list[str]:
    """Kill a run before every so many-th of its changes of the disk; return what it would have changed."""
    words = [sys.executable, "-m", "tests.killed_run", str(recipe), str(every)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_killed_before_a_change_of_the_disk(write_recipe: WriteRecipe) -> None:
    """Killed before one in twenty-nine of its changes of the disk, a run ends as one that was left alone."""
    changes = kill_before_changes(killed_recipe(write_recipe, "gpt2"), every=29)
    assert len(changes) > 5


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_killed_before_each_change_of_the_disk(write_recipe: WriteRecipe, architecture: str) -> None:
    """Killed before any change of the disk, in every stage, a run ends as one that was left alone."""
    changes = kill_before_changes(killed_recipe(write_recipe, architecture), every=1)
    for stage in (
        "os.rename .recipe.json",
        "os.rename tokens/train/.store.json",
        "os.rename .corpus.json",
        "open metrics.jsonl",
        "os.rename checkpoints/.checkpoint_step_2.pt",
        "os.rename checkpoints/.checkpoint_best.pt",
        "os.link checkpoints/checkpoint_step_",
        "os.remove checkpoints/checkpoint_step_",
        "os.rename .final_model.tmp",
        "os.rename .training.json",
        "os.rename .results.json",
    ):
        assert any(change.split(" ", 1)[1].startswith(stage) for change in changes), stage


@pytest.mark.parametrize("stage", ["build_corpus", "evaluate_model"])
def test_signal_outside_of_the_training_ends_the_run_in_order(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    """A signal before or after the training ends the run with code 75, and the same command finishes it."""
    import hindi_babylm.corpus.assembly
    import hindi_babylm.evaluation.tasks

    recipe = write_recipe()
    main([str(recipe)])
    module = hindi_babylm.corpus.assembly if stage == "build_corpus" else hindi_babylm.evaluation.tasks
    copy = moved(recipe, "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(module, stage, lambda *arguments, **keywords: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as ended:
            main([str(copy)])
    assert ended.value.code == 75
    assert "Interrupted. The same command continues." in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    main([str(copy)])
    assert_equal_runs(recipe.parent / "run", recipe.parent / "stopped")


def test_signal_to_the_process_group_spares_the_loader_workers(write_recipe: WriteRecipe) -> None:
    """A signal that reaches the workers of the loaders too, as a queue sends it, ends the run with a checkpoint."""
    recipe = write_recipe(
        num_train_epochs=60, dataloader_num_workers=2, dataloader_persistent_workers=True, save_total_limit=None
    )
    process = start(recipe, processes=1)
    metrics = recipe.parent / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # launchers send it once more
    assert process.wait(timeout=120) == 75, (recipe.parent / "printed.txt").read_text()
    assert list((recipe.parent / "run" / "checkpoints").glob("checkpoint_*.pt"))


def test_second_interrupt_ends_a_single_process_at_once() -> None:
    """Ctrl-C asks for a checkpoint, and Ctrl-C again ends the process without one."""
    arguments, interruption = SimpleNamespace(world_size=1), Interruption()
    before = signal.default_int_handler
    signal.signal(signal.SIGINT, before)
    state, control = SimpleNamespace(is_world_process_zero=True), SimpleNamespace()
    interruption.on_train_begin(arguments, state, control)  # type: ignore[arg-type]
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        interruption.on_train_end(arguments, state, control)  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("processes", "name"), [(1, "SIGTERM"), (1, "SIGUSR1"), (2, "SIGTERM"), (2, "SIGUSR1"), (2, "SIGINT")]
)
def test_a_repeated_signal_is_ignored(capfd: pytest.CaptureFixture[str], processes: int, name: str) -> None:
    """A launcher may pass on what the processes have got already: it is told once, and ends none of them."""
    number, reached = getattr(signal, name), []
    arguments, interruption = SimpleNamespace(world_size=processes), Interruption()
    state, control = SimpleNamespace(is_world_process_zero=True), SimpleNamespace()
    before = signal.signal(number, lambda *arguments: reached.append(arguments))
    try:
        interruption.on_train_begin(arguments, state, control)  # type: ignore[arg-type]
        for _ in range(3):
            os.kill(os.getpid(), number)
        assert interruption.asked
        interruption.on_train_end(arguments, state, control)  # type: ignore[arg-type]
        assert reached == []
        assert capfd.readouterr().err == "Interrupted: a checkpoint is written after this step\n"
        os.kill(os.getpid(), number)  # whoever had it before has it again
        assert len(reached) == 1
    finally:
        signal.signal(number, before)


def test_signal_after_the_last_step_ends_the_run_after_its_export(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in the evaluation after the last step is not forgotten: the model is exported, the exit code is 75."""
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer

    recipe = write_recipe()
    main([str(recipe)])
    copy = moved(recipe, "stopped")
    evaluate = HindiLanguageModelTrainer.evaluate

    def signalled(self: Any, *args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(HindiLanguageModelTrainer, "evaluate", signalled)
        with pytest.raises(SystemExit) as ended:
            main([str(copy)])
    assert ended.value.code == 75
    assert (recipe.parent / "stopped" / "training.json").exists()
    assert not (recipe.parent / "stopped" / "results.json").exists()
    main([str(copy)])
    assert_equal_runs(recipe.parent / "run", recipe.parent / "stopped")


@pytest.mark.parametrize("flags", [["--overwrite"], ["--resume_from_checkpoint", "x.pt"]])
def test_words_that_begin_anew_are_not_repeated(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    """An interrupted command with a flag that begins anew says to leave it out, and a requeued job does so itself."""
    recipe = write_recipe()
    monkeypatch.chdir(recipe.parent)
    Path("x.pt").touch()

    def interrupted(recipe: Any, *, overwrite: bool = False) -> None:
        assert overwrite == ("--overwrite" in flags and "SLURM_RESTART_COUNT" not in os.environ)
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr("hindi_babylm.run.run", interrupted)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    for count in (None, "1"):
        if count is not None:
            monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        with pytest.raises(SystemExit) as ended:
            main([str(recipe), *flags])
        assert ended.value.code == 75
        without = f" without {flags[0]}" if count is None else ""
        assert capsys.readouterr().out == f"Interrupted. The same command{without} continues.\n"


def test_overwrite_does_not_delete_what_is_resumed_from(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """--overwrite with a checkpoint of the folder it would clear, and resuming a finished training, are refused."""
    recipe = write_recipe()
    main([str(recipe)])
    checkpoint = recipe.parent / "run" / "checkpoints" / "checkpoint_best.pt"
    for flags, message in ((["--overwrite"], "--overwrite would delete"), ([], "has done its training")):
        with pytest.raises(SystemExit) as stopped:
            main([str(recipe), "--resume_from_checkpoint", str(checkpoint), *flags])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    assert checkpoint.exists()


def test_signal_to_a_worker_that_is_just_starting_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that gets the signal before it could learn to ignore it does its work all the same."""
    begin = torch.set_num_threads

    def interrupted(threads: int) -> None:
        begin(threads)
        os.kill(os.getpid(), signal.SIGTERM)

    # The workers, forks of this process, call it between torch's handler of SIGTERM and `worker_init_fn`.
    monkeypatch.setattr(torch, "set_num_threads", interrupted)
    loader = leave_signals_to_main(DataLoader(TensorDataset(torch.arange(4)), num_workers=2))
    assert [int(row) for (row,) in loader] == [0, 1, 2, 3]


def test_a_training_that_fails_gives_the_signals_back(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a notebook Ctrl-C is Python's own again after a training that ended by an error."""

    def fail(*arguments: Any) -> None:
        raise RuntimeError("a step failed")

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", fail)
    monkeypatch.setattr("hindi_babylm.run.exit_on_signal", nullcontext)  # the command's own, which a notebook lacks
    with pytest.raises(RuntimeError, match="a step failed"):
        main([str(write_recipe())])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_chosen_way_to_start_workers_is_kept(method: str) -> None:
    """dataloader_multiprocessing_context decides how workers start; only forked ones need to be sheltered."""
    data = TensorDataset(torch.arange(4))
    loader = leave_signals_to_main(DataLoader(data, num_workers=1, multiprocessing_context=method))
    assert loader.multiprocessing_context.Process._start_method == method
    assert [int(row) for (row,) in loader] == [0, 1, 2, 3]


def test_interruption_with_the_best_evaluations_alone_saved(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With save_strategy best an interruption writes its checkpoint after the step, be its evaluation best or not."""
    recipe = write_recipe(
        learning_rate=5.0, num_train_epochs=3, eval_strategy="steps", eval_steps=1, save_strategy="best"
    )
    log = HindiLanguageModelTrainer.log

    def interrupted(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        log(self, logs, start_time)
        if self.state.global_step == 3 and "loss" in logs:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(HindiLanguageModelTrainer, "log", interrupted)
        with pytest.raises(SystemExit) as ended:
            main([str(recipe)])
    assert ended.value.code == 75
    stopped = int(re.findall(r"Stopped after step (\d+)", capsys.readouterr().out)[0])
    assert stopped <= 4
    assert (recipe.parent / "run" / "checkpoints" / f"checkpoint_step_{stopped}.pt").exists()


def test_workers_that_ignore_signals_do_not_keep_a_process_alive() -> None:
    """A process whose loader is still in use when it exits ends at once, though its workers ignore SIGTERM."""
    program = """
import sys, torch
from torch.utils.data import DataLoader
from hindi_babylm.training.interruption import leave_signals_to_main
loader = leave_signals_to_main(DataLoader(torch.arange(8), num_workers=1, persistent_workers=True))
sys.kept = [iter(loader)]
next(sys.kept[0])
raise SystemExit(75)
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment(), timeout=120, check=False)
    assert done.returncode == 75
