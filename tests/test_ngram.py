"""The trigram floor, against numbers by hand and a plain dictionary that knows nothing of keys and sorting."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hindi_babylm.evaluation.minimal_pairs import encode_pairs, load_pairs
from hindi_babylm.evaluation.ngram import LARGEST_VOCABULARY, Trigram, discounts
from hindi_babylm.evaluation.tasks import TASKS, load_final_model
from hindi_babylm.packing import TokenStore, read_documents
from hindi_babylm.reporting.summary import summary
from hindi_babylm.run import main

EOS = 3
WriteRecipe = Callable[..., Path]


def flat(documents: list[list[int]]) -> np.ndarray:
    """Return documents as a store holds them, EOS after each."""
    return np.array([token for document in documents for token in [*document, EOS]], dtype=np.uint16)


def taken(counts: Counter[Any]) -> dict[int, float]:
    """Return the discounts by Chen and Goodman's equations 17 and 18, or the fixed ones where they have no answer."""
    n1, n2, n3, n4 = (sum(count == k for count in counts.values()) for k in (1, 2, 3, 4))
    if 0 in (n1, n2, n3, n4):
        return {1: 0.5, 2: 1.0, 3: 1.5}
    y = n1 / (n1 + 2 * n2)
    found = {1: 1 - 2 * y * n2 / n1, 2: 2 - 3 * y * n3 / n2, 3: 3 - 4 * y * n4 / n3}
    return found if min(found.values()) > 0 else {1: 0.5, 2: 1.0, 3: 1.5}


class PlainTrigram:
    """The definition, n-gram by n-gram: P(w | h) = (c(hw) - D) / c(h.) + D1 N1 + D2 N2 + D3 N3 over c(h.) times lower.

    Sentences are padded with EOS in front and end with it; n-grams are tuples.
    """

    def __init__(self, documents: list[list[int]], vocab_size: int) -> None:
        self.vocab_size = vocab_size
        trigrams: Counter[Any] = Counter()
        before: dict[tuple[int, ...], set[int]] = defaultdict(set)
        beginnings: Counter[Any] = Counter()
        for document in documents:
            ids = [EOS, *document, EOS]
            beginnings[tuple(ids[:2])] += 1
            for place in range(2, len(ids)):
                trigrams[tuple(ids[place - 2 : place + 1])] += 1
                before[tuple(ids[place - 1 : place + 1])].add(ids[place - 2])
            for place in range(1, len(ids)):
                before[(ids[place],)].add(ids[place - 1])
        bigrams = Counter({gram: len(tokens) for gram, tokens in before.items() if len(gram) == 2}) + beginnings
        unigrams = Counter({gram: len(tokens) for gram, tokens in before.items() if len(gram) == 1})
        self.counts = {3: trigrams, 2: bigrams, 1: unigrams}
        self.discounts = {order: taken(counts) for order, counts in self.counts.items()}
        self.followers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for counts in self.counts.values():
            for gram, count in counts.items():
                self.followers[gram[:-1]].append(count)

    def probability(self, context: tuple[int, ...], token: int) -> float:
        """Return the probability of `token` after the one or two tokens of `context`, by recursion."""
        followers = self.followers.get(context)
        lower = self.probability(context[1:], token) if context else 1 / self.vocab_size
        if not followers:
            return lower
        discount = self.discounts[len(context) + 1]
        count = self.counts[len(context) + 1][(*context, token)]
        share = count - discount[min(count, 3)] if count else 0.0
        left = sum(discount[min(follower, 3)] for follower in followers)
        return (share + left * lower) / sum(followers)

    def nll(self, document: list[int]) -> float:
        """Return the NLL of a document in nats, each token after at most two before it."""
        ids = [EOS, *document]
        return -sum(
            math.log(self.probability(tuple(ids[max(0, place - 2) : place]), ids[place]))
            for place in range(1, len(ids))
        )


