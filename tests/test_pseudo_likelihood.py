"""Pseudo-likelihoods against a loop that masks one token at a time and knows nothing of batches."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForMaskedLM

from hindi_babylm.evaluation.minimal_pairs import load_pairs, score_pairs
from hindi_babylm.evaluation.ngram import Floors
from hindi_babylm.evaluation.perplexity import LOGITS_PER_BATCH
from hindi_babylm.evaluation.pseudo_likelihood import pseudo_figures, pseudo_nll, sample, words_of_tokens
from hindi_babylm.evaluation.scorer import Scorer
from hindi_babylm.evaluation.tasks import TASKS, evaluate_model
from hindi_babylm.modeling import ARCHITECTURES
from hindi_babylm.storage import UserError
from hindi_babylm.tokenization.training import train_tokenizer
from tests.conftest import TINY_DEBERTA, WORDS, hindi_sentences

BLOCK = 16


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return a tokenizer that cuts most words into parts."""
    return train_tokenizer(["".join(WORDS[:5]), *WORDS[:9]], vocab_size=512)


def tiny_model(tokenizer: Any, *, block_size: int = BLOCK, zero: bool = False) -> Any:
    """Return an untrained DeBERTa whose probabilities differ much, or not at all."""
    torch.manual_seed(1)
    settings = {"initializer_range": 0.3, **TINY_DEBERTA}
    config = ARCHITECTURES["deberta-v2"](
        block_size=block_size, dropout=0.0, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **settings
    )
    model: Any = AutoModelForMaskedLM.from_config(config).eval()
    if zero:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    return model


def plain_nll(model: Any, tokenizer: Any, text: str, *, block_size: int, within_words: bool) -> list[float]:
    """Mask the tokens of a text one by one and return the NLL of each."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # The words begun by the end of each token, as decoding tells them; a space begins the next. Bytes of a character
    # that is not whole swallow the space before them, so the number may fall for a while.
    begun = np.maximum.accumulate([len((tokenizer.decode(ids[: end + 1]) + "x").split()) for end in range(len(ids))])
    row = [tokenizer.eos_token_id, *ids, tokenizer.eos_token_id]
    scores = []
    for place in range(1, len(row) - 1):
        changed = list(row)
        changed[place] = tokenizer.mask_token_id
        for later in range(place + 1, len(row) - 1):
            if within_words and begun[later - 1] == begun[place - 1]:
                changed[later] = tokenizer.mask_token_id
        left = place - block_size // 2
        left = 0 if left < 0 or len(row) <= block_size else min(left, len(row) - block_size)
        with torch.no_grad():
            logits = model(torch.tensor([changed[left : left + block_size]])).logits[0, place - left]
        scores.append(-torch.log_softmax(logits.double(), dim=-1)[row[place]].item())
    return scores


@pytest.fixture(scope="module")
def texts(tokenizer: Any) -> list[str]:
    """Return texts shorter than the window, of its length, a little longer and far longer."""
    words = hindi_sentences(8, seed=3).replace(" ।", "").split()
    found = [" ".join(words[:count]) for count in (1, 2, 3, 4, 5, 9, 18)]
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in found]
    assert min(lengths) < BLOCK - 2 < max(lengths)
    assert len(lengths) == len(set(lengths))
    return found


@pytest.mark.parametrize("within_words", [True, False])
@pytest.mark.parametrize("logits_per_batch", [1, 60_000, 2**27])
def test_pseudo_nll_equals_a_plain_loop(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Any, texts: list[str], logits_per_batch: int, within_words: bool
) -> None:
    """Texts of all lengths score as when each token is masked by itself, in any batch, by either rule."""
    monkeypatch.setitem(LOGITS_PER_BATCH, "cpu", logits_per_batch)
    model = tiny_model(tokenizer)
    nll, scored = pseudo_nll(model, tokenizer, texts, block_size=BLOCK, description="", within_words=within_words)
    expected = [plain_nll(model, tokenizer, text, block_size=BLOCK, within_words=within_words) for text in texts]
    assert nll == pytest.approx([sum(scores) for scores in expected], rel=1e-5)
    assert scored.tolist() == [len(scores) for scores in expected]


def test_the_rules_differ_on_words_of_several_tokens(tokenizer: Any, texts: list[str]) -> None:
    """Hiding the rest of a word changes the score of a text whose words have parts, and of no other."""
    model = tiny_model(tokenizer)
    single = next(word for word in WORDS if len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1)
    scores = [
        pseudo_nll(model, tokenizer, [texts[-1], single], block_size=BLOCK, description="", within_words=rule)[0]
        for rule in (True, False)
    ]
    assert abs(scores[0][0] - scores[1][0]) > 1
    assert scores[0][1] == scores[1][1]


def test_a_bounded_sample_counts_for_the_tokens_it_stands_for(tokenizer: Any, texts: list[str]) -> None:
    """Of N tokens, n at equal distances are scored, and each counts N/n times."""
    model = tiny_model(tokenizer)
    scores = [plain_nll(model, tokenizer, text, block_size=BLOCK, within_words=True) for text in texts]
    flat = [(text, score) for text, row in enumerate(scores) for score in row]
    nll, scored = pseudo_nll(model, tokenizer, texts, block_size=BLOCK, description="", limit=20)
    chosen = sample(len(flat), 20)
    expected = np.zeros(len(texts))
    for place in chosen:
        expected[flat[place][0]] += flat[place][1] * len(flat) / 20
    assert nll == pytest.approx(expected, rel=1e-5)
    assert scored.sum() == 20
    assert scored.tolist() == np.bincount([flat[place][0] for place in chosen], minlength=len(texts)).tolist()


def test_samples_are_spread_and_without_bias() -> None:
    """Tokens are taken at equal distances, each exactly once over all starts, and all where the limit allows it."""
    assert sample(7, 7).tolist() == sample(7, None).tolist() == list(range(7))
    assert sample(1000, 10).tolist() == sample(1000, 10).tolist()
    seen = {tuple(sample(60, 12, seed=seed)) for seed in range(60)}
    assert seen == {tuple(range(start, 60, 5)) for start in range(5)}
    uneven = sample(1003, 100)
    assert (uneven[0] >= 0, uneven[-1] < 1003, set(np.diff(uneven))) == (True, True, {10, 11})


def test_a_word_is_a_run_of_letters_and_signs() -> None:
    """Vowel signs, nukta and digits belong to a word, a danda and a hyphen are words, white space to what follows."""
    text = "लड़की-घर  12 है।"
    offsets = [(place, place + 1) for place in range(len(text))]
    words = words_of_tokens(text, offsets)
    pieces: dict[int, str] = {}
    for letter, word in zip(text, words, strict=True):
        pieces[word] = pieces.get(word, "") + letter
    assert list(pieces.values()) == ["लड़की", "-", "घर", "  12", " है", "।"]


def test_uniform_model_has_its_closed_form(tokenizer: Any, texts: list[str]) -> None:
    """A model without preferences has the vocabulary's size as pseudo-perplexity, and ties on equal lengths."""
    model = tiny_model(tokenizer, zero=True)
    nll, scored = pseudo_nll(model, tokenizer, texts, block_size=BLOCK, description="")
    assert nll == pytest.approx(scored * math.log(len(tokenizer)))


