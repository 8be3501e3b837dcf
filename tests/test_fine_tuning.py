"""Fine-tuning tasks: what is read, what is counted, and that nothing of a fine-tuning is left but its figures."""

import dataclasses
import errno
import json
import random
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, set_seed

from hindi_babylm import metrics
from hindi_babylm.evaluation import classifier, fine_tuning
from hindi_babylm.evaluation.classification import (
    Classification,
    Labelled,
    bag_of_words,
    figures_of,
    load_classification,
    macro_f1,
    majority,
    words_of,
)
from hindi_babylm.evaluation.fine_tuning import PROTOCOL, check_classification, score_classification
from hindi_babylm.evaluation.scorer import Scorer
from hindi_babylm.evaluation.tasks import TASKS, find_task, task_texts
from hindi_babylm.modeling import build_model
from hindi_babylm.run import main
from hindi_babylm.storage import UserError, read_json
from hindi_babylm.tokenization.training import train_tokenizer
from tests.conftest import TINY, WORDS, hindi_sentences, tiny_recipe

BLOCK = 32


def toy_split(count: int, *, seed: int) -> Labelled:
    """Return texts whose label is the word that they begin with."""
    draw = random.Random(seed)
    labels = [draw.choice(["फल", "जल"]) for _ in range(count)]
    texts = [f"{label} {hindi_sentences(1, seed=1000 * seed + index)}" for index, label in enumerate(labels)]
    return Labelled(texts, labels)


@pytest.fixture(scope="module")
def task() -> Classification:
    """Return a task that a tiny model can learn."""
    train, dev, test = (toy_split(count, seed=seed) for seed, count in enumerate((48, 8, 20), start=1))
    return Classification("toy", train, dev, Labelled([*test.texts[:-1], test.texts[-1] * 9], test.labels), 0)


def scorer_of(task: Classification, architecture: str = "gpt2") -> Scorer:
    """Return an untrained tiny model."""
    tokenizer = train_tokenizer([*task.train.texts, *WORDS], vocab_size=512)
    settings: Any = {"tokenizer": tokenizer, "block_size": BLOCK, "model_config": TINY[architecture]}
    model = build_model(architecture=architecture, dropout=0.0, seed=1, **settings)
    return Scorer.of(model.eval(), tokenizer, block_size=BLOCK)


def write_splits(folder: Path, names: tuple[str, str, str], header: str, rows: list[str]) -> Path:
    """Write a row to each of three files and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, row in zip(names, rows, strict=True):
        (folder / name).write_text(f"{header}\r\n{row}\r\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("seed", range(20))
def test_macro_f1_is_that_of_scikit_learn(seed: int) -> None:
    """Classes that are never found, never true or not at all there count as in scikit-learn, weighted or not."""
    draw = np.random.default_rng(seed)
    labels, predicted = draw.integers(0, 6, size=(2, 9))
    assert macro_f1(labels, predicted) == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    counts = draw.integers(0, 3, size=9) + (np.arange(9) == 0)
    again = f1_score(labels.repeat(counts), predicted.repeat(counts), average="macro", zero_division=0)
    assert macro_f1(labels, predicted, counts) == pytest.approx(again)


def test_classifiers_that_are_always_right_have_exact_limits() -> None:
    """Where all classifiers are right on all texts the accuracy has Clopper's and Pearson's limits over the texts."""
    figures = figures_of(["a", "b"] * 10, [["a", "b"] * 10] * 3)
    assert figures["accuracy"] == {"value": 100, "low": pytest.approx(100 * 0.025 ** (1 / 20)), "high": 100}
    figures = figures_of(["a", "b"] * 10, [["a", "b"] * 10, ["a", "b"] * 9 + ["a", "a"]])
    assert 90 < figures["accuracy"]["low"] < figures["accuracy"]["value"] == 97.5 < figures["accuracy"]["high"] == 100


def test_intervals_are_those_of_resampled_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and interval of both figures are means over the classifiers of scikit-learn's, on the same resamples."""
    monkeypatch.setattr(metrics, "BOOTSTRAP_SAMPLES", 60)
    draw = np.random.default_rng(0)
    names = np.asarray(["a", "b", "c"])
    labels = names[draw.integers(0, 3, size=30)]
    predicted = [np.where(draw.random(30) < 0.6, labels, names[draw.integers(0, 3, size=30)]) for _ in range(2)]
    figures = figures_of(labels.tolist(), [row.tolist() for row in predicted], seed=5)
    for name, score in (
        ("macro_f1", lambda true, found: f1_score(true, found, average="macro", zero_division=0)),
        ("accuracy", accuracy_score),
    ):
        assert figures[name]["value"] == pytest.approx(100 * np.mean([score(labels, row) for row in predicted]))
        generator = np.random.default_rng(5)
        samples = []
        for _ in range(60):
            counts = generator.multinomial(30, np.full(30, 1 / 30))
            samples.append(np.mean([score(labels.repeat(counts), row.repeat(counts)) for row in predicted]))
        low, high = 100 * np.quantile(samples, [0.025, 0.975])
        assert (figures[name]["low"], figures[name]["high"]) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("names", "header"),
    [
        (("train.tsv", "dev.tsv", "test.tsv"), "index_id\tcategory\ttext"),
        (("train.tsv", "validation.tsv", "test.tsv"), "index_id\tlabel\ttext"),
        (("BBC_train_data.tsv", "BBC_dev_data.tsv", "BBC_test_data.tsv"), "index_id\tTopic_Label\tSentence"),
    ],
)
def test_folders_of_each_layout_are_read(tmp_path: Path, names: tuple[str, str, str], header: str) -> None:
    """SIB-200's layout, another name of its dev split, and MIDAS' files as they lie give the same task."""
    rows = ["1\tक\tराम आया\r\n2\tख\tसीता आई", "3\tक\tवह आया", "4\tग\tवह गई"]
    folder = write_splits(tmp_path / "BBC", names, header, rows)
    (folder / "class_to_label_mapping.txt").write_text('"india" : 0', encoding="utf-8")
    found = load_classification(folder)
    assert (found.name, found.classes, found.unseen, found.left_out) == ("BBC", ["क", "ख"], ["ग"], 0)
    assert found.train == Labelled(["राम आया", "सीता आई"], ["क", "ख"])
    assert found.dev.texts == ["वह आया"]
    assert (find_task(str(folder)).kind, task_texts(str(folder))) == ("fine_tuning", ["वह गई"])


