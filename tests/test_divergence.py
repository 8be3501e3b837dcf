"""A loss that is not finite ends a run within a step, in one line, before the weights reach a checkpoint."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hindi_babylm.run import main
from hindi_babylm.storage import read_json
from hindi_babylm.training.divergence import DivergedError, FiniteWatch, check_weights
from hindi_babylm.training.trainer import HindiLanguageModelTrainer
from tests.runs import EVERY_OTHER_STEP, ROOT, environment, events_of
from tests.test_training import Make, make

pytestmark = pytest.mark.usefixtures("unreported")

__all__ = ["make"]
WriteRecipe = Callable[..., Path]
HUGE = {"learning_rate": 1e30, "max_grad_norm": 0.0, "eval_strategy": "no", "save_strategy": "steps"}


def ended(recipe: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """Run a recipe that diverges, and return its last line, which must be the only error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(recipe), *flags])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def assert_checkpoints_are_finite(run: Path) -> list[int]:
    """Return the steps of a run's checkpoints, once every weight in them has been found finite."""
    found = [torch.load(path, weights_only=True) for path in (run / "checkpoints").glob("*.pt")]
    assert all(weight.isfinite().all() for one in found for weight in one["model_state_dict"].values())
    return sorted({one["step"] for one in found})


def poisoned(step: int, value: float = math.nan) -> Callable[..., torch.Tensor]:
    """Return a training step that leaves a gradient of `value` in `step`, beside a finite loss."""
    original = HindiLanguageModelTrainer.training_step

    def training_step(self: Any, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = original(self, model, *args, **kwargs)
        if self.state.global_step == step - 1:
            next(model.parameters()).grad.fill_(value)
        return loss

    return training_step


@pytest.mark.parametrize("interval", [1, 100])
def test_huge_rate_ends_the_run_at_its_first_bad_step(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str], interval: int
) -> None:
    """The line names step, keys and the checkpoint before the bad weights; the loss is the log's last."""
    recipe = write_recipe(**HUGE, save_steps=1, save_total_limit=9, max_steps=30, logging_steps=interval)
    line = ended(recipe, capsys)
    run = recipe.parent / "run"
    events = events_of(run)
    # The warmup of 3 steps starts at a rate of 0: the weights are lost in step 2, and step 3 shows it.
    assert [math.isfinite(event["loss"]) for event in events] == [True, True, False]
    assert line.startswith(f"error: training loss is {events[-1]['loss']} at step 3: the training has diverged; ")
    assert "lower learning_rate 1e+30, set max_grad_norm 1 or raise warmup_steps, and start again with" in line
    assert line.endswith(f"the last good checkpoint is {run / 'checkpoints' / 'checkpoint_step_1.pt'}")
    assert max(assert_checkpoints_are_finite(run)) == 2
    assert not (run / "final_model").exists()


def test_without_a_checkpoint_the_line_says_so(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """No checkpoint, clipping, Muon and bf16: the line has what there is to change."""
    settings = {**HUGE, "save_strategy": "no", "max_steps": 30, "max_grad_norm": 2.0}
    recipe = write_recipe(**settings, muon_learning_rate=1e30, precision="bf16")
    line = ended(recipe, capsys)
    assert "lower learning_rate 1e+30 and muon_learning_rate 1e+30, lower max_grad_norm 2 or set precision" in line
    assert line.endswith("there is no checkpoint from before it")


def test_bad_validation_loss_ends_the_run(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that an evaluation finds bad before the next step does reach no checkpoint."""
    recipe = write_recipe(**{**HUGE, **EVERY_OTHER_STEP}, max_steps=30)
    line = ended(recipe, capsys)
    assert line.startswith("error: validation loss is nan at step 2: ")
    assert not list((recipe.parent / "run").glob("checkpoints/*.pt"))
    assert math.isnan(events_of(recipe.parent / "run")[-1]["eval_loss"])


def test_bad_weights_reach_no_checkpoint(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient that is NaN beside a finite loss ends the run where its weights would be saved."""
    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", poisoned(4))
    trainer = make(max_steps=8, eval_strategy="no", save_strategy="steps", save_steps=2)
    with pytest.raises(DivergedError, match=r"the weights are not finite after step 4: .*checkpoint_step_2\.pt$"):
        trainer.train()
    assert assert_checkpoints_are_finite(tmp_path / "run") == [2]
    with pytest.raises(DivergedError):
        check_weights(trainer)


def test_gradient_that_overflows_is_no_divergence(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that a scaler skips for its infinite gradient has a finite loss, and the training goes on."""
    trainer = make(max_steps=8, eval_strategy="no", save_strategy="steps", save_steps=2)
    # A scaler of the CPU: fp16 itself needs a GPU.
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", poisoned(4, math.inf))
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 8
    assert math.isinf(steps[3]["grad_norm"]) or math.isnan(steps[3]["grad_norm"])
    assert trainer.accelerator.scaler.get_scale() < 1.0


def test_every_step_is_judged_at_once_on_a_cpu() -> None:
    """The answer is that of the loss just given, and a later finite one is finite again."""
    watch, losses = FiniteWatch(), (1.0, math.nan, math.inf, -math.inf, 2.0)
    assert [watch.is_finite(torch.tensor(loss)) for loss in losses] == [True, False, False, False, True]


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
@pytest.mark.parametrize("rank", [0, 1])
def test_processes_end_together(write_recipe: WriteRecipe, rank: int) -> None:
    """NaN in one of two processes ends both at that step, at which nothing else is due, with one error line."""
    recipe = write_recipe(max_steps=9, **EVERY_OTHER_STEP, use_cpu=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "tests.diverging_run", str(recipe), "5", str(rank)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode != 0
    run = recipe.parent / "run"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: training loss is nan at step 5: the training has diverged")
    # The weights after step 4 are those that gave the loss of step 5.
    assert line.endswith(f"{run / 'checkpoints' / 'checkpoint_step_2.pt'}")
    assert [event["step"] for event in events_of(run) if "loss" in event] == [1, 2, 3, 4, 5]
    assert assert_checkpoints_are_finite(run)[-1] == 4


def test_bad_weights_reach_no_milestone(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that a step has broken are no milestone, and what was seen before is in the log."""
    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", poisoned(3))
    recipe = write_recipe(max_steps=9, milestones=list(range(100, 3000, 100)), eval_strategy="no", save_strategy="no")
    line = ended(recipe, capsys)
    run = recipe.parent / "run"
    assert line.startswith("error: the weights are not finite after step 3: the training has diverged; ")
    steps = {read_json(path)["step"] for path in run.glob("revisions/*/milestone.json")}
    assert steps == {1, 2}
    assert [event["step"] for event in events_of(run) if "loss" in event] == [1, 2]