def test_a_diverged_model_is_refused(tokenizer: Any) -> None:
    """A model whose weights are no numbers is told in one line."""
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(math.nan)
    with pytest.raises(UserError, match="probabilities are not finite: its training diverged"):
        pseudo_nll(model, tokenizer, ["राम"], block_size=BLOCK, description="")


def test_pairs_equal_one_at_a_time_scoring() -> None:
    """Accuracies of a masked model are those of sentences whose tokens are masked one by one, with the same keys."""
    pairs = load_pairs(TASKS["hindi_pairs_pud"])[::40]
    tokenizer: Any = train_tokenizer([pair.good for pair in pairs], vocab_size=700)
    model = tiny_model(tokenizer, block_size=192)
    scores, _ = score_pairs(Scorer.of(model, tokenizer, block_size=192), pairs)
    points: dict[str, list[float]] = {}
    for pair in pairs:
        good, bad = (
            pseudo_nll(model, tokenizer, [text], block_size=192, description="")[0][0] for text in (pair.good, pair.bad)
        )
        points.setdefault(pair.phenomenon, []).append(float(good < bad))
    expected = {name: 100 * sum(values) / len(values) for name, values in points.items()}
    assert {name: entry["accuracy"] for name, entry in scores["phenomena"].items()} == pytest.approx(expected)
    text = pairs[0].good.replace("।", "").replace(",", "")[:40].rsplit(" ", 1)[0]
    nll, _ = pseudo_nll(model, tokenizer, [text], block_size=192, description="")
    assert nll[0] == pytest.approx(sum(plain_nll(model, tokenizer, text, block_size=192, within_words=True)), rel=1e-5)


def test_no_figure_stands_under_the_name_of_a_likelihood(tokenizer: Any, texts: list[str]) -> None:
    """What follows from a pseudo-likelihood says so, what does not keeps its name, and the sample is counted."""
    names = {"source": ["a", "b"] * 3 + ["a"], "work": [*"0123456"], "document_id": [*"0123456"]}
    documents = Dataset.from_dict({"text": texts, **names})
    model = tiny_model(tokenizer)
    scorer = Scorer.of(model, tokenizer, block_size=BLOCK)
    floors = Floors(np.concatenate(scorer.encode(texts)), vocab_size=len(tokenizer), eos_token_id=scorer.first)
    figures = evaluate_model(scorer, splits={"test": documents}, floors=floors, tasks=[])["test"]
    nll, scored = pseudo_nll(model, tokenizer, texts, block_size=BLOCK, description="")
    size = sum(len(text.encode()) for text in texts)
    assert figures["pseudo_bits_per_byte"]["value"] == pytest.approx(nll.sum() / math.log(2) / size)
    assert figures["pseudo_perplexity"] == pytest.approx(math.exp(nll.sum() / scored.sum()))
    assert figures["scored_tokens"] == figures["tokens"] == scored.sum()
    plain = {name for name in figures if not name.startswith("pseudo_")}
    counts = {"documents", "tokens", "words", "bytes", "characters", "aksharas", "scored_tokens"}
    assert plain == counts | {"unigram_bits_per_byte", "trigram_bits_per_byte", "by_source"}
    own = nll[0::2].sum() / math.log(2) / sum(len(text.encode()) for text in texts[0::2])
    assert figures["by_source"]["a"]["pseudo_bits_per_byte"] == pytest.approx(own)
    assert "bits_per_byte" not in figures["by_source"]["a"]
    # By source a sample would be too small to say anything.
    sampled = {"loss": 1.0, "tokens": 9, "by_source": {}}
    assert pseudo_figures(sampled, scored=3) == {"pseudo_loss": 1.0, "tokens": 9, "scored_tokens": 3}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
