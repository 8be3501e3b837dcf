"""Perplexity of documents and minimal pairs, against loops that know nothing of batches or windows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from hindi_babylm.evaluation.minimal_pairs import (
    Pair,
    accuracies,
    change_of,
    halves,
    load_pairs,
    points_of,
    score_pairs,
)
from hindi_babylm.evaluation.ngram import Floors
from hindi_babylm.evaluation.perplexity import LOGITS_PER_BATCH, document_nll, score_documents, windows
from hindi_babylm.evaluation.scorer import Scorer
from hindi_babylm.evaluation.tasks import TASKS
from hindi_babylm.storage import UserError
from hindi_babylm.tokenization.training import train_tokenizer

EOS = 3
VOCABULARY = 53


def tiny_model(architecture: str, *, positions: int = 16, vocab_size: int = VOCABULARY) -> PreTrainedModel:
    """Return an untrained model whose weights are large enough for its probabilities to differ."""
    torch.manual_seed(1)
    model: PreTrainedModel
    if architecture == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab_size,
                n_positions=positions,
                n_embd=16,
                n_layer=2,
                n_head=2,
                initializer_range=0.5,
                bos_token_id=EOS,
                eos_token_id=EOS,
            )
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab_size,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=positions,
                initializer_range=0.5,
                bos_token_id=EOS,
                eos_token_id=EOS,
            )
        )
    model.eval()
    return model


def constant_model(vocab_size: int) -> PreTrainedModel:
    """Return a model that gives every token the same probability."""
    model = tiny_model("gpt2", vocab_size=vocab_size, positions=128)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def plain_nll(model: PreTrainedModel, tokens: np.ndarray, block_size: int, *, eos: int = EOS) -> float:
    """Sum the NLL of a document token by token, with the context that the definition gives to each."""
    ids = [eos, *tokens.tolist()]
    total = 0.0
    for position in range(1, len(ids)):
        start = (block_size // 2) * max(0, math.ceil((position - block_size) / (block_size // 2)))
        with torch.no_grad():
            logits = model(torch.tensor([ids[start:position]])).logits[0, -1]
        total -= torch.log_softmax(logits.double(), dim=-1)[ids[position]].item()
    return total


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return a tokenizer over the bundled pairs' sentences."""
    pairs = load_pairs(TASKS["hindi_pairs_pud"])
    return train_tokenizer([pair.good for pair in pairs], vocab_size=1024)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("logits_per_batch", [1, 5000, 2**27])
def test_document_nll_equals_a_plain_loop(
    monkeypatch: pytest.MonkeyPatch, architecture: str, logits_per_batch: int
) -> None:
    """Documents shorter, equal to, one over and far over the window score as in a loop, in any batch."""
    monkeypatch.setitem(LOGITS_PER_BATCH, "cpu", logits_per_batch)
    draw = np.random.default_rng(0)
    documents = [draw.integers(0, VOCABULARY, size=length) for length in (1, 5, 15, 16, 17, 24, 25, 40, 3)]
    model = tiny_model(architecture)
    scores = document_nll(model, documents, eos_token_id=EOS, block_size=16, description="")
    assert scores == pytest.approx([plain_nll(model, tokens, 16) for tokens in documents], rel=1e-5)


@pytest.mark.parametrize("block_size", [2, 3, 8, 9])
@pytest.mark.parametrize("tokens", range(1, 40))
def test_windows_score_every_token_once(tokens: int, block_size: int) -> None:
    """The windows of a document score each position exactly once, within the model's length."""
    scored: list[int] = []
    for start, end, scored_from in windows(tokens, block_size):
        assert end - start <= block_size
        assert start <= scored_from < end
        if scored_from:
            assert scored_from - start >= block_size // 2, "too little context"
        scored += range(scored_from + 1, end + 1)
    assert scored == list(range(1, tokens + 1))


def test_uniform_model_has_its_closed_form() -> None:
    """A uniform model's bits per byte are tokens x log2 V / bytes, and its token perplexity is V."""
    texts = ["राम घर गया।", "सीता ने फल खाया।"]
    documents = [np.array([5, 6, 7]), np.array([8, 9, 10, 11])]
    nll = document_nll(constant_model(VOCABULARY), documents, eos_token_id=EOS, block_size=16, description="")
    scores = score_documents(
        texts=texts,
        sources=["a", "b"],
        works=["a", "b"],
        nll=nll,
        tokens=[3, 4],
        floors={},
    )
    size = sum(len(text.encode()) for text in texts)
    assert scores["bits_per_byte"]["value"] == pytest.approx(7 * math.log2(VOCABULARY) / size)
    assert scores["token_perplexity"]["value"] == pytest.approx(VOCABULARY)


