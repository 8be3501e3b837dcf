"""Every two of the choices that decide over a training are resumed exactly together."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import EVERY_OTHER_STEP, assert_equal_runs, back_to, finish

WriteRecipe = Callable[..., Path]

FACTORS: dict[str, tuple[Any, ...]] = {
    "architecture": ("gpt2", "llama", "deberta-v2"),
    "curriculum": ("none", "length", "competence"),
    "processes": (1, 2),
    "ema_decay": (None, 0.9),
    "optimizer": ("adamw", "muon"),
}
ROWS: list[tuple[Any, ...]] = [
    ("gpt2", "none", 1, None, "muon"),
    ("gpt2", "length", 2, None, "adamw"),
    ("gpt2", "competence", 2, 0.9, "adamw"),
    ("llama", "none", 2, 0.9, "muon"),
    ("llama", "length", 2, None, "muon"),
    ("llama", "competence", 1, 0.9, "adamw"),
    ("deberta-v2", "none", 1, None, "adamw"),
    ("deberta-v2", "length", 1, 0.9, "adamw"),
    ("deberta-v2", "competence", 2, None, "muon"),
]
# Those that bring most together; the others are slow.
BOUNDED = (ROWS[8],)


def test_the_rows_hold_every_pair() -> None:
    """For any two factors each combination of their choices is in a row."""
    for (first, one), (second, other) in itertools.combinations(enumerate(FACTORS.values()), 2):
        assert {(row[first], row[second]) for row in ROWS} == set(itertools.product(one, other))


@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id="-".join(map(str, row)), marks=() if row in BOUNDED else pytest.mark.slow) for row in ROWS],
)
def test_a_resumed_run_is_bit_identical(write_recipe: WriteRecipe, row: tuple[Any, ...]) -> None:
    """From the middle of the first and of the last epoch, dropout on: same bits, same events, same figures."""
    architecture, curriculum, processes, ema_decay, optimizer = row
    paced = (
        {"curriculum": "length", "pacing": "competence"} if curriculum == "competence" else {"curriculum": curriculum}
    )
    recipe = write_recipe(
        architecture=architecture,
        **paced,
        dropout=0.2,
        num_train_epochs=3,
        ema_decay=ema_decay,
        muon_learning_rate=0.01 if optimizer == "muon" else None,
        **EVERY_OTHER_STEP,
        save_total_limit=50,
    )
    finish(recipe, processes=processes)
    whole = recipe.parent / "run"
    last = max(int(path.stem.rsplit("_", 1)[1]) for path in (whole / "checkpoints").glob("checkpoint_step_*.pt"))
    for step in (2, last - 2):
        again = recipe.parent / f"from-{step}"
        back_to(whole, again, step)
        finish(again / "recipe.json", processes=processes)
        assert_equal_runs(whole, again)
