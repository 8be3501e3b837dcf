"""`hindi-babylm evaluate`: a run's own figures again, and any other model's, against loops that know none of it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hindi_babylm.commands import main
from hindi_babylm.evaluation.fine_tuning import PROTOCOL
from hindi_babylm.evaluation.opening import open_scorer
from hindi_babylm.evaluation.pseudo_likelihood import pseudo_nll
from hindi_babylm.evaluation.scorer import encode
from hindi_babylm.run import main as run_main
from hindi_babylm.storage import read_json
from tests.conftest import WORDS, hindi_sentences

PLAIN = {"unk_token": "<unk>", "eos_token": "</s>"}
PAIRS = "phenomenon\tsen\twrong_sen\nnumber\tघर है\tघर हैं\nnumber\tराम था\tराम थी\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with texts, pairs, and models of others."""
    path = tmp_path_factory.mktemp("evaluate")
    (path / "pairs.tsv").write_text(PAIRS, encoding="utf-8")
    (path / "texts.txt").write_text("\n\n".join(hindi_sentences(2, seed=n) for n in range(6)), encoding="utf-8")
    rows = [{"text": hindi_sentences(n + 1, seed=n), "source": "ab"[n % 2], "id": f"d{n}"} for n in range(4)]
    (path / "texts.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def word_tokenizer(
    special: dict[str, str], *, words: list[str] = WORDS, lowered: bool = False
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words with the special tokens of another toolkit."""
    vocabulary = [*special.values(), *words, "।"]
    numbers = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    backend = tokenizers.Tokenizer(models.WordLevel(numbers, unk_token=special.get("unk_token", "।")))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece()
    if lowered:
        backend.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def save_gpt2(path: Path, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> Any:
    """Save a tiny GPT-2 whose configuration knows nothing of its tokenizer."""
    torch.manual_seed(0)
    size: Any = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 12, "initializer_range": 0.5}
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **{**size, **settings})).eval()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model


def evaluated(model: Path, *, texts: Path, tasks: str | Path = "none") -> Any:
    """Return what results.json holds when the command has scored a model."""
    words = ["evaluate", str(model), "--texts", str(texts), "--tasks", str(tasks), "--output_dir", f"{model}-out"]
    main(words)
    return read_json(Path(f"{model}-out") / "results.json")


def plain_bits(model: Any, tokenizer: Any, texts: list[str], *, first: int, window: int) -> float:
    """Return the bits per byte of texts token by token, each with the context that the windows give it."""
    nats = 0.0
    for text in texts:
        ids = [first, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        for place in range(1, len(ids)):
            start = (window // 2) * max(0, math.ceil((place - window) / (window // 2)))
            with torch.no_grad():
                logits = model(torch.tensor([ids[start:place]])).logits[0, -1]
            nats -= torch.log_softmax(logits.double(), dim=-1)[ids[place]].item()
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def test_a_run_scores_as_it_did_itself(
    write_recipe: Callable[..., Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command gives a run's model the figures of results.json and its items, to the last digit."""
    recipe = write_recipe(max_steps=4, milestones=[100])
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["evaluation"]["tasks"] = [str(folder / "pairs.tsv")]
    recipe.write_text(json.dumps(content), encoding="utf-8")
    run_main([str(recipe)])
    run = tmp_path / "run"
    own = read_json(run / "results.json")
    for model in (run, run / "final_model"):
        capsys.readouterr()
        main(["evaluate", str(model), "--output_dir", str(tmp_path / "again")])
        again = read_json(tmp_path / "again" / "results.json")
        assert again["test"] == own["test"]
        assert again["minimal_pairs"] == own["minimal_pairs"]
        for name in ("test", "pairs"):
            lines = [(base / "items" / f"{name}.jsonl").read_bytes() for base in (run, tmp_path / "again")]
            assert lines[0] == lines[1]
        table, told = capsys.readouterr()
        assert "were not cut out" not in told
        assert f"{own['test']['bits_per_byte']['value']:.3f} [" in table
        assert "trigram floor" in table
    (revision,) = sorted((run / "revisions").iterdir())[:1]
    (tmp_path / "other.tsv").write_text(PAIRS + "number\tनदी है\tनदी हैं\n", encoding="utf-8")
    main(["evaluate", str(revision), "--tasks", str(folder / "pairs.tsv"), str(tmp_path / "other.tsv")])
    told = f"the training text of {run} may hold test texts of {tmp_path / 'other.tsv'}: they were not cut out of it"
    assert told in " ".join(capsys.readouterr().err.split())
    early = read_json(tmp_path / f"run-{revision.name}-evaluation" / "results.json")
    assert early["test"]["bits_per_byte"] != own["test"]["bits_per_byte"]
    assert early["test"]["trigram_bits_per_byte"] == own["test"]["trigram_bits_per_byte"]


@pytest.mark.parametrize(
    ("special", "first"),
    [
        ({"eos_token": "</s>"}, "</s>"),
        ({"bos_token": "<s>", "eos_token": "</s>"}, "<s>"),
        ({"cls_token": "[CLS]"}, "[CLS]"),
    ],
)
def test_a_causal_model_of_others(folder: Path, tmp_path: Path, special: dict[str, str], first: str) -> None:
    """With BOS, with EOS alone and with neither, bits per byte are those of a plain loop, in windows of its length."""
    tokenizer = word_tokenizer({"unk_token": "<unk>", **special})
    model = save_gpt2(tmp_path / "gpt2", tokenizer)
    results = evaluated(tmp_path / "gpt2", texts=folder / "texts.jsonl")
    texts = [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text("utf-8").splitlines()]
    begin: Any = tokenizer.convert_tokens_to_ids(first)
    expected = plain_bits(model, tokenizer, texts, first=begin, window=12)
    assert results["test"]["bits_per_byte"]["value"] == pytest.approx(expected, rel=1e-6)
    assert results["model"]["block_size"] == 12
    assert results["model"]["first_context"] == first
    assert results["test"]["by_source"].keys() == {"a", "b"}
    assert not any("gram" in name for name in results["test"])  # no floors without training texts


@pytest.mark.parametrize(("named", "first"), [(0, "<s>"), (2, "</s>"), (1, "<s>"), (None, "<s>")])
def test_a_first_token_is_one_that_begins_or_ends_texts(tmp_path: Path, named: int | None, first: str) -> None:
    """The configuration's BOS counts where it is the tokenizer's BOS or EOS, and not where its default meets <unk>."""
    tokenizer = word_tokenizer({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"})
    save_gpt2(tmp_path / "gpt2", tokenizer, bos_token_id=named)
    assert tokenizer.convert_ids_to_tokens(open_scorer(str(tmp_path / "gpt2")).first) == first


def test_floors_come_from_the_texts_that_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--train_texts gives the unigram and the trigram in the model's own tokens; without it that is said."""
    tokenizer = word_tokenizer(PLAIN)
    save_gpt2(tmp_path / "gpt2", tokenizer)
    words = ["evaluate", str(tmp_path / "gpt2"), "--texts", str(folder / "texts.txt"), "--output_dir"]
    words += [str(tmp_path / "out"), "--tasks", str(folder / "pairs.tsv")]
    main(words)
    assert "floors" in capsys.readouterr().out.split("texts", 1)[1]
    main([*words, "--train_texts", str(folder / "texts.jsonl")])
    results = read_json(tmp_path / "out" / "results.json")
    train = [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text("utf-8").splitlines()]
    texts = (folder / "texts.txt").read_text("utf-8").split("\n\n")
    seen = [token for text in train for token in [*text.split(), "</s>"]]
    shares = {token: (seen.count(token) + 1) / (len(seen) + len(tokenizer)) for token in tokenizer.get_vocab()}
    bits = -sum(math.log2(shares[token]) for text in texts for token in text.split())
    size = sum(len(text.encode()) for text in texts)
    assert results["test"]["unigram_bits_per_byte"]["value"] == pytest.approx(bits / size)
    assert results["minimal_pairs"]["pairs"]["trigram"]["phenomena"]["number"]["pairs"] == 2


def test_floors_take_a_vocabulary_with_gaps(folder: Path, tmp_path: Path) -> None:
    """Some tokenizers of others leave numbers out: the n-grams have room for the highest."""
    dense = word_tokenizer(PLAIN)
    numbers = {token: 3 * number for token, number in dense.get_vocab().items()}
    backend = tokenizers.Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **PLAIN)
    torch.manual_seed(0)
    vocabulary = max(numbers.values()) + 1
    GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_layer=1, n_embd=16, n_head=2, n_positions=12)).save_pretrained(
        tmp_path / "gpt2"
    )
    tokenizer.save_pretrained(tmp_path / "gpt2")
    texts = str(folder / "texts.txt")
    words = ["--texts", texts, "--train_texts", texts, "--tasks", "none", "--output_dir", str(tmp_path / "out")]
    main(["evaluate", str(tmp_path / "gpt2"), *words])
    test = read_json(tmp_path / "out" / "results.json")["test"]
    documents = Path(texts).read_text("utf-8").split("\n\n")
    seen = [token for text in documents for token in [*text.split(), "</s>"]]
    bits = [
        -math.log2((seen.count(token) + 1) / (len(seen) + vocabulary)) for text in documents for token in text.split()
    ]
    assert test["unigram_bits_per_byte"]["value"] == pytest.approx(sum(bits) / test["bytes"])
    assert test["trigram_bits_per_byte"]["value"] < test["unigram_bits_per_byte"]["value"]


