"""Run a recipe in which one process has a loss of NaN: `python -m tests.diverging_run RECIPE STEP RANK`."""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from hindi_babylm.run import main
from hindi_babylm.training.trainer import HindiLanguageModelTrainer


def diverging_training_step(step: int, rank: int) -> Callable[..., torch.Tensor]:
    """Return a `training_step` whose loss, and the gradient with it, is NaN at `step` in the process `rank`."""
    original = HindiLanguageModelTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = original(self, model, inputs, *args, **kwargs)
        if self.state.global_step == step - 1 and os.environ.get("RANK", "0") == str(rank):
            next(model.parameters()).grad.fill_(torch.nan)
            loss = loss * torch.nan
        return loss

    return training_step


if __name__ == "__main__":
    step, rank = int(sys.argv.pop(2)), int(sys.argv.pop(2))
    HindiLanguageModelTrainer.training_step = diverging_training_step(step, rank)  # type: ignore[method-assign]
    main()
