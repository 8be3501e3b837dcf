"""Run a recipe and write down which rows each step of this process saw: `python -m tests.logged_run RECIPE FILE`."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hindi_babylm.run import main
from hindi_babylm.signals import end_process
from hindi_babylm.training.trainer import HindiLanguageModelTrainer


def row_hash(row: torch.Tensor) -> str:
    """Return the hash under which a row of `input_ids` is logged."""
    return hashlib.sha256(row.numpy().tobytes()).hexdigest()


def logging_training_step(log: dict[int, list[str]]) -> Callable[..., torch.Tensor]:
    """Return a `training_step` that adds a hash of each row to `log`, by the number of completed steps."""
    original = HindiLanguageModelTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        hashes = [row_hash(row) for row in inputs["input_ids"].cpu()]
        log.setdefault(self.state.global_step, []).extend(hashes)
        return original(self, model, inputs, *args, **kwargs)

    return training_step


if __name__ == "__main__":
    rows: dict[int, list[str]] = {}
    HindiLanguageModelTrainer.training_step = logging_training_step(rows)  # type: ignore[method-assign]
    main([sys.argv[1]])
    Path(f"{sys.argv[2]}-{os.environ['RANK']}.json").write_text(json.dumps(rows), encoding="utf-8")
    end_process()