def test_a_masked_model_of_others(folder: Path, tmp_path: Path) -> None:
    """A BERT reads its texts between CLS and SEP, each token masked in turn, and its sources have figures."""
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer: Any = word_tokenizer({**special, "mask_token": "[MASK]"})
    size: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.5, **size)
    model = BertForMaskedLM(config).eval()
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    results = evaluated(tmp_path / "bert", texts=folder / "texts.jsonl", tasks=folder / "pairs.tsv")
    texts = [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text("utf-8").splitlines()]

    def nats(text: str) -> float:
        ids = [tokenizer.cls_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
        total = 0.0
        for place in range(1, len(ids) - 1):
            hidden = [*ids]
            hidden[place] = tokenizer.mask_token_id
            with torch.no_grad():
                total -= torch.log_softmax(model(torch.tensor([hidden])).logits[0, place], -1)[ids[place]].item()
        return total

    bits = sum(map(nats, texts)) / math.log(2)
    found = results["test"]["pseudo_bits_per_byte"]["value"]
    assert found == pytest.approx(bits / sum(len(text.encode()) for text in texts), rel=1e-5)
    own = sum(nats(text) for text in texts[0::2]) / math.log(2) / sum(len(text.encode()) for text in texts[0::2])
    assert results["test"]["by_source"]["a"]["pseudo_bits_per_byte"] == pytest.approx(own, rel=1e-5)
    assert results["test"]["scored_tokens"] == results["test"]["tokens"]
    rows = [json.loads(line) for line in (tmp_path / "bert-out/items/pairs.jsonl").read_text("utf-8").splitlines()]
    assert rows[0]["nll"] == pytest.approx(nats("घर है"), rel=1e-5)


def test_two_tokenizers_of_one_distribution_have_equal_bits(folder: Path, tmp_path: Path) -> None:
    """Unigrams over words and over pairs of words that give each text the same probability give it the same bits."""
    texts = ["राम घर राम", "घर घर", "राम"]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    found = []
    for size in (1, 2):
        # Of `size` 2 a letter more: राम is one token or two, of shares that multiply to the share of the whole.
        pieces = ["राम", "घर"] if size == 1 else ["रा", "म", "घ", "र"]
        shares = {"राम": 0.25, "घर": 0.5} if size == 1 else {"रा": 0.5, "म": 0.5, "घ": 0.5, "र": 1.0}
        backend = tokenizers.Tokenizer(
            models.WordLevel({p: n for n, p in enumerate(["</s>", *pieces])}, unk_token="</s>")
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(tokenizers.Regex("|".join(pieces)), "isolated")]
        )
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
        model = save_gpt2(tmp_path / f"m{size}", tokenizer, tie_word_embeddings=False)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.transformer.ln_f.bias[0] = 1.0
            # Logits are the first column: what is left of 1 goes to EOS, and so that the sum does not matter a bias.
            logits = torch.tensor([math.log(shares.get(piece, 1e-30)) for piece in ["</s>", *pieces]])
            model.lm_head.weight[:, 0] = logits
        model.save_pretrained(tmp_path / f"m{size}")
        result = evaluated(tmp_path / f"m{size}", texts=tmp_path / "t.jsonl")
        norm = math.log2(sum(shares.values()))
        # The softmax divides by the sum of the shares, once a token.
        found.append(
            result["test"]["bits_per_byte"]["value"] * result["test"]["bytes"] - norm * result["test"]["tokens"]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[0] == pytest.approx(3 * 2 + 3 * 1, rel=1e-6)


def test_what_a_tokenizer_loses_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown tokens and deleted signs are counted and warned of: bits per byte then understate."""
    tokenizer = word_tokenizer(PLAIN, words=["राम", "घर"], lowered=True)
    save_gpt2(tmp_path / "gpt2", tokenizer)
    (tmp_path / "t.txt").write_text("राम घर\n\nसीता घर", encoding="utf-8")
    results = evaluated(tmp_path / "gpt2", texts=tmp_path / "t.txt")
    # The matra of राम is taken off as an accent, so it is no token of the vocabulary either.
    assert results["lost_by_tokenizer"]["unknown_tokens"] >= 1
    error = capsys.readouterr().err
    assert "the tokenizer loses text" in error
    assert "documents do not come back as they were" in error


@pytest.mark.parametrize("documents", [1, 2])
def test_texts_of_one_work_are_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], documents: int
) -> None:
    """Nothing can be resampled of one work: that the interval has no width is no certainty, and said."""
    save_gpt2(tmp_path / "gpt2", word_tokenizer(PLAIN, words=["राम", "घर"]))
    (tmp_path / "t.txt").write_text("\n\n".join(["राम घर", "घर राम राम"][:documents]), encoding="utf-8")
    bits = evaluated(tmp_path / "gpt2", texts=tmp_path / "t.txt")["test"]["bits_per_byte"]
    assert (bits["low"] == bits["high"]) == (documents == 1)
    assert ("all texts are of one work" in capsys.readouterr().err) == (documents == 1)


def test_a_diverged_model_is_told_as_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that are no numbers have diverged; that they are not equal to each other makes no model look ahead."""
    tokenizer = word_tokenizer(PLAIN)
    model = save_gpt2(tmp_path / "gpt2", tokenizer)
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(math.nan)
    model.save_pretrained(tmp_path / "gpt2")
    line = refusal([str(tmp_path / "gpt2"), "--texts", str(folder / "texts.txt"), "--tasks", "none"], capsys)
    assert "probabilities are not finite" in line


REFUSED: list[tuple[list[str], str]] = [
    ([], "no model: hindi-babylm evaluate runs/base (see --help)"),
    (["m", "--text", "x"], "command line: --text: evaluate has no such flag; did you mean 'texts'?"),
    (["m", "--texts"], "command line: --texts: expected a value (see --help)"),
    (["./m"], "there is no model './m': give a run folder, a model folder or a hub id"),
    (["empty"], "empty is no model folder: it has no config.json"),
    (["m", "--block_size", "x"], "command line: --block_size x: expected a whole number of at least 4"),
    (["m", "--tasks", "none"], "command line: nothing to score: give --texts, or leave --tasks none out"),
    (["m", "--output_dir", "file"], "file is a file: choose another --output_dir"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_a_wrong_command_line_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with the command line ends with exit code 2 and one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *words])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the line with which the command refuses."""
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *words, "--output_dir", "out"])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_models_that_give_no_likelihood_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No first token, no head, both directions, another tokenizer, and no such model: one line each, and no guess."""
    monkeypatch.chdir(tmp_path)
    texts = ["--texts", str(folder / "texts.txt"), "--tasks", "none"]
    save_gpt2(tmp_path / "bare", word_tokenizer({"unk_token": "<unk>"}))
    assert "has no BOS, EOS or CLS token" in refusal(["bare", *texts], capsys)
    tokenizer = word_tokenizer({**PLAIN, "mask_token": "<mask>", "pad_token": "<pad>"})
    size: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.5, **size)
    for name, cls in (("head", transformers.BertModel), ("both", transformers.BertLMHeadModel)):
        torch.manual_seed(0)
        cls(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    assert "is no language model: it has no weights for" in refusal(["head", *texts], capsys)
    assert "is not causal" in refusal(["both", *texts], capsys)
    save_gpt2(tmp_path / "small", word_tokenizer(PLAIN, words=["राम"]))
    tokenizer.save_pretrained(tmp_path / "small")
    assert "they do not belong together" in refusal(["small", *texts], capsys)
    save_gpt2(tmp_path / "short", tokenizer)
    line = refusal(["short", *texts, "--block_size", "13"], capsys)
    assert line == "error: evaluation: block_size 13: the context of 'short' is 12 tokens at most"
    line = refusal(["nobody/nothing", *texts], capsys)
    assert line.startswith("error: evaluation: cannot open 'nobody/nothing' as a causal or masked language model")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}})
    )
    (tmp_path / "code" / "own.py").write_text("open('ran', 'w')\n")
    assert "cannot open 'code'" in refusal(["code", *texts], capsys)
    assert not (tmp_path / "ran").exists()