def test_score_documents_divides_totals_by_counted_units() -> None:
    """Each figure is the total NLL over units counted by hand, and the sources partition it."""
    texts = ["क्षत्रिय है।", "ab 12"]
    scores = score_documents(
        texts=texts,
        sources=["x", "y"],
        works=["x", "y"],
        nll=np.array([6.0, 4.0]),
        tokens=[4, 2],
        floors={"unigram": np.array([9.0, 9.0]), "trigram": np.array([7.0, 6.5])},
    )
    bits = 10 / math.log(2)
    assert scores["characters"] == 17
    assert scores["bytes"] == 11 * 3 + 1 + 5
    assert (scores["words"], scores["aksharas"], scores["tokens"], scores["documents"]) == (4, 9, 6, 2)
    assert scores["bits_per_byte"]["value"] == pytest.approx(bits / 39)
    assert scores["unigram_bits_per_byte"]["value"] == pytest.approx(18 / math.log(2) / 39)
    assert scores["trigram_bits_per_byte"]["value"] == pytest.approx(13.5 / math.log(2) / 39)
    assert scores["bits_per_character"]["value"] == pytest.approx(bits / 17)
    assert scores["bits_per_akshara"]["value"] == pytest.approx(bits / 9)
    assert scores["word_perplexity"]["value"] == pytest.approx(math.exp(10 / 4))
    assert scores["perplexity"] == scores["token_perplexity"]["value"] == pytest.approx(math.exp(10 / 6))
    assert scores["by_source"]["x"]["bits_per_byte"] == pytest.approx(6 / math.log(2) / 34)
    assert sum(entry["bytes"] for entry in scores["by_source"].values()) == 39


def test_unigram_is_add_one_over_training_counts() -> None:
    """The unigram's NLL is the sum of -log((count + 1) / (total + V)) over a document's tokens."""
    floors = Floors(np.repeat([1, 2, 3], [3, 1, 6]), vocab_size=4, eos_token_id=3)
    (nll,) = floors.unigram_nll([np.array([1, 1, 0])])
    assert nll == pytest.approx(-2 * math.log(4 / 14) - math.log(1 / 14))


def test_pairs_equal_one_at_a_time_scoring(tokenizer: Any) -> None:
    """Batched accuracies equal those of sentences scored one by one, per phenomenon and as a macro average."""
    pairs = load_pairs(TASKS["hindi_pairs_pud"])[::8]
    model = tiny_model("llama", vocab_size=len(tokenizer), positions=128)
    scores, items = score_pairs(Scorer.of(model, tokenizer, block_size=128), pairs)
    points: dict[str, list[float]] = {}
    for pair, item in zip(pairs, items, strict=True):
        good, bad = (
            plain_nll(
                model, np.array(tokenizer(text, add_special_tokens=False)["input_ids"]), 128, eos=tokenizer.eos_token_id
            )
            for text in (pair.good, pair.bad)
        )
        assert (item["nll"], item["wrong_nll"]) == pytest.approx((good, bad), rel=1e-5)
        points.setdefault(pair.phenomenon, []).append(float(good < bad))
    expected = {name: 100 * sum(values) / len(values) for name, values in points.items()}
    assert {name: entry["accuracy"] for name, entry in scores["phenomena"].items()} == pytest.approx(expected)
    assert scores["macro"]["value"] == pytest.approx(sum(expected.values()) / len(expected))
    assert scores["macro"]["low"] < scores["macro"]["value"] < scores["macro"]["high"]
    assert len(expected) == 5


def nll_of(points: list[float]) -> np.ndarray:
    """Return the NLL of sentences, good and bad in turn, that gives their pairs these points."""
    return np.asarray([[1 - point, 0.5] for point in points]).ravel()


