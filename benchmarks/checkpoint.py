"""How much of the training time do checkpoints take? Saves and a few steps of a recipe's model, in one process.

Run `python -m benchmarks.checkpoint recipes/base.json [BLOCKS]`; BLOCKS is the batch (default: the recipe's). The
stall is what the training waits for: collecting and copying the state. The write goes on in a thread. Both are shown
as shares of a run that saves once an epoch of a given number of steps.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS, WARMUP, SAVES = 6, 2, 3


def main() -> None:
    """Print the seconds of a step, of collecting and of writing a checkpoint, and the share of the whole."""
    import torch
    from torch.utils.data import Dataset

    from hindi_babylm.modeling import build_model, count_parameters
    from hindi_babylm.recipe.parsing import parse_recipe
    from hindi_babylm.tokenization.training import train_tokenizer
    from hindi_babylm.training.arguments import HindiTrainingArguments
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer
    from hindi_babylm.training.trainer_state import collect_state

    recipe = parse_recipe(sys.argv[1])
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else recipe.training["global_batch_size"]
    tokenizer = train_tokenizer(["राम"], vocab_size=512)
    settings = {"vocab_size": recipe.tokenizer.vocab_size, **recipe.model.model_config}
    model = build_model(
        architecture=recipe.model.architecture,
        tokenizer=tokenizer,
        block_size=recipe.model.block_size,
        model_config=settings,
    )
    length = recipe.model.block_size

    class Rows(Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return STEPS * batch

        def __getitem__(self, index: int) -> dict[str, Any]:
            ids = torch.randint(0, recipe.tokenizer.vocab_size, (length,))
            return {"input_ids": ids, "labels": ids}

    with tempfile.TemporaryDirectory() as folder:
        arguments = HindiTrainingArguments(
            output_dir=folder,
            global_batch_size=batch,
            num_train_epochs=1,
            logging_steps=1,
            eval_strategy="no",
            save_strategy="no",
        )
        trainer = HindiLanguageModelTrainer(model, arguments, Rows())
        ends: list[float] = []
        log = trainer.log

        def timed(logs: dict[str, float], start_time: float | None = None) -> None:
            ends.append(time.perf_counter())
            log(logs, start_time)

        trainer.log = timed  # type: ignore[method-assign]
        trainer.train()
        gaps = [after - before for before, after in zip(ends[WARMUP:STEPS], ends[WARMUP + 1 : STEPS], strict=False)]
        step = statistics.median(gaps)
        stalls, writes = [], []
        for number in range(SAVES):
            path = Path(folder) / f"checkpoint_step_{number}.pt"
            start = time.perf_counter()
            trainer.writer.submit(path, collect_state(trainer), is_best=False, limit=1)
            middle = time.perf_counter()
            trainer.writer.wait()
            stalls.append(middle - start)
            writes.append(time.perf_counter() - middle)
        size = path.stat().st_size
    stall, write = statistics.median(stalls), statistics.median(writes)
    print(f"{count_parameters(model) / 1e6:.0f}M parameters, batch {batch} x {length}, {arguments.precision}")
    print(f"step {step:.3f} s; checkpoint {size / 2**20:.0f} MiB: stall {stall:.3f} s, write {write:.3f} s")
    for steps in (56, 200, 600, 2000):
        whole = stall + steps * step
        print(
            f"saved every {steps} steps: stall {100 * stall / whole:.2f} % of the time; "
            f"{100 * (stall + write) / (whole + write):.2f} % if the training waited for the write"
        )


if __name__ == "__main__":
    main()