SPLITS = ("train.tsv", "dev.tsv", "test.tsv")
TWO = "राम आया\tक\nसीता आई\tख"


@pytest.mark.parametrize(
    ("names", "header", "train", "message"),
    [
        (
            ("train.tsv", "dev.tsv", "x.tsv"),
            "text\tlabel",
            TWO,
            r"has 0 files of the test split: expected one of test.tsv, ",
        ),
        (
            SPLITS,
            "satz\tlabel",
            TWO,
            r"train.tsv has 0 columns of texts: expected one of text, Sentence; it has satz, l",
        ),
        (SPLITS, "text\tx", TWO, r"has 0 columns of labels: expected one of category, label, \*_Label"),
        (SPLITS, "text\tlabel", "राम आया\tक", r"the train split of .* has 1 labels: expected two"),
        (SPLITS, "text\tlabel", TWO + "\nवह\t ", r"train.tsv: line 4 lacks its text or its label"),
    ],
)
def test_what_is_no_task_is_refused(
    tmp_path: Path, names: tuple[str, str, str], header: str, train: str, message: str
) -> None:
    """A folder that is no task is refused in one line that says which file, what it has and what is expected."""
    folder = write_splits(tmp_path / "task", names, header, [train, "वह आया\tक", "वह गई\tक"])
    with pytest.raises(UserError, match=f"^evaluation: .*{message}"):
        load_classification(folder)


def test_training_texts_of_other_splits_are_left_out(tmp_path: Path) -> None:
    """A training text that dev or test has too, in other punctuation, case or spacing, is left out and counted."""
    rows = ["राम  आया\tक\nSITA आई।\tख\nवह गई\tख\nवह गए\tक", "राम आया।\tक", "Sita आई\tख"]
    found = load_classification(write_splits(tmp_path / "task", SPLITS, "text\tlabel", rows))
    assert (found.train.texts, found.left_out) == (["वह गई", "वह गए"], 2)


def test_the_bundled_task_is_whole() -> None:
    """SIB-200 has its counts, and the baselines are where they were measured: with matras kept 66 %, not 46 %."""
    found = load_classification(Path(str(TASKS["sib200_hin"])))
    assert [len(split.texts) for split in (found.train, found.dev, found.test)] == [701, 99, 204]
    assert (len(found.classes), found.unseen, found.left_out) == (7, [], 0)
    assert majority(found) == "science/technology"
    right = np.mean([label == other for label, other in zip(bag_of_words(found), found.test.labels, strict=True)])
    assert 0.62 < right < 0.70
    assert words_of("क्षत्रिय, ज़मीन और विद्\u200dया") == ["क्षत्रिय", "ज़मीन", "और", "विद्\u200dया"]


