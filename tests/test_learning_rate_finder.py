"""The sweep of learning rates: its formulas, its suggestion, and that it leaves no trace."""

import hashlib
import json
import math
import pickle
import random
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from hindi_babylm.commands.find_lr import USAGE, main
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.run import main as run
from hindi_babylm.run import trainer_aside
from hindi_babylm.storage import UserError
from hindi_babylm.training.learning_rate_finder import END_LR, NUM_STEPS, START_LR, smoothed, suggest, sweep_rates
from tests.runs import assert_equal_runs, command, environment, events_of, finish, moved
from tests.test_training import Make, Rows, make, tiny_model

__all__ = ["make"]
WriteRecipe = Callable[..., Path]


def test_rates_grow_by_one_factor() -> None:
    """The sweep has its ends, and each rate is the same multiple of the one before."""
    rates = sweep_rates(1e-6, 2.0, 57)
    assert len(rates) == 57
    assert [rates[0], rates[-1]] == pytest.approx([1e-6, 2.0])
    assert [after / before for before, after in pairwise(rates)] == pytest.approx([2e6 ** (1 / 56)] * 56)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9])
def test_smoothing_is_the_weighted_mean(smoothing: float) -> None:
    """Each smoothed loss is the mean of the losses so far, weighted by powers of the smoothing."""
    draw = random.Random(0)
    losses = [draw.uniform(2, 9) for _ in range(40)]
    for step, mean in enumerate(smoothed(losses, smoothing)):
        weights = [smoothing ** (step - before) for before in range(step + 1)]
        wanted = sum(w * loss for w, loss in zip(weights, losses, strict=False)) / sum(weights)
        assert mean == pytest.approx(wanted)


@pytest.mark.parametrize("best", [3e-5, 1e-3, 0.2])
def test_steepest_fall_of_a_closed_form(best: float) -> None:
    """Of a logistic fall over the logarithm of the rate, with a rise after it, the suggestion is the middle."""
    rates = sweep_rates(1e-7, 10.0, 400)
    fall = [9 - 4 / (1 + math.exp(-2 * math.log(rate / best))) for rate in rates]
    losses = [loss + (rate / best / 50) ** 3 for loss, rate in zip(fall, rates, strict=True)]
    assert suggest(rates, losses)["steepest"] == pytest.approx(best, rel=0.06)
    lowest = min(range(400), key=lambda step: losses[step])
    assert suggest(rates, losses)["minimum_tenth"] == rates[lowest] / 10


@pytest.mark.parametrize("curvature", [0.1, 1.0, 50.0])
def test_quadratic_is_swept_to_its_stable_rates(curvature: float) -> None:
    """Gradient descent on h x^2 / 2 is stable below 2 / h, best at 1 / h: the suggestion follows the curvature."""
    x, losses = 3.0, []
    rates = sweep_rates(1e-4 / curvature, 10 / curvature, 100)
    for rate in rates:
        losses.append(curvature * x**2 / 2)
        x -= rate * curvature * x
    found = suggest(rates, smoothed(losses))["steepest"] * curvature
    assert 0.1 < found < 2.0


def test_loss_that_never_falls_has_no_suggestion(make: Make) -> None:
    """Where the first loss is the lowest nothing is suggested, and the user is told."""
    with pytest.raises(ValueError, match="the loss falls at no rate"):
        suggest([1e-3, 1e-2, 1e-1], [5.0, 5.1, 6.0])
    with pytest.raises(UserError, match=r"^the loss falls at no rate from 100 to 1e\+06: lower start_lr"):
        make().find_learning_rate(start_lr=100.0, end_lr=1e6, num_steps=10)


