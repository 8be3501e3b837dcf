"""Texts of which another's tokenizer makes no token, and texts without a word: figures where there are any."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hindi_babylm.commands import main
from hindi_babylm.evaluation.classification import Classification, Labelled, bag_of_words
from hindi_babylm.evaluation.fine_tuning import PROTOCOL, score_classification
from hindi_babylm.evaluation.opening import open_scorer
from hindi_babylm.storage import read_json

SPECIAL = {
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module", params=["causal", "masked"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny model whose tokenizer knows Latin letters and drops all others."""
    folder: Path = tmp_path_factory.mktemp("latin") / request.param
    numbers = {token: number for number, token in enumerate([*SPECIAL.values(), *LETTERS])}
    backend = tokenizers.Tokenizer(models.BPE(numbers, []))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    sizes: Any = {"vocab_size": len(numbers), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    if request.param == "causal":
        config: Any = GPT2Config(n_layer=1, n_embd=16, n_head=2, n_positions=16, **sizes)
        GPT2LMHeadModel(config).save_pretrained(folder)
    else:
        config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, **sizes)
        BertForMaskedLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL).save_pretrained(folder)
    return folder


def evaluate(model: Path, folder: Path, *words: str) -> Any:
    """Return what the command's results.json holds."""
    main(["evaluate", str(model), *words, "--output_dir", str(folder / "out")])
    return read_json(folder / "out" / "results.json")


def test_a_document_of_no_token_costs_nothing(model: Path, tmp_path: Path) -> None:
    """Beside a document that has tokens, one of none adds its bytes and words, and no nats."""
    (tmp_path / "one.txt").write_text("abc", encoding="utf-8")
    (tmp_path / "two.txt").write_text("abc\n\nराम घर", encoding="utf-8")
    one, two = (
        evaluate(model, tmp_path, "--texts", str(tmp_path / name), "--tasks", "none") for name in ("one.txt", "two.txt")
    )
    pseudo = "pseudo_" if model.name == "masked" else ""
    assert (two["test"]["tokens"], two["test"]["bytes"], two["test"]["words"]) == (3, 3 + 16, 3)
    assert two["test"][f"{pseudo}loss"] == pytest.approx(one["test"][f"{pseudo}loss"])
    bits = [part["test"][f"{pseudo}bits_per_byte"]["value"] for part in (one, two)]
    assert bits[1] == pytest.approx(bits[0] * 3 / 19)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("texts.txt", "राम घर\n\nसीता आई", "makes no token of the 2 texts (राम घर...): give other texts, or a model"),
        ("pairs.tsv", "sen\twrong_sen\nab\tba\nराम है\tab", "makes no token of a sentence of a minimal pair: leave the"),
        (
            "questions.jsonl",
            json.dumps({"context": "राम", "choices": ["गया", "ab"], "answer": 0}),
            "question 1 has a choice of no token: change it, leave the suite out of tasks, or take a model",
        ),
    ],
)
def test_what_has_no_figure_is_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, line: str
) -> None:
    """Texts of no token at all, and pairs and choices with one of no token, end the command with one line."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    flags = ["--texts", str(tmp_path / name), "--tasks", "none"] if name == "texts.txt" else []
    with pytest.raises(SystemExit) as ended:
        evaluate(model, tmp_path, *(flags or ["--tasks", str(tmp_path / name)]))
    assert ended.value.code == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert told[0].startswith("error: evaluation: ")
    assert line in told[0]


def test_texts_of_no_token_are_all_classified_alike(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that sees no token of any text gives all of them one label, and has the figures of that."""
    monkeypatch.setitem(PROTOCOL, "num_train_epochs", 1)
    texts = Labelled(["राम आया", "सीता आई", "वह गई", "वे गए"], ["क", "ख", "ख", "ख"])
    task = Classification("unread", texts, texts, texts, 0)
    figures, items = score_classification(open_scorer(str(model)), task, seeds=1)
    (predicted,) = {item["predicted"]["0"] for item in items}
    assert figures["accuracy"]["value"] == {"क": 25.0, "ख": 75.0}[predicted]


def test_a_bag_without_words_is_the_majority() -> None:
    """Without a word in train every text gets the label of most, as a regression without features would have it."""
    from sklearn.linear_model import LogisticRegression

    train = Labelled(["!", "?", "!!", "…", "।"], ["ख", "ग", "ख", "ग", "क"])
    test = Labelled(["राम आया", "!"], ["क", "ख"])
    expected = LogisticRegression().fit(np.zeros((5, 1)), train.labels).predict(np.zeros((2, 1))).tolist()
    assert bag_of_words(Classification("x", train, test, test, 0)) == expected == ["ख", "ख"]