@pytest.mark.parametrize("architecture", list(TINY))
def test_logits_are_those_of_texts_alone(tmp_path: Path, task: Classification, architecture: str) -> None:
    """At a learning rate of 0 the classifier is the model with a fresh head, and padding changes nothing."""
    scorer = scorer_of(task, architecture)
    scorer.model.save_pretrained(tmp_path / "model")
    scorer.tokenizer.save_pretrained(tmp_path / "model")
    rows, _ = fine_tuning._encode(scorer, task.test.texts)
    arguments = {**PROTOCOL, "num_train_epochs": 1, "learning_rate": 0.0}
    train = [{**row, "label": index % 3} for index, row in enumerate(rows)]
    job = {"classes": 3, "use_cpu": True, "arguments": arguments, "train": train, "scored": rows}
    logits = classifier.logits_of(tmp_path / "model", job, seed=4)
    assert logits.shape == (len(rows), 3)
    set_seed(4)
    alone: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", num_labels=3).eval()
    weights = alone.base_model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in scorer.model.base_model.state_dict().items())
    with torch.no_grad():
        expected = [alone(input_ids=torch.tensor([row["input_ids"]])).logits[0].numpy() for row in rows]
    assert len({len(row["input_ids"]) for row in rows}) > 3
    assert logits == pytest.approx(np.stack(expected), abs=1e-5)


def test_figures_are_those_of_the_classifiers_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Classification
) -> None:
    """A tiny model learns; the figures follow from the items; weights, generators and the disk are as before.

    The second time, among the variables of a launcher that nobody answers, everything is the same.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(PROTOCOL, "learning_rate", 3e-3)
    scorer = scorer_of(task)
    before = {name: value.clone() for name, value in scorer.model.state_dict().items()}
    states = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state())  # noqa: NPY002
    figures, items = score_classification(scorer, task, seeds=2)
    assert all(torch.equal(value, before[name]) for name, value in scorer.model.state_dict().items())
    assert random.getstate() == states[0]
    assert repr(np.random.get_state()) == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert list(tmp_path.iterdir()) == []
    assert figures["majority"]["accuracy"]["value"] < 60 < 70 < figures["accuracy"]["value"]
    labels = [item["label"] for item in items]
    assert labels == task.test.labels
    scores = [
        (100 * f1_score(labels, found, average="macro"), 100 * accuracy_score(labels, found))
        for found in ([item["predicted"][seed] for item in items] for seed in "01")
    ]
    found = [[entry["macro_f1"], entry["accuracy"]] for entry in figures["seeds"]]
    assert np.asarray(found) == pytest.approx(np.asarray(scores))
    for place, name in enumerate(("macro_f1", "accuracy")):
        values = [score[place] for score in scores]
        assert figures[name]["value"] == pytest.approx(sum(values) / 2)
        assert figures[name]["standard_deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert sum(item["points"] for item in items) / len(items) == pytest.approx(figures["accuracy"]["value"] / 100)
    assert figures["truncated"] == {"train": 0, "dev": 0, "test": 1}
    assert (figures["classes"], figures["train"], figures["dev"], figures["test"]) == (2, 48, 8, 20)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert score_classification(scorer, task, seeds=2) == (figures, items)


def test_a_fine_tuning_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, task: Classification) -> None:
    """What the other process dies of is told whole, and a model without numbers is refused in one line."""
    scorer = scorer_of(task)
    with torch.no_grad():
        next(iter(scorer.model.parameters())).fill_(torch.nan)
    monkeypatch.setitem(PROTOCOL, "num_train_epochs", 1)
    with pytest.raises(UserError, match=r"^evaluation: fine-tuning on toy diverged"):
        score_classification(scorer, task, seeds=1)
    monkeypatch.setitem(PROTOCOL, "no_such_argument", 1)
    with pytest.raises(RuntimeError, match=r"(?s)fine-tuning on toy ended with code 1:.*no_such_argument"):
        score_classification(scorer, task, seeds=1)


# Read by Python as it starts; does something once everything is imported and the job is read.
ONCE_IT_RUNS = """
import os, resource, sys

def short_of_memory(event, arguments):
    if event == "open" and str(arguments[0]).endswith("job.json"):
        {action}

sys.addaudithook(short_of_memory)
"""
LIMIT = """
        lines = open("/proc/self/status").read().splitlines()
        used, = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit lies above what is used, as /proc has it")
