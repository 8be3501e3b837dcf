"""Fine-tuning tasks: how well a finished model learns to classify texts, under one protocol for all models."""

import errno
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindi_babylm.console import stage, warn
from hindi_babylm.evaluation.classification import (
    Classification,
    bag_of_words,
    figures_of,
    majority,
    values_of,
)
from hindi_babylm.storage import UserError, write_json

if TYPE_CHECKING:
    import numpy as np

    from hindi_babylm.evaluation.ngram import Floors
    from hindi_babylm.evaluation.scorer import Scorer

SEEDS = 3
# The protocol: fields of TrainingArguments. Linear decay to 0, fp32, and the weights of the last step.
PROTOCOL: dict[str, Any] = {
    "num_train_epochs": 10,
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-4,
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
}
STEP = "step"  # what the process that fine-tunes prints after each
# What a launcher tells its processes; the one that fine-tunes is alone.
_LAUNCHER = re.compile(
    r"(ACCELERATE|FSDP|TORCHELASTIC|MASTER|PMI|OMPI|MV2|MPI)_|((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)$|ROLE_NAME$"
)


def check_classification(tokenizer: Any, task: Classification, *, room: int) -> None:
    """Raise UserError for a context without room for a token of a text between the two around it."""
    if room < 3:
        raise UserError(
            f"evaluation: room for {room} tokens is too little to classify texts ({task.name}): raise block_size"
        )


