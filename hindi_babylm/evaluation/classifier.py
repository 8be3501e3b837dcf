"""Fine-tune a model folder to classify texts with the stock Trainer: a program of its own, called by `fine_tuning`."""

import errno
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hindi_babylm.evaluation.fine_tuning import STEP
from hindi_babylm.storage import first_line, is_out_of_memory, read_json


class Steps(TrainerCallback):
    """Tell each step to the process that waits."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print a line."""
        print(STEP, flush=True)


def logits_of(folder: Path, job: dict[str, Any], *, seed: int) -> np.ndarray:
    """Fine-tune the model in `folder` and return its logits of the rows to score: float32 `(rows, classes)`.

    `seed` draws the weights of the head, the order of the training rows, and the dropout.
    """
    set_seed(seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(job["last"])
    tokenizer.padding_side = "right"  # what has a first token to classify by needs it in the first place
    # `use_cache` of a causal model: the keys and values of every text would be gathered with the logits.
    fields: Any = {"num_labels": job["classes"], "pad_token_id": tokenizer.pad_token_id, "use_cache": False}
    config = AutoConfig.from_pretrained(folder, **fields)
    model = AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(folder.parent / "trainer"),
        seed=seed,
        use_cpu=job["use_cpu"],
        per_device_eval_batch_size=job["arguments"]["per_device_train_batch_size"],
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **job["arguments"],
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=job["train"],
        callbacks=[Steps()],
    )
    trainer.train()
    return np.asarray(trainer.predict(job["scored"]).predictions)


def main() -> None:
    """Fine-tune as `job.json` of the folder on the command line asks, and write `logits.npy` there.

    Without enough memory it ends with the code ENOMEM and one line.
    """
    folder = Path(sys.argv[1])
    job = read_json(folder / "job.json")
    torch.set_num_threads(job["threads"])
    try:
        logits = [logits_of(folder / "model", job, seed=seed) for seed in job["seeds"]]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print(first_line(error) or type(error).__name__, file=sys.stderr)
        sys.exit(errno.ENOMEM)
    np.save(folder / "logits.npy", np.stack(logits))  # (seeds, rows, classes)


if __name__ == "__main__":
    main()