def drawn(*, documents: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Return documents of skewed tokens, so that counts of 1, 2, 3, 4 and many occur; EOS is none of them."""
    draw = np.random.default_rng(seed)
    tokens = np.delete(np.arange(vocab_size), EOS)
    shares = 1 / np.arange(1, len(tokens) + 1) ** 1.2
    lengths = draw.integers(1, 40, size=documents)
    return [draw.choice(tokens, size=length, p=shares / shares.sum()).tolist() for length in lengths]


def probability(trigram: Trigram, context: list[int], token: int) -> float:
    """Return the probability of a token at the end of a document that begins with `context`."""
    longer, shorter = trigram.document_nll([np.array([*context, token]), np.array(context, dtype=np.int64)])
    return math.exp(shorter - longer)


def test_probabilities_by_hand() -> None:
    """Of three documents "a b", "a b", "a c": P(a | EOS), P(b | EOS a), P(c | b) and an unknown token by fractions."""
    a, b, c, unknown = 0, 1, 2, 4
    trigram = Trigram(flat([[a, b], [a, b], [a, c]]), vocab_size=5, eos_token_id=EOS)
    # Each order lacks counts of 3 or 4, so D = 1/2, 1, 3/2. Unigrams follow 1 (a, b, c) and 2 (EOS) others, of 5.
    left = (3 * 0.5 + 1.0) / 5 / 5
    uni = dict.fromkeys((a, b, c), 0.5 / 5 + left) | {EOS: 1 / 5 + left, unknown: left}
    assert sum(uni.values()) == pytest.approx(1)
    after_eos = (3 - 1.5) / 3 + 1.5 / 3 * uni[a]  # EOS a three times
    assert probability(trigram, [], a) == pytest.approx(after_eos)
    assert probability(trigram, [], unknown) == pytest.approx(1.5 / 3 * uni[unknown])
    # a is followed by b and c, each after EOS alone; EOS a b twice and EOS a c once.
    b_after_a = 0.5 / 2 + (0.5 + 0.5) / 2 * uni[b]
    assert probability(trigram, [a], b) == pytest.approx((2 - 1) / 3 + (1 + 0.5) / 3 * b_after_a)
    # c c and c b are nowhere, so c after them hangs on the last token: nothing but EOS follows it.
    assert probability(trigram, [c, b], c) == pytest.approx(0.5 / 1 * uni[c])
    assert probability(trigram, [unknown, unknown], c) == pytest.approx(uni[c])


@pytest.mark.parametrize(
    ("documents", "vocab_size"),
    [(200, 30), (60, 500), (3, 50), (1, 9)],
)
def test_nll_equals_the_plain_definition(documents: int, vocab_size: int) -> None:
    """Every document, of known and unknown tokens, has the NLL of the recursive definition over dictionaries."""
    train = drawn(documents=documents, vocab_size=vocab_size, seed=0)
    test = [*drawn(documents=12, vocab_size=vocab_size, seed=1), [vocab_size - 1] * 3, train[0], [0]]
    trigram = Trigram(flat(train), vocab_size=vocab_size, eos_token_id=EOS)
    plain = PlainTrigram(train, vocab_size)
    if documents == 200:
        assert all(plain.discounts[order] != {1: 0.5, 2: 1.0, 3: 1.5} for order in (2, 3)), "the closed form"
    scores = trigram.document_nll([np.array(document) for document in test])
    assert scores == pytest.approx([plain.nll(document) for document in test], rel=1e-12)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("vocab_size", [60, 65_536, 250_000, LARGEST_VOCABULARY])
def test_large_vocabularies_keep_their_keys_apart(vocab_size: int, dtype: Any) -> None:
    """The highest ids of a vocabulary, of which three fill a key, score as the definition says."""
    offset = min(vocab_size, np.iinfo(dtype).max + 1) - 20
    train = [[token + offset for token in document] for document in drawn(documents=40, vocab_size=20, seed=0)]
    tokens = np.concatenate([[*document, EOS] for document in train]).astype(dtype)
    trigram = Trigram(tokens, vocab_size=vocab_size, eos_token_id=EOS)
    plain = PlainTrigram(train, vocab_size)
    test = [train[0], [offset, offset + 19, 5]]
    scores = trigram.document_nll([np.array(document) for document in test])
    assert scores == pytest.approx([plain.nll(document) for document in test], rel=1e-12)
    with pytest.raises(ValueError, match="at most 2642245"):
        Trigram(tokens, vocab_size=LARGEST_VOCABULARY + 1, eos_token_id=EOS)


@pytest.mark.parametrize("context", [[], [0], [0, 1], [29, 29], [5, 0], [28, 1], [EOS], [0, EOS], [EOS, EOS]], ids=str)
def test_probabilities_sum_to_one(context: list[int]) -> None:
    """After contexts that were seen, seen in part and never seen, the probabilities of the vocabulary sum to 1."""
    train = drawn(documents=50, vocab_size=30, seed=0)
    trigram = Trigram(flat(train), vocab_size=30, eos_token_id=EOS)
    values = [probability(trigram, context, token) for token in range(30)]
    assert min(values) > 0
    assert math.fsum(values) == pytest.approx(1, abs=1e-12)


def test_documents_do_not_see_each_other() -> None:
    """Scores and counts hang neither on the order of documents nor on their neighbours."""
    train, test = (drawn(documents=20, vocab_size=30, seed=seed) for seed in (0, 1))
    arrays = [np.array(document) for document in test]
    forward = Trigram(flat(train), vocab_size=30, eos_token_id=EOS).document_nll(arrays)
    backward = Trigram(flat(train[::-1]), vocab_size=30, eos_token_id=EOS).document_nll(arrays[::-1])
    assert forward == pytest.approx(backward[::-1], rel=1e-12)


def test_discounts_have_their_closed_form_and_their_fallback() -> None:
    """With n = 5, 3, 2, 1 they are fractions by hand; without one of them, or below 0, they are fixed."""
    y = 5 / 11
    counts = np.repeat([0, 1, 2, 3, 4, 9], [7, 5, 3, 2, 1, 4])
    expected = [0, 1 - 2 * y * 3 / 5, 2 - 3 * y * 2 / 3, 3 - 4 * y * 1 / 2]
    assert discounts(counts) == pytest.approx(expected, rel=1e-15)
    fallback = [0, 0.5, 1, 1.5]
    for times in (1, 2, 3, 4):
        assert discounts(counts[counts != times]).tolist() == fallback
    assert discounts(np.repeat([1, 2, 3, 4], [2, 2, 9, 1])).tolist() == fallback, "D2 would be negative"
    assert discounts(np.array([], dtype=np.int64)).tolist() == fallback


def test_documents_of_one_token_have_no_trigram() -> None:
    """A store without a single trigram of two tokens of text scores by its bigrams."""
    train = [[], [0], [1], [1]]
    trigram = Trigram(flat(train), vocab_size=5, eos_token_id=EOS)
    plain = PlainTrigram(train, 5)
    test = [[0], [1, 1], [2, 1, 0], []]
    scores = trigram.document_nll([np.array(document, dtype=np.int64) for document in test])
    assert scores == pytest.approx([plain.nll(document) for document in test])
    assert trigram.document_nll([]).tolist() == []
    empty = Trigram(flat([[], []]), vocab_size=5, eos_token_id=EOS)
    assert empty.document_nll([np.array([0])])[0] == pytest.approx(PlainTrigram([[], []], 5).nll([0]))


def test_a_run_reports_the_floor(write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """results.json has the trigram's bits per byte and its accuracy on the pairs, and the table shows both."""
    recipe = write_recipe()
    content = json.loads(recipe.read_text(encoding="utf-8"))
    content["evaluation"]["tasks"] = ["hindi_pairs_pud"]
    content["model"]["block_size"] = 256
    recipe.write_text(json.dumps(content), encoding="utf-8")
    main([str(recipe), "--max_steps", "1"])
    folder = recipe.parent / "run"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    stores = {split: TokenStore(folder / "tokens" / split) for split in ("train", "test")}
    _, tokenizer = load_final_model(folder / "final_model")
    documents = {split: [store.document(n).tolist() for n in range(len(store))] for split, store in stores.items()}
    plain = PlainTrigram(documents["train"], len(tokenizer))
    nats = sum(plain.nll(document) for document in documents["test"])
    size = sum(len(text.encode()) for text in read_documents(folder / "tokens" / "test")["text"])
    floor = results["test"]["trigram_bits_per_byte"]
    assert floor["value"] == pytest.approx(nats / math.log(2) / size)
    assert floor["low"] < floor["value"] < floor["high"]

    pairs = load_pairs(TASKS["hindi_pairs_pud"])
    sentences = [plain.nll(ids.tolist()) for ids in encode_pairs(tokenizer, pairs, room=256)]
    points: dict[str, list[float]] = defaultdict(list)
    for pair, good, bad in zip(pairs, sentences[0::2], sentences[1::2], strict=True):
        # Equal sums may differ in their last bits by the order of adding.
        points[pair.phenomenon].append(0.5 if math.isclose(good, bad, rel_tol=1e-12) else float(good < bad))
    scores = results["minimal_pairs"]["hindi_pairs_pud"]
    found = {name: entry["accuracy"] for name, entry in scores["trigram"]["phenomena"].items()}
    assert found == pytest.approx({name: 100 * float(np.mean(values)) for name, values in points.items()})
    assert found != {name: entry["accuracy"] for name, entry in scores["phenomena"].items()}

    table = summary(results, folder=Path("runs/x"))
    assert table in capsys.readouterr().out.replace(str(folder), "runs/x")
    lines = table.splitlines()
    share = 100 * (1 - results["test"]["bits_per_byte"]["value"] / floor["value"])
    word = "under" if share > 0 else "OVER"
    assert any(
        line.split() == f"trigram floor {floor['value']:.3f}; the model is {abs(share):.1f} % {word} it".split()
        for line in lines
    )
    macro = scores["trigram"]["macro"]
    shown = f"trigram floor {macro['value']:.1f} [{macro['low']:.1f}, {macro['high']:.1f}] %"
    assert any(line.split() == shown.split() for line in lines)
    assert max(len(line) for line in lines) <= 80