@pytest.mark.parametrize(
    ("action", "reason"),
    [(LIMIT, "can't allocate memory"), ("os.kill(os.getpid(), 9)", r"it was killed, as the system does .*")],
)
def test_missing_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Classification, action: str, reason: str
) -> None:
    """A fine-tuning that gets no more memory, or is killed by the system for it, ends with one line of ways out."""
    (tmp_path / "sitecustomize.py").write_text(ONCE_IT_RUNS.format(action=action.strip()), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    # One batch of 512 texts of 512 tokens: the states of a layer take more than 1 GiB.
    monkeypatch.setitem(PROTOCOL, "per_device_train_batch_size", 512)
    long = Labelled(["फल " * 510, "जल " * 510] * 256, ["फल", "जल"] * 256)
    tokenizer = train_tokenizer([*task.train.texts, *WORDS], vocab_size=512)
    model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=512, model_config=TINY["gpt2"])
    scorer = Scorer.of(model.eval(), tokenizer, block_size=512)
    with pytest.raises(UserError) as caught:
        score_classification(scorer, dataclasses.replace(task, train=long), seeds=1)
    ways = (
        "free memory of the machine and give the command again; or score the model by hindi-babylm evaluate with a "
        "--block_size under 512, which cuts texts; or leave toy out of tasks"
    )
    began = "evaluation: out of memory while fine-tuning on toy, in batches of 512 texts of up to 512 tokens: "
    assert re.fullmatch(rf"{began}{ways} \([^\n]*{reason}[^\n]*\)", str(caught.value)), caught.value


def test_missing_memory_of_a_gpu_names_the_cpu(task: Classification) -> None:
    """Where the GPU had too little, the line says whose memory, how to take the CPU, and what CUDA said last."""
    model: Any = SimpleNamespace(device=torch.device("cuda"))
    told = "Traceback\nCUDA out of memory. Tried to allocate 2.00 GiB.\n"
    with pytest.raises(UserError) as caught:
        fine_tuning._refuse_out_of_memory(
            dataclasses.replace(scorer_of(task), model=model), task, errno.ENOMEM, told, longest=20
        )
    line = str(caught.value)
    assert "free memory of the GPU and give the command again" in line
    assert "a --block_size under 20, which cuts texts, or on the CPU with CUDA_VISIBLE_DEVICES= before it" in line
    assert line.endswith("(CUDA out of memory. Tried to allocate 2.00 GiB.)")


def test_a_model_without_a_classifier_is_refused(task: Classification) -> None:
    """Of some models transformers has a language model alone: one line, and no process is started."""
    model: Any = SimpleNamespace(config=SimpleNamespace(model_type="mamba"))
    with pytest.raises(UserError, match="transformers has no classifier for mamba models: leave toy out of tasks"):
        score_classification(dataclasses.replace(scorer_of(task), model=model), task)


def test_a_context_without_room_is_refused(task: Classification) -> None:
    """A context of two tokens holds none of a text."""
    with pytest.raises(UserError, match=r"room for 2 tokens is too little to classify texts \(toy\): raise block_size"):
        check_classification(None, task, room=2)


def test_a_run_fine_tunes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe that names a folder has its figures, a row a test text in items/, and both in table and report."""
    monkeypatch.setitem(PROTOCOL, "num_train_epochs", 1)
    header = "Sentence\tSentiment_Label"
    splits = [toy_split(count, seed=count) for count in (20, 6, 7)]
    rows = ["\n".join(map("\t".join, zip(split.texts, split.labels, strict=True))) for split in splits]
    names = ("PR_train_data.tsv", "PR_dev_data.tsv", "PR_test_data.tsv")
    folder = write_splits(tmp_path / "PR", names, header, rows)
    recipe = tiny_recipe(corpus_file, max_steps=2, output_dir=str(tmp_path / "run"))
    recipe["evaluation"]["tasks"] = [str(folder)]
    (tmp_path / "tiny.json").write_text(json.dumps(recipe), encoding="utf-8")
    main([str(tmp_path / "tiny.json")])
    score = read_json(tmp_path / "run" / "results.json")["fine_tuning"]["PR"]
    items = [json.loads(line) for line in (tmp_path / "run/items/PR.jsonl").read_text("utf-8").splitlines()]
    assert [item["text"] for item in items] == splits[2].texts
    assert score["accuracy"]["value"] == pytest.approx(100 * sum(item["points"] for item in items) / 7)
    assert [entry["seed"] for entry in score["seeds"]] == [0, 1, 2]
    out = capsys.readouterr().out
    assert "Fine-tuning PR: 6 steps" in out
    assert "3 seeds fine-tuned" in out
    assert ">Fine-tuning</h2>" in (tmp_path / "run/report.html").read_text("utf-8")