def fingerprint(trainer: Any) -> dict[str, Any]:
    """Return everything of a trainer and its surroundings that a sweep could change."""
    rows = [trainer.train_dataset[index] for index in range(len(trainer.train_dataset))]
    optimizer, schedule, scaler = trainer.optimizer, trainer.lr_scheduler, trainer.accelerator.scaler
    return {
        "weights": {name: value.numpy().tobytes() for name, value in trainer.model.state_dict().items()},
        "model": sorted(vars(trainer.model)),
        "gradients": [parameter.grad is None for parameter in trainer.model.parameters()],
        "modes": [module.training for module in trainer.model.modules()],
        "optimizer": None if optimizer is None else pickle.dumps(optimizer.state_dict()),
        "schedule": None if schedule is None else json.dumps(schedule.state_dict(), default=str),
        "scaler": None if scaler is None else scaler.state_dict(),
        "parts": {name: id(value) for name, value in vars(trainer).items()},
        "handler": [id(callback) for callback in trainer.callback_handler.callbacks],
        "arguments": dict(vars(trainer.args)),
        "state": json.dumps(vars(trainer.state), default=str),
        "control": vars(trainer.control).copy(),
        "metrics": json.dumps(trainer.metrics),
        "sampler": None if trainer.train_sampler is None else trainer.train_sampler.epoch,
        "rows": hashlib.sha256(b"".join(value.numpy().tobytes() for row in rows for value in row.values())).digest(),
        "python": random.getstate(),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002  # the generator that the Trainer seeds
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"per_device_train_batch_size": 1},
    "bf16": {"precision": "bf16"},
    "muon": {"muon_learning_rate": 0.02},
    "checkpointing": {"gradient_checkpointing": True},
    "wsd": {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 11}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_sweep_leaves_no_trace(make: Make, tmp_path: Path, name: str) -> None:
    """Before and after a training a sweep changes nothing, and the training ends with the bits of one without."""
    ends = []
    for swept in (False, True):
        trainer = make(model=tiny_model("gpt2", dropout=0.2), **SETTINGS[name])
        for _ in range(2):
            before, files = fingerprint(trainer), sorted(tmp_path.rglob("*"))
            found = trainer.find_learning_rate(num_steps=15) if swept else None
            assert fingerprint(trainer) == before
            assert sorted(tmp_path.rglob("*")) == files
            assert found is None or len(found["losses"]) == 15
            trainer.train()
        ends.append((trainer.model.state_dict(), trainer.state.log_history))  # type: ignore[union-attr]
    assert all(torch.equal(value, ends[1][0][key]) for key, value in ends[0][0].items())
    losses = [[entry.get("loss", entry.get("eval_loss")) for entry in end[1]] for end in ends]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"repack": True},
        {"architecture": "deberta-v2", "repack": True},
        {"curriculum": "length", "num_train_epochs": 3},
    ],
)
def test_a_sweep_of_several_epochs_leaves_the_blocks_alone(
    write_recipe: WriteRecipe, block_log: dict[int, list[str]], settings: dict[str, Any]
) -> None:
    """It reads the rows that a training reads, epoch by epoch; before and after one, those of the epoch come back."""
    recipe = parse_recipe(write_recipe(**{"num_train_epochs": 3, "eval_strategy": "no", **settings}))
    with trainer_aside(recipe) as (_, trainer):
        for _ in range(2):
            block_log.clear()
            before = fingerprint(trainer)
            steps = len(trainer.find_learning_rate(num_steps=3 * steps_per_epoch(trainer))["rates"])
            assert fingerprint(trainer) == before
            swept = {step: block_log[step] for step in range(steps)}
            assert steps > steps_per_epoch(trainer)
            block_log.clear()
            trainer.train()
            assert {step: block_log[step] for step in range(steps)} == swept


