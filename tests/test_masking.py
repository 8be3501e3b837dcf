"""Which tokens are masked, against counts, binomial bounds and what a batch must not depend on."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, DebertaV2Config

from hindi_babylm.masking import IGNORED, MaskedBlocks, auto_class, is_masked, mask_token_id
from hindi_babylm.modeling import ARCHITECTURES, OBJECTIVES
from hindi_babylm.packing import PADDING, Blocks, TokenStore, pack
from hindi_babylm.storage import UserError
from hindi_babylm.tokenization.training import train_tokenizer
from hindi_babylm.training.objective import loss_of, token_nll
from tests.conftest import TINY_DEBERTA, WORDS, hindi_sentences

BLOCK = 64


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return a tokenizer of Hindi words."""
    return train_tokenizer([" ".join(WORDS)] * 5, vocab_size=600)


@pytest.fixture(scope="module")
def plain(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    """Return blocks of 40 documents."""
    texts = [hindi_sentences(30, seed=seed) for seed in range(40)]
    words = [len(text.split()) for text in texts]
    return pack(
        TokenStore.write(tmp_path_factory.mktemp("tokens"), texts=texts, words=words, tokenizer=tokenizer),
        block_size=BLOCK,
    )


def masked(plain: Blocks, tokenizer: Any, *, probability: float = 0.15, seed: int = 3, epoch: int = 0) -> MaskedBlocks:
    """Return masked blocks at an epoch."""
    blocks = MaskedBlocks(plain, tokenizer=tokenizer, probability=probability, seed=seed)
    blocks.set_epoch(epoch)
    return blocks


def rows_of(blocks: "Dataset[Any]", indices: Any) -> list[list[list[int]]]:
    """Return inputs and labels of some rows as lists."""
    return [[blocks[index][name].tolist() for name in ("input_ids", "labels")] for index in indices]


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_the_shares_are_those_of_the_paper(plain: Blocks, tokenizer: Any, probability: float) -> None:
    """Each block has its share of eligible tokens chosen, rounded, and of these 80, 10 and 10 % are mask, any, kept."""
    special = set(tokenizer.all_special_ids)
    lots: Counter[str] = Counter()
    replaced: Counter[int] = Counter()
    for epoch in range(4):
        blocks = masked(plain, tokenizer, probability=probability, epoch=epoch)
        for index in range(len(blocks)):
            row, before = blocks[index], plain[index]
            eligible = 0
            triples = zip(*(t.tolist() for t in (row["input_ids"], row["labels"], before["input_ids"])), strict=True)
            for place, (now, label, was) in enumerate(triples):
                allowed = bool(place > 0 and was not in special and before["labels"][place] != IGNORED)
                eligible += allowed
                if label == IGNORED:
                    assert now == was
                    continue
                assert allowed
                assert label == was
                kind = "mask" if now == tokenizer.mask_token_id else "kept" if now == was else "random"
                lots[kind] += 1
                if kind == "random":
                    assert now not in special
                    replaced[now] += 1
            chosen = int((row["labels"] != IGNORED).sum())
            assert chosen == max(1, round(probability * eligible))
    total = lots.total()
    size = len(tokenizer) - len(special)
    # A random token is by chance the one that stood there.
    shares = {"mask": 0.8, "random": 0.1 * (1 - 1 / size), "kept": 0.1 + 0.1 / size}
    for kind, share in shares.items():
        assert abs(lots[kind] - share * total) < 4 * math.sqrt(total * share * (1 - share)), kind
    # Over the whole vocabulary alike: chi-squared, five deviations of its normal approximation.
    expected = replaced.total() / size
    statistic = sum((replaced[token] - expected) ** 2 / expected for token in set(range(len(tokenizer))) - special)
    assert abs(statistic - (size - 1)) < 5 * math.sqrt(2 * (size - 1))


def test_each_place_is_chosen_alike(plain: Blocks, tokenizer: Any) -> None:
    """Over many epochs every eligible place of a block is chosen about as often as any other."""
    epochs = 400
    counts = np.zeros(BLOCK)
    blocks = masked(plain, tokenizer)
    for epoch in range(epochs):
        blocks.set_epoch(epoch)
        counts += (blocks[1]["labels"] != IGNORED).numpy()
    places = np.flatnonzero(~np.isin(plain[1]["input_ids"].numpy(), tokenizer.all_special_ids))[1:]
    share = round(0.15 * len(places)) / len(places)
    assert set(np.flatnonzero(counts)) == set(places.tolist())
    assert (np.abs(counts[places] - share * epochs) < 4.5 * math.sqrt(epochs * share * (1 - share))).all()


def test_masks_hang_on_seed_epoch_and_index_alone(plain: Blocks, tokenizer: Any) -> None:
    """Asked again, in another order, by another object or by two workers, a row has the same masks."""
    blocks = masked(plain, tokenizer, epoch=2)
    forward = rows_of(blocks, range(len(blocks)))
    assert rows_of(blocks, reversed(range(len(blocks)))) == forward[::-1]
    torch.manual_seed(1)
    assert rows_of(masked(plain, tokenizer, epoch=2), range(len(blocks))) == forward
    some = Subset(blocks, range(12))
    batches = list(DataLoader(some, batch_size=3, num_workers=2))
    assert torch.cat([batch["input_ids"] for batch in batches]).tolist() == [row[0] for row in forward[:12]]


def test_each_epoch_and_seed_masks_anew(plain: Blocks, tokenizer: Any) -> None:
    """Two epochs share no more chosen places than chance, and neither do two seeds or two blocks."""

    def places(seed: int, epoch: int) -> set[tuple[int, int]]:
        blocks = masked(plain, tokenizer, seed=seed, epoch=epoch)
        return {
            (index, int(place)) for index in range(len(blocks)) for place in (blocks[index]["labels"] + 100).nonzero()
        }

    first = places(3, 0)
    for other in (places(3, 1), places(4, 0)):
        expected = 0.15 * len(first)
        assert abs(len(first & other) - expected) < 5 * math.sqrt(expected)
    assert places(3, 0) == first


def test_padding_is_hidden(plain: Blocks, tokenizer: Any) -> None:
    """The padding of the last block is neither chosen nor attended to, and a row of padding predicts nothing."""
    blocks = masked(plain, tokenizer)
    last, before = blocks[len(blocks) - 1], plain[len(plain) - 1]
    real = before["labels"] != IGNORED
    assert not real.all()
    assert last["attention_mask"].tolist() == real.long().tolist()
    assert (last["labels"][~real] == IGNORED).all()
    padding = blocks[PADDING]
    assert (padding["labels"] == IGNORED).all()
    assert padding["attention_mask"].tolist() == [1] + [0] * (BLOCK - 1)
    model = tiny_model(tokenizer)
    other = last["input_ids"].clone()
    other[~real] = 9
    with torch.no_grad():
        inputs, attention = torch.stack([last["input_ids"], other]), last["attention_mask"].expand(2, -1)
        one, two = model(input_ids=inputs, attention_mask=attention).logits[:, real]
        blind = model(input_ids=inputs).logits[:, real]
        alone = model(input_ids=last["input_ids"][real][None]).logits[0]
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, alone)
    assert not torch.allclose(blind[0], blind[1]), "without the attention mask padding is seen"