def score_classification(
    scorer: "Scorer", task: Classification, *, floors: "Floors | None" = None, seeds: int = SEEDS
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return macro-F1 and accuracy of classifiers fine-tuned from a model, beside two baselines, and a row a test text.

    A classifier for each of `seeds` is trained by `PROTOCOL` on train alone and scores test once; dev is scored beside
    it and decides nothing. A text stands between the two tokens of `scorer`; what is longer than the context is cut at
    its end, and counted. The model itself is not touched: a copy is trained in a process of its own, alone on the
    model's device.

    Raises UserError for a model of which transformers has no classifier, and for a fine-tuning that has diverged or
    lacked memory.

    >>> from hindi_babylm.evaluation.classification import Labelled
    >>> from hindi_babylm.evaluation.scorer import Scorer
    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> fruits = Labelled(["राम ने फल खाया", "फल मीठा है", "नदी में पानी है", "पानी बहता है"], ["फल", "फल", "जल", "जल"])
    >>> task = Classification("fruits", train=fruits, dev=fruits, test=fruits, left_out=0)
    >>> tokenizer = train_tokenizer(fruits.texts, vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size)
    >>> figures, items = score_classification(Scorer.of(model, tokenizer, block_size=16), task, seeds=1)
    >>> figures["majority"]["accuracy"]["value"], figures["bag_of_words"]["accuracy"]["value"]
    (50.0, 100.0)
    >>> figures["accuracy"]["value"] == 100 * sum(item["points"] for item in items) / 4
    True
    """
    import numpy as np
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    if scorer.model.config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise UserError(
            f"evaluation: transformers has no classifier for {scorer.model.config.model_type} models: leave "
            f"{task.name} out of tasks"
        )
    check_classification(scorer.tokenizer, task, room=scorer.room)
    if task.left_out:
        warn(f"{task.name}: {task.left_out} training texts are left out, which dev or test has too")
    if task.unseen:
        warn(f"{task.name}: no training text has the labels {', '.join(task.unseen)} of the test split")
    splits = {"train": task.train, "dev": task.dev, "test": task.test}
    rows, truncated = {}, {}
    for name, split in splits.items():
        rows[name], truncated[name] = _encode(scorer, split.texts)
    codes = {label: code for code, label in enumerate(task.classes)}
    for row, label in zip(rows["train"], task.train.labels, strict=True):
        row["label"] = codes[label]
    logits = _fine_tune(scorer, task, rows, seeds=seeds)
    named = np.asarray(task.classes)[logits.argmax(axis=-1)].tolist()
    dev, test = (
        [labels[: len(task.dev.texts)] for labels in named],
        [labels[len(task.dev.texts) :] for labels in named],
    )
    figures = figures_of(task.test.labels, test)
    single = [values_of(task.test.labels, labels) for labels in test]
    on_dev = [values_of(task.dev.labels, labels) for labels in dev]
    for name in ("macro_f1", "accuracy"):
        values = [own[name] for own in single]
        figures[name]["standard_deviation"] = float(np.std(values, ddof=1)) if seeds > 1 else None
    figures |= {
        "seeds": [
            {
                "seed": seed,
                **single[seed],
                **{f"dev_{name}": value for name, value in on_dev[seed].items()},
            }
            for seed in range(seeds)
        ],
        "majority": figures_of(task.test.labels, [[majority(task)] * len(task.test.texts)]),
        "bag_of_words": figures_of(task.test.labels, [bag_of_words(task)]),
        "classes": len(task.classes),
        "unseen_labels": task.unseen,
        **{name: len(split.texts) for name, split in splits.items()},
        "left_out": task.left_out,
        "truncated": truncated,
    }
    items = [
        {
            "index": index,
            "text": text,
            "label": label,
            "predicted": {str(seed): test[seed][index] for seed in range(seeds)},
            "points": sum(labels[index] == label for labels in test) / seeds,
        }
        for index, (text, label) in enumerate(zip(task.test.texts, task.test.labels, strict=True))
    ]
    return figures, items


def _encode(scorer: "Scorer", texts: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Return a row for each text, its tokens between those of `scorer`, and how many texts were cut to the context."""
    encoded = scorer.encode(texts)
    room = scorer.block_size - 2
    ids = [[scorer.first, *tokens[:room].tolist(), scorer.last] for tokens in encoded]
    rows: list[dict[str, Any]] = [{"input_ids": own, "attention_mask": [1] * len(own)} for own in ids]
    return rows, sum(len(tokens) > room for tokens in encoded)


def _fine_tune(
    scorer: "Scorer", task: Classification, rows: dict[str, list[dict[str, Any]]], *, seeds: int
) -> "np.ndarray":
    """Return the logits of dev and test of a classifier for each seed: `(seeds, texts, classes)`."""
    import numpy as np
    import torch

    steps = (
        seeds * PROTOCOL["num_train_epochs"] * math.ceil(len(rows["train"]) / PROTOCOL["per_device_train_batch_size"])
    )
    with (
        tempfile.TemporaryDirectory(prefix="hindi-babylm-") as own,
        stage(f"Fine-tuning {task.name}", steps, "steps") as progress,
    ):
        folder = Path(own)
        scorer.model.save_pretrained(folder / "model")
        scorer.tokenizer.save_pretrained(folder / "model")
        job = {
            "seeds": list(range(seeds)),
            "classes": len(task.classes),
            "last": scorer.last,
            "arguments": PROTOCOL,
            "threads": torch.get_num_threads(),
            "use_cpu": scorer.model.device.type == "cpu",
            "train": rows["train"],
            "scored": [*rows["dev"], *rows["test"]],
        }
        write_json(folder / "job.json", job)
        with open(folder / "errors", "w", encoding="utf-8") as errors, _start(folder, scorer, errors) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    progress.update(line == f"{STEP}\n")
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            told = (folder / "errors").read_text(encoding="utf-8", errors="replace")
            longest = max(len(row["input_ids"]) for split in rows.values() for row in split)
            _refuse_out_of_memory(scorer, task, process.returncode, told, longest=longest)
            raise RuntimeError(f"fine-tuning on {task.name} ended with code {process.returncode}:\n{told}")
        logits: np.ndarray = np.load(folder / "logits.npy")
    if not np.isfinite(logits).all():
        raise UserError(f"evaluation: fine-tuning on {task.name} diverged: leave it out of tasks")
    return logits


def _refuse_out_of_memory(scorer: "Scorer", task: Classification, code: int, told: str, *, longest: int) -> None:
    """Raise UserError if a fine-tuning that ended with `code`, after the words `told`, lacked memory."""
    reasons = {
        errno.ENOMEM: told.strip().rpartition("\n")[2],
        -9: "it was killed, as the system does with what takes the most",
    }
    if code in reasons:
        on_cpu = scorer.model.device.type == "cpu"
        raise UserError(
            f"evaluation: out of memory while fine-tuning on {task.name}, in batches of "
            f"{PROTOCOL['per_device_train_batch_size']} texts of up to {longest} tokens: free memory of "
            f"the {'machine' if on_cpu else 'GPU'} and give the command again; or score the model by hindi-babylm "
            f"evaluate with a --block_size under {longest}, which cuts texts"
            f"{'' if on_cpu else ', or on the CPU with CUDA_VISIBLE_DEVICES= before it'}; or leave {task.name} out of "
            f"tasks ({reasons[code]})"
        )


def _start(folder: Path, scorer: "Scorer", errors: Any) -> "subprocess.Popen[str]":
    """Start `classifier` with the modules of this process, and none of what a launcher has told it."""
    import torch

    surroundings = {name: value for name, value in os.environ.items() if not _LAUNCHER.match(name)}
    surroundings |= {
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",
    }
    device = scorer.model.device
    if device.type == "cuda":
        # What scoring has left in this process's cache would be missing in the other one.
        torch.cuda.empty_cache()
        # Where the Trainer sees two GPUs, it trains on both, with twice the batch.
        seen = surroundings.get("CUDA_VISIBLE_DEVICES")
        index = device.index or 0
        surroundings["CUDA_VISIBLE_DEVICES"] = seen.split(",")[index] if seen else str(index)
    command = [sys.executable, "-P", "-m", "hindi_babylm.evaluation.classifier", str(folder)]
    return subprocess.Popen(command, env=surroundings, stdout=subprocess.PIPE, stderr=errors, text=True)