def steps_per_epoch(trainer: Any) -> int:
    """Return the steps of an epoch."""
    rows, batch = len(trainer.train_sampler), int(trainer.args.global_batch_size)
    return -(-rows // batch)


def test_error_in_a_sweep_leaves_no_trace(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that is broken off has put everything back too."""
    trainer = make()
    before = fingerprint(trainer)
    original = type(trainer).training_step

    def broken(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(trainer), "training_step", broken)
    with pytest.raises(KeyboardInterrupt):
        trainer.find_learning_rate()
    assert fingerprint(trainer) == before


def test_every_group_follows_the_sweep(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW steps at the rates of the sweep, Muon in the proportion of the two peaks, and so is the suggestion."""
    used: list[list[float]] = []
    trainer = make(learning_rate=0.01, muon_learning_rate=0.03)
    step = type(trainer).create_optimizer

    def watched(self: Any, *args: Any) -> Any:
        optimizer = step(self, *args)
        optimizer.register_step_pre_hook(
            lambda optimizer, *rest: used.append([group["lr"] for group in optimizer.param_groups])
        )
        return optimizer

    monkeypatch.setattr(type(trainer), "create_optimizer", watched)
    found = trainer.find_learning_rate(start_lr=1e-5, end_lr=0.1, num_steps=20)
    rates = sweep_rates(1e-5, 0.1, 20)
    assert found["rates"] == rates
    assert used == [pytest.approx([rate, rate, 3 * rate]) for rate in rates]
    suggestion = found["suggestion"]
    assert suggestion["learning_rate"] == pytest.approx(found["steepest"], rel=0.05)
    assert suggestion["muon_learning_rate"] == pytest.approx(3 * found["steepest"], rel=0.05)


def test_losses_are_those_of_training_at_the_rates(make: Make) -> None:
    """The losses of a sweep are those of a hand-made loop over the same rows at the same rates."""
    rows = Rows([12] * 4)
    found = make(train=rows, weight_decay=0.0, max_grad_norm=0.0).find_learning_rate(num_steps=12)
    model = tiny_model("gpt2").train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    losses = []
    for rate in sweep_rates(START_LR, END_LR, 12):
        optimizer.param_groups[0]["lr"] = rate
        logits = model(rows.ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows.labels[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert found["losses"] == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("end_lr", [1e4, 1e30])
def test_sweep_ends_where_it_diverges(make: Make, end_lr: float) -> None:
    """At 4 times the lowest loss, or at one that is no number, the sweep ends and is no error."""
    found = make(max_grad_norm=0.0).find_learning_rate(end_lr=end_lr, num_steps=60)
    assert found["diverged"]
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed_losses"]) < 60
    assert all(map(math.isfinite, found["losses"]))
    means = found["smoothed_losses"]
    assert all(mean <= 4 * min(means[: step + 1]) for step, mean in enumerate(means[:-1]))


def test_other_callbacks_hear_nothing_of_a_sweep(make: Make, tmp_path: Path) -> None:
    """No callback of the run is called, and nothing is printed, logged or saved."""

    class Never(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError

        on_step_end = on_log = on_save = on_evaluate = on_train_end = on_train_begin

    trainer = make(save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1, eval_on_start=True)
    trainer.add_callback(Never())
    trainer.find_learning_rate(num_steps=10)
    assert not list(tmp_path.rglob("*.pt"))
    assert not (tmp_path / "metrics.jsonl").exists()


def swept(recipe: Path, *flags: str) -> dict[str, Any]:
    """Sweep by the command and return what it wrote."""
    main([str(recipe), *flags])
    (path,) = recipe.parent.glob("*-find-lr/sweep.json")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def test_suggestion_is_better_than_ten_times_less_or_more(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three runs at a tenth of the suggestion, at it, and at ten times of it, it ends with the lowest loss."""
    recipe = write_recipe(max_steps=60, eval_strategy="steps", eval_steps=60, save_strategy="no", warmup_steps=6)
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["training"]["load_best_model_at_end"] = False
    recipe.write_text(json.dumps(content), encoding="utf-8")
    rate = swept(recipe)["suggestion"]["learning_rate"]
    losses = {}
    for factor in (0.1, 1.0, 10.0):
        folder = recipe.parent / f"factor-{factor}"
        run([str(recipe), "--output_dir", str(folder), "--learning_rate", str(rate * factor)])
        losses[factor] = events_of(folder)[-1]["eval_loss"]
    assert min(losses, key=lambda factor: losses[factor]) == 1.0, (rate, losses)


def test_command_writes_beside_the_run_folder(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """sweep.json and both plots lie in OUTPUT_DIR-find-lr, the last line has the flags, the run folder is not there."""
    pytest.importorskip("matplotlib")
    recipe = write_recipe(muon_learning_rate=2e-2)
    record = swept(recipe, "--num_steps", "20", "--start_lr", "1e-5", "--end_lr", "0.5", "--seed", "7")
    folder = recipe.parent / "run-find-lr"
    assert sorted(path.name for path in folder.iterdir()) == ["sweep.json", "sweep.png", "sweep.svg"]
    assert not (recipe.parent / "run").exists()
    assert (record["format"], record["num_steps"], record["start_lr"], record["end_lr"]) == (1, 20, 1e-5, 0.5)
    assert record["recipe"]["training"]["seed"] == 7
    assert record["rates"] == sweep_rates(1e-5, 0.5, 20)
    assert record["smoothed_losses"] == smoothed(record["losses"])
    assert record["steepest"] == suggest(record["rates"], record["smoothed_losses"])["steepest"]
    rate = record["suggestion"]["learning_rate"]
    assert record["suggestion"] == {"learning_rate": rate, "muon_learning_rate": pytest.approx(2 * rate, rel=0.06)}
    lines = capsys.readouterr().out.splitlines()
    muon = record["suggestion"]["muon_learning_rate"]
    assert lines[-1] == f"Suggestion: --learning_rate {rate:g} --muon_learning_rate {muon:g}"
    assert lines[-4:-1] == [str(folder / f"sweep.{kind}") for kind in ("json", "svg", "png")]
    texts = [node.text for node in ElementTree.parse(folder / "sweep.svg").iter() if node.text and node.text.strip()]
    assert {"learning rate", "loss (nats per token)", f"suggestion: {rate:g}"} <= set(texts)
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_sweep_beside_a_finished_run_leaves_it_alone(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder has the same bytes after a sweep of its recipe, and the run is still finished."""
    recipe = write_recipe()
    run([str(recipe)])
    files = {path: path.read_bytes() for path in (recipe.parent / "run").rglob("*") if path.is_file()}
    swept(recipe, "--num_steps", "10")
    assert {path: path.read_bytes() for path in (recipe.parent / "run").rglob("*") if path.is_file()} == files
    capsys.readouterr()
    run([str(recipe)])
    assert "holds this recipe's finished run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no recipe: hindi-babylm find-lr recipes/quickstart.json (see --help)"),
        (["r.json", "--start_lr", "0"], "command line: --start_lr 0: expected a number above 0"),
        (["r.json", "--end_lr", "big"], "command line: --end_lr big: expected a number above 0"),
        (["r.json", "--num_steps", "1e2"], "command line: --num_steps 1e2: expected a whole number"),
        (["r.json", "--num_steps", "9"], "command line: --num_steps 9: expected 10 or more"),
        (
            ["r.json", "--start_lr", "1", "--end_lr", "0.1"],
            "command line: --start_lr 1 is not below --end_lr 0.1: lower the first, or raise the second",
        ),
        (
            ["r.json", "--learning_rat", "1"],
            "command line: --learning_rat: unknown flag; did you mean 'learning_rate' (section 'training')?",
        ),
        (
            ["r.json", "--resume_from_checkpoint", "a.pt"],
            "command line: --resume_from_checkpoint: find-lr sweeps from fresh weights: leave "
            "resume_from_checkpoint out",
        ),
    ],
)
def test_bad_words_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong with the command line ends it with code 2 before any data are read."""
    monkeypatch.chdir(tmp_path)
    Path("r.json").write_text("{}", encoding="utf-8")
    Path("a.pt").touch()
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert sorted(path.name for path in Path().iterdir()) == ["a.pt", "r.json"]


def test_help_fits_a_screen_and_has_the_defaults() -> None:
    """The help has at most 80 columns and 50 lines, and its defaults are those of the sweep."""
    assert max(map(len, USAGE.splitlines())) <= 80
    assert len(USAGE.splitlines()) <= 50
    for name, default in (("start_lr X", START_LR), ("end_lr X", END_LR), ("num_steps N", NUM_STEPS)):
        assert f"[{default:g}]" in USAGE.split(f"  --{name}")[1].split("\n  --")[0]


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_two_processes_sweep_as_one(write_recipe: WriteRecipe) -> None:
    """Two processes write the losses of one once, and a run after a sweep has the bits of one without."""
    recipe = write_recipe(dropout=0.0)
    one = swept(recipe, "--num_steps", "12")
    two = moved(recipe, "two")
    words = command(two, processes=2, module="hindi_babylm")
    at = words.index(str(two))
    words[at:at] = ["find-lr"]
    words += ["--num_steps", "12"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((recipe.parent / "two-find-lr" / "sweep.json").read_text(encoding="utf-8"))
    assert found["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert found["rates"] == one["rates"]
    assert done.stdout.count("Suggestion: --learning_rate") == 1
    finish(moved(recipe, "plain"), processes=2)
    finish(moved(recipe, "swept"), processes=2, module="tests.swept_run")
    assert_equal_runs(recipe.parent / "plain", recipe.parent / "swept")