def test_a_short_block_has_a_token_to_predict(tokenizer: Any, tmp_path: Path) -> None:
    """The least block with a word in it has one chosen token, so that no step is without loss."""
    store = TokenStore.write(tmp_path, texts=["राम घर"], words=[2], tokenizer=tokenizer)
    blocks = masked(pack(store, block_size=8), tokenizer)
    for epoch in range(5):
        blocks.set_epoch(epoch)
        assert int((blocks[0]["labels"] != IGNORED).sum()) == 1


def test_what_describes_the_blocks_is_passed_on(plain: Blocks, tokenizer: Any) -> None:
    """Words, tokens, store, size and epoch are those of the blocks that are masked."""
    blocks = masked(plain, tokenizer, epoch=5)
    assert plain.epoch == 5
    assert blocks.words().tolist() == plain.words().tolist()
    assert blocks.tokens().tolist() == plain.tokens().tolist()
    assert (len(blocks), blocks.block_size, blocks.store) == (len(plain), BLOCK, plain.store)
    assert blocks.first_document(3) == plain.first_document(3)


def test_a_tokenizer_without_a_mask_token_is_refused(tokenizer: Any) -> None:
    """A masked model needs a mask token: a tokenizer without one is refused in one line."""
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>", pad_token="<pad>")
    with pytest.raises(UserError, match="has no mask token, which a masked model needs; take another one, or leave"):
        mask_token_id(bare)


