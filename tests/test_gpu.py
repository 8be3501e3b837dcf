"""What only a CUDA device can show."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hindi_babylm.run import main
from tests.runs import EVERY_OTHER_STEP, assert_equal_runs, back_to, results_of
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


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_closed_form_is_what_a_gpu_saves(name: str, precision: str, dropout: float) -> None:
    """On a GPU, with and without dropout, the formula is within 15 % of what is saved."""
    model = build(name, device="cuda", dropout=dropout)
    assert expected_bytes(model, precision) == pytest.approx(saved_bytes(model, precision), rel=0.15)
