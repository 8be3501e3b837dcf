"""Hermetic surroundings and tiny corpora for every test."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hindi_babylm.storage import RunFolder
    from tests.fake_hub import FakeHub

# Before any Hugging Face library is imported: no test may reach the network or the user's caches.
os.environ.update(
    HF_HOME=os.environ.get("HINDI_BABYLM_TEST_HF_HOME") or tempfile.mkdtemp(prefix="hindi-babylm-hf-"),
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_MODE="offline",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.pop("WANDB_PROJECT", None)

TINY_GPT2 = {"n_layer": 2, "n_embd": 32, "n_head": 2}
TINY_LLAMA = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
TINY_DEBERTA = TINY_LLAMA
TINY = {"gpt2": TINY_GPT2, "llama": TINY_LLAMA, "deberta-v2": TINY_DEBERTA}
# fmt: off
WORDS = [
    "राम", "सीता", "घर", "नदी", "पानी", "किताब", "लड़का", "लड़की", "गाँव", "राजा", "क्षत्रिय",
    "विद्यार्थी", "चाँद", "सूरज", "पेड़", "फल", "माँ", "पिता", "भाई", "बहन", "जाता", "जाती",
    "खाता", "खाती", "देखा", "सुना", "कहा", "है", "था", "थी", "हैं", "और", "या", "ने", "को", "से",
    "में", "पर", "का", "की", "के", "बहुत", "छोटा", "बड़ी", "अच्छा", "नहीं",
]
# fmt: on


def hindi_sentences(count: int, *, seed: int) -> str:
    """Return `count` sentences of Hindi words, drawn with a seed."""
    import random

    draw = random.Random(seed)
    return " ".join(" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) + " ।" for _ in range(count))


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a JSONL corpus of 80 short documents from two sources."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(80):
            row = {
                "text": hindi_sentences(3 + number % 7, seed=number),
                "source": "stories" if number % 2 else "news",
                "id": f"doc-{number}",
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def tiny_recipe(
    corpus: Path,
    architecture: str = "gpt2",
    *,
    dropout: float = 0.0,
    curriculum: str = "none",
    repack: bool = False,
    pacing: str = "staged",
    document_attention: bool = False,
    **training: Any,
) -> dict[str, Any]:
    """Return a recipe that trains in about a second."""
    paced = {"competence_epochs": 2.0} if pacing == "competence" else {"stage_epochs": [1, 1, 1]}
    return {
        "corpus": {"sources": [{"path": str(corpus)}], "validation_fraction": 0.2, "test_fraction": 0.2},
        "tokenizer": {"vocab_size": 512},
        "model": {
            "architecture": architecture,
            "block_size": 32,
            "dropout": dropout,
            "repack": repack,
            "document_attention": document_attention,
            "model_config": TINY[architecture],
        },
        "training": {
            "global_batch_size": 8,
            **({} if "max_steps" in training else {"num_train_epochs": 1}),
            "learning_rate": 1e-2,
            "precision": "fp32",
            **training,
        },
        "evaluation": {"tasks": []},
        **({"curriculum": {"curriculum": curriculum, "pacing": pacing, **paced}} if curriculum != "none" else {}),
    }


@pytest.fixture
def write_recipe(tmp_path: Path, corpus_file: Path) -> Callable[..., Path]:
    """Return a function that writes a tiny recipe over the session's corpus and returns its path."""

    def write(name: str = "tiny", **settings: Any) -> Path:
        path = tmp_path / f"{name}.json"
        recipe = tiny_recipe(corpus_file, **{"output_dir": str(tmp_path / "run"), **settings})
        path.write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def block_log(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[str]]:
    """Log a hash of every row that a training step sees, by the number of completed steps."""
    from hindi_babylm.training.trainer import HindiLanguageModelTrainer
    from tests.logged_run import logging_training_step

    log: dict[int, list[str]] = {}
    monkeypatch.setattr(HindiLanguageModelTrainer, "training_step", logging_training_step(log))
    return log


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs write no report, a quarter of the time of a tiny one."""
    monkeypatch.setattr("hindi_babylm.reporting.report.write_report", lambda *args, **kwargs: None)


@pytest.fixture
def prompt_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let datasets not sleep for five seconds whenever a stream is left, which is for the end of a process."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> "RunFolder":
    """Return a finished run of a causal model with two milestones."""
    from hindi_babylm.run import main
    from hindi_babylm.storage import RunFolder

    path = tmp_path_factory.mktemp("finished")
    recipe = tiny_recipe(corpus_file, output_dir=str(path / "run"), milestones=[300, 600], seed=7)
    (path / "tiny.json").write_text(json.dumps(recipe), encoding="utf-8")
    main([str(path / "tiny.json")])
    return RunFolder(path / "run")


@pytest.fixture
def folder(finished: "RunFolder", tmp_path: Path) -> "RunFolder":
    """Return a copy of the finished run, to be changed."""
    shutil.copytree(finished.path, tmp_path / "run")
    return type(finished)(tmp_path / "run")


@pytest.fixture
def hub(tmp_path: Path) -> "Iterator[FakeHub]":
    """Yield a hub that this process takes for the real one."""
    from tests.fake_hub import reached, running

    with running() as hub, reached(hub, str(tmp_path / "hf")):
        yield hub