def test_a_phenomenon_has_the_interval_of_its_own_pairs() -> None:
    """The bounds are those of as many draws of the pairs, 70 right of 100, and alone it is the macro average's."""
    nll = np.array([[0.0, 1.0]] * 70 + [[1.0, 0.0]] * 30).ravel()
    pairs = [Pair("a", f"x{number:02}", "y") for number in range(100)]
    scores = accuracies(pairs, nll)
    entry = scores["phenomena"]["a"]
    assert scores["macro"] == {"value": entry["accuracy"], "low": entry["low"], "high": entry["high"]}
    assert [entry["low"], entry["high"]] == pytest.approx(binom.ppf([0.025, 0.975], 100, 0.7), abs=1.01)
    both = accuracies([*pairs, Pair("b", "z", "y")], np.append(nll, [0.0, 1.0]))["phenomena"]
    assert (both["b"]["low"], both["b"]["high"]) == pytest.approx((2.5, 100.0))
    assert both["a"] == pytest.approx(entry)


def test_intervals_are_those_of_sentences_drawn_in_a_plain_loop() -> None:
    """Macro average and phenomena of each draw follow from whole sentences, drawn among those of their phenomena."""
    draw = np.random.default_rng(3)
    places = ["a"] * 12 + ["b"] * 9 + ["ab"] * 8 + ["aab"] * 5 + ["b"] * 4
    pairs = [Pair(name, f"s{number:02}", "y") for number, names in enumerate(places) for name in names]
    pairs = [pairs[place] for place in draw.permutation(len(pairs))]
    points = draw.choice([0.0, 0.5, 1.0], p=[0.3, 0.1, 0.6], size=len(pairs)).tolist()
    by_sentence: dict[str, list[tuple[str, float]]] = {}
    for pair, point in zip(pairs, points, strict=True):
        by_sentence.setdefault(pair.good, []).append((pair.phenomenon, point))
    strata: dict[str, list[str]] = {}
    for sentence, rows in by_sentence.items():
        strata.setdefault("".join(sorted(name for name, _ in rows)), []).append(sentence)
    assert {name: len(own) for name, own in strata.items()} == {"a": 12, "b": 13, "ab": 8, "aab": 5}
    found: dict[str, list[float]] = {"a": [], "b": [], "macro": []}
    for _ in range(4000):
        tops, counts = {"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}
        for own in strata.values():
            for place in draw.integers(len(own), size=len(own) - 1):
                for name, point in by_sentence[own[place]]:
                    tops[name] += point * len(own) / (len(own) - 1)
                    counts[name] += len(own) / (len(own) - 1)
        assert counts == pytest.approx({"a": 12 + 8 + 10, "b": 13 + 8 + 5})
        for name in "ab":
            found[name].append(100 * tops[name] / counts[name])
        found["macro"].append((found["a"][-1] + found["b"][-1]) / 2)
    scores = accuracies(pairs, nll_of(points))
    for name, entry in {**scores["phenomena"], "macro": scores["macro"]}.items():
        low, high = np.quantile(found[name], [0.025, 0.975])
        assert (entry["low"], entry["high"]) == pytest.approx((low, high), abs=0.08 * (high - low)), name


def test_intervals_hold_the_truth_where_pairs_share_their_sentences() -> None:
    """Of three pairs a sentence that go together 95 % are 95 %; over pairs, as if independent, they are far fewer."""
    draw = np.random.default_rng(4)
    pairs = [Pair(name, f"s{number:02}", "y") for name in "abc" for number in range(60)]
    held, held_over_pairs = [], []
    for seed in range(300):
        hard = draw.random(60)
        points = [np.where(draw.random(60) < 0.95, hard, draw.random(60)) < 0.7 for _ in "abc"]
        macro = accuracies(pairs, nll_of(np.concatenate(points).astype(float).tolist()), seed=seed)["macro"]
        held.append(macro["low"] <= 70 <= macro["high"])
        samples = np.mean([draw.binomial(60, own.mean(), size=1000) / 60 for own in points], axis=0)
        low, high = 100 * np.quantile(samples, [0.025, 0.975])
        held_over_pairs.append(low <= 70 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.035)
    assert np.mean(held_over_pairs) < 0.85


def test_without_repeated_sentences_the_interval_is_that_of_pairs() -> None:
    """Of the macro average of phenomena with sentences of their own it is the normal one of its stratified variance."""
    draw = np.random.default_rng(5)
    names = np.repeat(["a", "b", "c"], [60, 200, 400])
    points = (draw.random(660) < 0.7).astype(float)
    macro = accuracies([Pair(name, f"s{number}", "y") for number, name in enumerate(names)], nll_of(points.tolist()))
    own = [points[names == name] for name in "abc"]
    reach = 100 * 1.96 * math.sqrt(sum(part.var(ddof=1) / len(part) for part in own)) / 3
    value = 100 * np.mean([part.mean() for part in own])
    assert macro["macro"]["value"] == pytest.approx(value)
    ends = macro["macro"]["low"], macro["macro"]["high"]
    assert ends == pytest.approx((value - reach, value + reach), abs=0.15 * reach)


def test_pairs_that_all_agree_have_exact_limits() -> None:
    """All right or all wrong, a phenomenon has Clopper's and Pearson's limits over its sentences, and no empty ones."""
    pairs = [Pair("a", f"s{number}", "y") for number in range(53)]
    pairs += [Pair("b", f"t{number // 2}", "y") for number in range(40)]
    figures = accuracies(pairs, nll_of([0.0] * 53 + [1.0] * 40))
    limits = {name: (entry["low"], entry["high"]) for name, entry in figures["phenomena"].items()}
    low, high = 100 * 0.025 ** (1 / 20), 100 * (1 - 0.025 ** (1 / 53))
    assert limits["a"] == pytest.approx((0, high))
    assert limits["b"] == pytest.approx((low, 100))
    assert figures["macro"] == pytest.approx({"value": 50, "low": low / 2, "high": 50 + high / 2})
    figures = accuracies(pairs, nll_of([0.0] * 53 + [1.0] * 39 + [0.0]))
    assert figures["phenomena"]["a"]["high"] == pytest.approx(high)
    assert 40 < figures["macro"]["low"] < figures["macro"]["value"] == 48.75 < figures["macro"]["high"] == 50


def test_constant_model_scores_exactly_half(tokenizer: Any) -> None:
    """A model without preferences ties on every pair of equal length: 50.0, and each tie is counted."""
    pairs = [
        pair
        for pair in load_pairs(TASKS["hindi_pairs_pud"])
        if len(tokenizer(pair.good)["input_ids"]) == len(tokenizer(pair.bad)["input_ids"])
    ]
    scores, _ = score_pairs(Scorer.of(constant_model(len(tokenizer)), tokenizer, block_size=128), pairs)
    assert scores["macro"] == {"value": 50.0, "low": 50.0, "high": 50.0}
    assert sum(entry["ties"] for entry in scores["phenomena"].values()) == len(pairs) > 100


def test_a_constant_model_has_the_accuracy_of_length(tokenizer: Any) -> None:
    """On pairs of any length a model without preferences is right where the good sentence has fewer tokens."""
    pairs = load_pairs(TASKS["hindi_pairs_pud"])
    scores, items = score_pairs(Scorer.of(constant_model(len(tokenizer)), tokenizer, block_size=128), pairs)
    lengths = [[len(tokenizer(text)["input_ids"]) for text in (pair.good, pair.bad)] for pair in pairs]
    for name, entry in scores["phenomena"].items():
        own = [ids for pair, ids in zip(pairs, lengths, strict=True) if pair.phenomenon == name]
        expected = 100 * sum((good < bad) + 0.5 * (good == bad) for good, bad in own) / len(own)
        assert entry["accuracy"] == pytest.approx(expected)
        assert scores["length_only"]["phenomena"][name] == entry
    assert scores["length_only"]["macro"] == scores["macro"] != {"value": 50.0, "low": 50.0, "high": 50.0}
    assert scores["chance"] == 50.0
    for item, (good, bad) in zip(items, lengths, strict=True):
        assert (item["tokens"], item["wrong_tokens"]) == (good, bad)
        assert item["nll"] == pytest.approx(good * math.log(len(tokenizer)), rel=1e-6)
    shorter = [item["tokens"] / item["bytes"] < item["wrong_tokens"] / item["wrong_bytes"] for item in items]
    even = [item["tokens"] * item["wrong_bytes"] == item["wrong_tokens"] * item["bytes"] for item in items]
    for name, entry in scores["per_byte"]["phenomena"].items():
        own_points = [s + 0.5 * e for p, s, e in zip(pairs, shorter, even, strict=True) if p.phenomenon == name]
        assert entry["accuracy"] == pytest.approx(100 * sum(own_points) / len(own_points)), name


def test_halves_tell_a_preference_from_knowledge() -> None:
    """A model that always takes one of two forms is right in one direction of the change alone: the minimum says 0."""
    suite = [("उसने घर देखा।", "वह घर देखा।"), ("वह घर गया।", "उसने घर गया।"), ("वह जाने लगा", "वह जाना लगा")]
    suite += [("राम है।", "राम हैं।"), ("वे हैं", "वे है"), ("वे सब हैं", "वे सब है"), ("सीता थी", "सीता था")]
    pairs = [Pair("a", good, bad, change_of(good, bad)) for good, bad in suite]
    assert [pair.change for pair in pairs[:4]] == [
        "with ने -> without ने",
        "without ने -> with ने",
        "जाने -> जाना",
        "है -> हैं",
    ]
    # ने is liked wherever it stands, and so is है.
    liked = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    found = halves(pairs, np.array(liked))
    assert found["a"].keys() == {"with ने / without ने", "है / हैं"}  # what has one direction has no halves
    assert found["a"]["with ने / without ने"] == {
        "with ने -> without ने": {"accuracy": 100.0, "pairs": 1, "ties": 0},
        "without ने -> with ने": {"accuracy": 0.0, "pairs": 1, "ties": 0},
        "minimum": 0.0,
    }
    assert found["a"]["है / हैं"]["हैं -> है"]["pairs"] == 2
    assert found["a"]["है / हैं"]["minimum"] == 0.0


def test_features_that_a_suite_names_are_its_halves(tokenizer: Any) -> None:
    """MultiBLiMP's pairs are halved by the features that were swapped, as its card counts them."""
    pairs = load_pairs(TASKS["multiblimp_hin_pud"])
    scores, _ = score_pairs(Scorer.of(constant_model(len(tokenizer)), tokenizer, block_size=128), pairs)
    counts = {
        name: {way: part["pairs"] for way, part in half.items() if way != "minimum"}
        for found in scores["halves"].values()
        for name, half in found.items()
    }
    assert counts == {"PL / SG": {"PL -> SG": 16, "SG -> PL": 6}, "FEM / MASC": {"FEM -> MASC": 25, "MASC -> FEM": 27}}


def test_sums_that_are_equal_but_for_the_order_of_adding_are_ties() -> None:
    """A tie is one half whatever order its numbers were added in, and a millionth more is none."""
    assert points_of(np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 100.0, 100.0 + 1e-4])).tolist() == [0.5, 1.0]