def test_tasks_of_every_kind_without_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with a CLS token alone does pairs, questions and a folder to fine-tune on: figures, items and table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PROTOCOL, "num_train_epochs", 1)
    save_gpt2(tmp_path / "gpt2", word_tokenizer({"unk_token": "<unk>", "cls_token": "[CLS]"}))
    (tmp_path / "pairs.tsv").write_text(PAIRS, encoding="utf-8")
    question = '{"context": "राम ___ है", "choices": ["घर", "नदी"], "answer": 0}'
    (tmp_path / "cloze.jsonl").write_text(question, encoding="utf-8")
    (tmp_path / "topics").mkdir()
    for split, word in (("train", "गया"), ("dev", "था"), ("test", "है")):
        rows = f"text\tlabel\nराम घर {word}\tघर\nनदी {word}\tनदी\n"
        (tmp_path / "topics" / f"{split}.tsv").write_text(rows, encoding="utf-8")
    main(["evaluate", "gpt2", "--tasks", "pairs.tsv", "cloze.jsonl", "topics"])
    results = read_json(tmp_path / "runs/gpt2-evaluation/results.json")
    assert results["minimal_pairs"].keys() == {"pairs"}
    assert results["multiple_choice"]["cloze"]["questions"] == 1
    assert results["fine_tuning"]["topics"]["test"] == 2
    items = {path.stem for path in (tmp_path / "runs/gpt2-evaluation/items").iterdir()}
    assert items == {"pairs", "cloze", "topics"}
    table = capsys.readouterr().out
    assert "of 1 (chance 50.0)" in table
    assert "3 seeds fine-tuned" in table


