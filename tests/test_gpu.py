"""What only a CUDA device can show."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hindi_babylm.run import main
from hindi_babylm.training.divergence import FiniteWatch
from tests.runs import EVERY_OTHER_STEP, assert_equal_runs, back_to, events_of, results_of
from tests.test_memory import CONFIGS, build, expected_bytes, saved_bytes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
WriteRecipe = Callable[..., Path]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_resume_on_a_gpu_is_exact(write_recipe: WriteRecipe, precision: str) -> None:
    """With dropout, in each precision with its scaler, a resumed run ends with the bits of one that never stopped."""
    recipe = write_recipe(
        dropout=0.2,
        precision=precision,
        num_train_epochs=2,
        **EVERY_OTHER_STEP,
        save_total_limit=50,
    )
    main([str(recipe)])
    back_to(recipe.parent / "run", recipe.parent / "again", 4)
    main([str(recipe.parent / "again" / "recipe.json")])
    assert results_of(recipe.parent / "run")["training"]["precision"] == precision
    assert_equal_runs(recipe.parent / "run", recipe.parent / "again")


def test_automatic_precision_of_a_gpu(write_recipe: WriteRecipe) -> None:
    """`auto` is bf16 where the GPU multiplies it natively, else fp16."""
    recipe = write_recipe(precision="auto")
    main([str(recipe)])
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert results_of(recipe.parent / "run")["training"]["precision"] == ("bf16" if native else "fp16")


def test_a_loss_on_a_gpu_is_judged_a_step_later() -> None:
    """The answer is that of the loss before, and asking for it makes nothing wait for the device."""
    watch, losses = FiniteWatch(), (1.0, math.nan, math.inf, 2.0, 3.0)
    given = [torch.tensor(loss, device="cuda") for loss in losses]
    watch.is_finite(given[0])  # pins its memory
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert [watch.is_finite(loss) for loss in given[1:]] == [True, False, False, True]
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("logging_steps", [1, 100])
def test_a_run_on_a_gpu_ends_at_its_first_bad_loss(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str], logging_steps: int
) -> None:
    """However rarely the log is transferred, the run ends within a step of the bad loss and names its step."""
    huge = {"learning_rate": 1e30, "max_grad_norm": 0.0, "eval_strategy": "no", "save_strategy": "no"}
    recipe = write_recipe(**huge, max_steps=30, logging_steps=logging_steps)
    with pytest.raises(SystemExit) as stop:
        main([str(recipe)])
    assert stop.value.code == 2
    assert " at step 3: the training has diverged" in capsys.readouterr().err
    assert len(events_of(recipe.parent / "run")) in (3, 4)


def test_the_scaler_of_fp16_is_in_the_checkpoint(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    """A checkpoint of fp16 has the scale and its count, one of bf16 has none."""
    for precision in ("fp16", "bf16"):
        recipe = write_recipe(precision=precision, output_dir=str(tmp_path / precision), **EVERY_OTHER_STEP)
        main([str(recipe), "--overwrite"])
        (path, *_) = (tmp_path / precision / "checkpoints").glob("checkpoint_step_*.pt")
        scaler = torch.load(path, weights_only=True)["scaler_state_dict"]
        assert (scaler is not None and scaler["scale"] > 0) == (precision == "fp16")


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_closed_form_is_what_a_gpu_saves(name: str, precision: str, dropout: float) -> None:
    """On a GPU, with and without dropout, the formula is within 15 % of what is saved."""
    model = build(name, device="cuda", dropout=dropout)
    assert expected_bytes(model, precision) == pytest.approx(saved_bytes(model, precision), rel=0.15)