def test_long_pair_is_refused(tokenizer: Any) -> None:
    """A pair longer than the context is an error that says so, and no truncation."""
    pair = Pair("x", "राम " * 40, "राम " * 39 + "सीता ")
    scorer = Scorer.of(tiny_model("gpt2", vocab_size=len(tokenizer)), tokenizer, block_size=16)
    with pytest.raises(UserError, match="longer than the 16 that fit: raise block_size"):
        score_pairs(scorer, [pair])


@pytest.mark.parametrize(
    ("content", "message"),
    [("sen\twrong\nक\tख\n", "lacks the columns wrong_sen"), ("sen\twrong_sen\n", "has no row")],
)
def test_wrong_pair_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    """A pair file without its columns or without pairs is refused in one line."""
    path = tmp_path / "pairs.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_pairs(path)
    with pytest.raises(UserError, match="cannot read"):
        load_pairs(tmp_path / "missing.tsv")


def test_bundled_pairs_are_560_of_five_phenomena() -> None:
    """The bundled suite is whole: its pairs differ in one word, and its phenomena have the card's counts."""
    pairs = load_pairs(TASKS["hindi_pairs_pud"])
    counts = {name: sum(pair.phenomenon == name for pair in pairs) for name in {pair.phenomenon for pair in pairs}}
    assert counts == {
        "participle_aux_number": 227,
        "ergative_marker": 53,
        "genitive_gender": 99,
        "participle_aux_gender": 122,
        "oblique_case": 59,
    }
    for pair in pairs:
        good, bad = pair.good.split(), pair.bad.split()
        assert len(good) == len(bad)
        assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1