def test_an_evaluation_takes_the_place_of_the_one_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its items go when the new ones are whole, and a folder of items that is somebody else's is left alone."""
    monkeypatch.chdir(tmp_path)
    save_gpt2(tmp_path / "gpt2", word_tokenizer(PLAIN))
    evaluated(Path("gpt2"), texts=folder / "texts.txt", tasks=folder / "pairs.tsv")
    items = tmp_path / "gpt2-out" / "items"
    before = (items / "pairs.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("hindi_babylm.evaluation.tasks.evaluate_model", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            evaluated(Path("gpt2"), texts=folder / "texts.txt")
    assert (items / "pairs.jsonl").read_bytes() == before
    evaluated(Path("gpt2"), texts=folder / "texts.txt")
    assert [path.name for path in items.iterdir()] == ["test.jsonl"]
    (tmp_path / "out" / "items").mkdir(parents=True)
    assert "out holds a folder items that is of no evaluation" in refusal(["gpt2"], capsys)
    (tmp_path / "out" / "items").rmdir()
    (tmp_path / "out").rmdir()
    (tmp_path / "out").symlink_to(tmp_path / "nowhere" / "else")
    assert "out cannot be made: File exists" in refusal(["gpt2", "--tasks", str(folder / "pairs.tsv")], capsys)


def test_a_task_that_does_not_fit_is_refused_before_texts_are_scored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pair longer than the context is told before the texts take their time."""
    monkeypatch.chdir(tmp_path)
    save_gpt2(tmp_path / "gpt2", word_tokenizer(PLAIN))
    long = f"sen\twrong_sen\n{'राम ' * 12}है\t{'राम ' * 12}हैं\n"
    (tmp_path / "long.tsv").write_text(long, encoding="utf-8")
    monkeypatch.setattr("hindi_babylm.commands.evaluate._texts", pytest.fail)
    line = refusal(["gpt2", "--texts", str(folder / "texts.txt"), "--tasks", "long.tsv"], capsys)
    assert "a minimal pair of 13 tokens is longer than the 12 that fit" in line


def test_the_context_of_roberta_is_shorter_than_its_positions(tmp_path: Path) -> None:
    """Positions behind the padding's are not counted, and a model without positions has the default window."""
    from hindi_babylm.evaluation.opening import context_length

    tokenizer = word_tokenizer(PLAIN)
    size: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    roberta = transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(vocab_size=60, max_position_embeddings=34, pad_token_id=1, **size)
    )
    assert context_length(roberta, tokenizer) == 32
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=60, hidden_size=16, n_layer=1, n_head=2))
    assert context_length(bloom, tokenizer) == 2048
    tokenizer.model_max_length = 20
    assert context_length(roberta, tokenizer) == 20
    assert np.isfinite(roberta(torch.full((1, 32), 5)).logits.detach().numpy()).all()


