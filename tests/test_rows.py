"""Texts that begin alike are read as one row: what a tree holds, and that no model scores them otherwise."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hindi_babylm.evaluation.perplexity import document_nll, reads_trees
from hindi_babylm.evaluation.rows import TREE_TOKENS, Row, tree_rows

EOS = 3
VOCABULARY = 53
SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}
# Model type -> its fields, and whether it reads trees. The others have distances, windows or states of their own.
MODELS: dict[str, tuple[dict[str, Any], bool]] = {
    "gpt2": ({"n_positions": 160}, True),
    "llama": ({"intermediate_size": 32, "max_position_embeddings": 160}, True),
    "qwen2": ({"intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 160}, True),
    "gpt_neox": ({"intermediate_size": 32, "max_position_embeddings": 160}, True),
    "mistral": ({"intermediate_size": 32, "num_key_value_heads": 1, "sliding_window": 4096}, True),
    "mistral, window of 100": ({"intermediate_size": 32, "num_key_value_heads": 1, "sliding_window": 100}, False),
    "bloom": ({}, False),
    "gpt_neo": ({"attention_types": [[["local"], 2]], "num_layers": 2, "window_size": 5, "num_heads": 2}, False),
    "mamba": ({"state_size": 4}, False),
}


def make_model(name: str) -> PreTrainedModel:
    """Return an untrained model whose weights are large enough for its probabilities to differ."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(name.split(",")[0], **{**SIZE, **MODELS[name][0]})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return model


def families(draw: np.random.Generator, *, families: int, longest: int) -> list[np.ndarray]:
    """Return sequences in families that begin alike, branches of branches and equal ones among them, in no order."""
    found: list[np.ndarray] = []
    for _ in range(families):
        family = [draw.integers(4, VOCABULARY, size=draw.integers(1, longest))]
        for _ in range(draw.integers(0, 5)):
            model = family[draw.integers(len(family))]
            end = draw.integers(4, VOCABULARY, size=draw.integers(0, longest // 2))
            family.append(np.concatenate([model[: draw.integers(1, len(model) + 1)], end])[:longest])
        found += family
    draw.shuffle(found)
    return found


def seen_from(row: Row, place: int) -> list[int]:
    """Return the tokens that a place attends to, in the order of their positions, each position once."""
    visible = np.flatnonzero(row.visible[place]) if row.visible is not None else np.arange(place + 1)
    assert row.positions[visible].tolist() == sorted(set(row.positions[visible].tolist()))
    return [int(token) for token in row.tokens[visible]]


@pytest.mark.parametrize("seed", range(20))
def test_each_token_is_predicted_once_from_all_before_it(seed: int) -> None:
    """Each token from its sequence's first place on is a target once, of a place that sees what stands before it."""
    draw = np.random.default_rng(seed)
    sequences = {7 * n: np.array([EOS, *own]) for n, own in enumerate(families(draw, families=8, longest=40))}
    first = {number: int(draw.integers(len(own) - 1)) for number, own in sequences.items()}
    rows = tree_rows(sequences, first=first)
    found: dict[int, list[int]] = {number: [] for number in sequences}
    for row in rows:
        assert len(row.tokens) <= TREE_TOKENS
        for source, target, owner in zip(row.sources, row.targets, row.owners, strict=True):
            seen, own = seen_from(row, source), sequences[owner].tolist()
            assert seen == own[: len(seen)]
            assert target == own[len(seen)]
            found[owner].append(len(seen))
    for number, own in sequences.items():
        assert found[number] == list(range(first[number] + 1, len(own)))


def test_what_texts_share_stands_in_a_row_once() -> None:
    """A row of a family has as many tokens as the family has different beginnings, the closing tokens aside."""
    draw = np.random.default_rng(3)
    begin = draw.integers(4, VOCABULARY, size=20)
    ends = [[5, 6, 7], [5, 8], [9, 9, 9, 9], [5, 6, 7], []]
    sequences = {n: np.array([EOS, *begin, *end]) for n, end in enumerate(ends)}
    sequences[9] = np.array([EOS, 50, *begin])  # shares EOS alone
    rows = tree_rows(sequences, first=dict.fromkeys(sequences, 0))
    beginnings = {tuple(own[:length]) for n, own in sequences.items() if n != 9 for length in range(1, len(own))}
    assert sorted(len(row.tokens) for row in rows) == sorted([21, len(beginnings)])
    for row in rows:
        assert len({tuple(seen_from(row, place)) for place in range(len(row.tokens))}) == len(row.tokens)


def test_a_long_family_is_cut_into_rows() -> None:
    """A family past the limit is several rows, each of as many whole texts as fit."""
    begin = np.arange(4, 44)
    sequences = {n: np.array([EOS, *begin, *([4 + n] * 30)]) for n in range(9)}
    rows = tree_rows(sequences, first=dict.fromkeys(sequences, 0))
    assert [len(row.tokens) for row in rows] == [41 + 3 * 29] * 3


@pytest.mark.parametrize("name", MODELS)
def test_texts_that_begin_alike_score_as_each_by_itself(name: str) -> None:
    """Scores of whole families are those of one text at a time, whatever a model makes of positions and masks."""
    draw = np.random.default_rng(0)
    documents = [*families(draw, families=6, longest=30), *families(draw, families=2, longest=150)]
    given = [int(draw.integers(len(tokens))) for tokens in documents]
    model = make_model(name)
    found = document_nll(model, documents, eos_token_id=EOS, block_size=160, description="", given=given)
    for nll, tokens, context in zip(found, documents, given, strict=True):
        ids = torch.tensor([[EOS, *tokens.tolist()]])
        with torch.no_grad():
            logits = model(ids).logits[0].double().log_softmax(-1)
        expected = -sum(float(logits[place, tokens[place]]) for place in range(context, len(tokens)))
        assert nll == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_who_reads_trees_is_found_out(name: str) -> None:
    """Models with positions and masks of transformers' kind read trees; ALiBi, local windows and states do not."""
    with torch.no_grad():
        assert reads_trees(make_model(name), EOS, block_size=128) == MODELS[name][1]


def test_a_model_reads_shared_beginnings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pairs that differ in their last two tokens a model reads one sentence each, and one token more."""
    model = make_model("llama")
    draw = np.random.default_rng(1)
    pairs = [draw.integers(4, VOCABULARY, size=30) for _ in range(20)]
    documents = [np.array([*pair, *end]) for pair in pairs for end in ([5, 6], [7, 8])]
    read: list[int] = []
    forward = model.forward

    def counted(**inputs: Any) -> Any:
        read.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", counted)
    document_nll(model, documents, eos_token_id=EOS, block_size=64, description="")
    *found_out, pairs_read = read
    assert pairs_read == 20 * 33
    assert len(found_out) == 2  # a tree and its texts, once