def test_the_classes_follow_from_the_registry() -> None:
    """Each architecture's objective is that of the class its auto class makes, and only masked ones are masked."""
    assert set(OBJECTIVES) == set(ARCHITECTURES)
    assert [name for name, objective in OBJECTIVES.items() if objective == "masked"] == ["deberta-v2"]
    assert is_masked("DebertaV2ForMaskedLM")
    assert is_masked("BertForMaskedLM")
    for name in ("GPT2LMHeadModel", "LlamaForCausalLM", "BertLMHeadModel", "XLMWithLMHeadModel", "Unknown"):
        assert not is_masked(name)
    assert auto_class("DebertaV2ForMaskedLM") is AutoModelForMaskedLM
    assert auto_class("LlamaForCausalLM") is auto_class(None) is AutoModelForCausalLM


def tiny_model(tokenizer: Any, **settings: Any) -> Any:
    """Return an untrained DeBERTa whose weights are large enough for its probabilities to differ."""
    torch.manual_seed(1)
    settings = {"block_size": BLOCK, "dropout": 0.0, "initializer_range": 0.3, **TINY_DEBERTA, **settings}
    config = ARCHITECTURES["deberta-v2"](vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **settings)
    assert isinstance(config, DebertaV2Config)
    return AutoModelForMaskedLM.from_config(config).eval()


def test_the_loss_is_the_mean_over_masked_tokens_of_all_rows(plain: Blocks, tokenizer: Any) -> None:
    """Sums of rows and the loss of parts are those of a loop over the masked tokens, with and without smoothing."""
    model, blocks = tiny_model(tokenizer), masked(plain, tokenizer)
    rows = [blocks[index] for index in (0, 1, len(blocks) - 1)]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    expected, smoothed = [], []
    for row in rows:
        with torch.no_grad():
            logits = (
                model(input_ids=row["input_ids"][None], attention_mask=row["attention_mask"][None]).logits[0].double()
            )
        scores = torch.log_softmax(logits, dim=-1)
        places = [place for place, label in enumerate(row["labels"].tolist()) if label != IGNORED]
        expected.append([-scores[place, row["labels"][place]].item() for place in places])
        smoothed += [-scores[place].mean().item() for place in places]
    with torch.no_grad():
        sums, tokens = token_nll(model, batch, causal=False)
        assert sums.tolist() == pytest.approx([sum(row) for row in expected], rel=1e-5)
        assert tokens.tolist() == [len(row) for row in expected]
        assert "labels" in batch
        mean = sum(map(sum, expected)) / sum(map(len, expected))
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        for smoothing in (0.0, 0.2):
            loss = loss_of(model, label_smoothing=smoothing)
            assert loss is not None
            whole = loss(model(**inputs), batch["labels"], num_items_in_batch=tokens.sum())
            parts = sum(
                loss(
                    model(**{name: value[row : row + 1] for name, value in inputs.items()}),
                    batch["labels"][row : row + 1],
                    num_items_in_batch=tokens.sum(),
                )
                for row in range(3)
            )
            wanted = (1 - smoothing) * mean + smoothing * float(np.mean(smoothed))
            assert whole.item() == pytest.approx(wanted, rel=1e-5)
            assert float(parts) == pytest.approx(wanted, rel=1e-5)
        assert loss is not None
        nothing = loss(model(**inputs), torch.full_like(batch["labels"], IGNORED), num_items_in_batch=torch.tensor(0))
        assert nothing.item() == 0.0


def test_a_causal_model_keeps_its_own_loss() -> None:
    """For a causal model the Trainer gets no loss function."""
    model = AutoModelForCausalLM.from_config(
        ARCHITECTURES["gpt2"](block_size=8, dropout=0.0, vocab_size=30, n_layer=1, n_embd=8, n_head=1)
    )
    assert loss_of(model, label_smoothing=0.0) is None