class SlowWords(transformers.PreTrainedTokenizer):
    """A tokenizer in Python, without offsets: words and signs of a list, the rest unknown."""

    def __init__(self, **settings: Any) -> None:
        signs = ["<unk>", "</s>", "<mask>", "<pad>", "।"]
        self.numbers = {token: number for number, token in enumerate([*signs, *WORDS])}
        super().__init__(unk_token="<unk>", eos_token="</s>", mask_token="<mask>", pad_token="<pad>", **settings)

    @property
    def vocab_size(self) -> int:
        """The words and signs."""
        return len(self.numbers)

    def get_vocab(self) -> dict[str, int]:
        """Return the numbers of the words."""
        return self.numbers

    def _tokenize(self, text: str, **settings: Any) -> list[str]:
        return text.replace("।", " । ").split()

    def _convert_token_to_id(self, token: str) -> int:
        return self.numbers.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self.numbers)[index]


def test_a_slow_tokenizer_is_read_without_offsets() -> None:
    """The words of its tokens are found all the same, so that each is hidden as a whole."""
    slow: Any = SlowWords()
    texts = [hindi_sentences(2, seed=3).replace(" ।", "।"), "राम घर ।"]
    assert not slow.is_fast
    expected = [[slow.numbers[word] for word in text.replace("।", " ।").split()] for text in texts]
    assert [ids.tolist() for ids in encode(slow, texts)] == expected
    torch.manual_seed(0)
    size: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=len(slow), initializer_range=0.5, **size)).eval()
    found, _ = pseudo_nll(model, slow, texts, block_size=64, description="")
    for ids, nll in zip(expected, found, strict=True):
        # Each word and each sign is one token, so that none is hidden beside it.
        total = 0.0
        for place in range(1, len(ids) + 1):
            hidden = [slow.eos_token_id, *ids, slow.eos_token_id]
            hidden[place] = slow.mask_token_id
            with torch.no_grad():
                total -= torch.log_softmax(model(torch.tensor([hidden])).logits[0, place], -1)[ids[place - 1]].item()
        assert nll == pytest.approx(total, rel=1e-5)


def test_weights_in_half_precision_are_scored_in_fp32(folder: Path, tmp_path: Path) -> None:
    """A folder of bf16 is opened in fp32, so that its pairs have the scores of its own rounded weights."""
    tokenizer = word_tokenizer(PLAIN)
    model = save_gpt2(tmp_path / "gpt2", tokenizer)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "gpt2")
    results = evaluated(tmp_path / "gpt2", texts=folder / "texts.jsonl", tasks=folder / "pairs.tsv")
    texts = [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text("utf-8").splitlines()]
    begin: Any = tokenizer.eos_token_id
    expected = plain_bits(model.float(), tokenizer, texts, first=begin, window=12)
    assert results["test"]["bits_per_byte"]["value"] == pytest.approx(expected, rel=1e-6)
