import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm.packing import ENCODE_BATCH, IGNORED, PADDING, Blocks, TokenStore, pack
from hindi_babylm.storage import UserError, write_json
from hindi_babylm.tokenization.training import train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EOS = 1
TEXTS = ["राम ने आम खाया।", "सीता और लक्ष्मण वन में रहते थे", "", "क्षत्रिय विद्यार्थी </s> <pad> ने पढ़ा", "एक"]


@pytest.fixture(scope="module")
def tokenizer() -> "PreTrainedTokenizerFast":
    """Return a small tokenizer."""
    return train_tokenizer(TEXTS * 3, vocab_size=600)


def word_tokenizer(size: int, **special: str) -> "PreTrainedTokenizerFast":
    """Return a tokenizer of `size` whole words w0, w1, ..."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{index}": index for index in range(size)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made: Any = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    return cast("PreTrainedTokenizerFast", made)


def handmade(folder: Path, documents: list[list[int]], words: list[int]) -> TokenStore:
    """Write a store of given tokens without any tokenizer; EOS is put after each document."""
    flat = [token for document in documents for token in [*document, EOS]]
    np.asarray(flat, dtype=np.uint16).tofile(folder / "tokens.bin")
    np.save(folder / "offsets.npy", np.cumsum([0, *(len(document) + 1 for document in documents)]))
    np.save(folder / "words.npy", np.asarray(words, dtype=np.int64))
    write_json(folder / "store.json", {"format": 1, "dtype": "uint16", "eos_token_id": EOS})
    return TokenStore(folder)


@pytest.mark.parametrize("copies", [1, 2 * ENCODE_BATCH // len(TEXTS) + 1])
def test_the_store_holds_each_text_encoded_and_an_eos(
    tmp_path: Path, tokenizer: "PreTrainedTokenizerFast", copies: int
) -> None:
    """The store is the texts encoded one by one, with an EOS after each: no token dropped, none truncated."""
    texts = TEXTS * copies
    store = TokenStore.write(
        tmp_path / "store", texts=texts, words=[len(text.split()) for text in texts], tokenizer=tokenizer
    )
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS] * copies
    eos = tokenizer.eos_token_id
    assert store.eos_token_id == eos
    assert store.tokens.tolist() == [token for ids in expected for token in [*ids, eos]]
    assert len(store) == len(texts)
    assert [store.document(index).tolist() for index in range(len(texts))] == expected
    assert store.document(0).dtype == np.int64
    assert store.lengths().tolist() == [len(ids) + 1 for ids in expected]
    assert store.words.tolist() == [len(text.split()) for text in texts]
    assert isinstance(store.tokens, np.memmap)


def test_a_long_text_is_not_truncated(tmp_path: Path) -> None:
    """A document longer than the tokenizer's model length is stored whole."""
    short = train_tokenizer(TEXTS * 3, vocab_size=600, max_length=8)
    text = " ".join(TEXTS * 50)
    store = TokenStore.write(tmp_path, texts=[text], words=[len(text.split())], tokenizer=short)
    assert short.decode(store.document(0)) == text


def test_a_store_opens_again(tmp_path: Path, tokenizer: "PreTrainedTokenizerFast") -> None:
    """A written store opens by its path to the same tokens, documents and words."""
    written = TokenStore.write(tmp_path, texts=TEXTS, words=[1, 2, 0, 4, 5], tokenizer=tokenizer)
    opened = TokenStore(tmp_path)
    assert opened.tokens.tolist() == written.tokens.tolist()
    assert opened.offsets.tolist() == written.offsets.tolist()
    assert opened.words.tolist() == [1, 2, 0, 4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["offsets.npy", "store.json", "tokens.bin", "words.npy"]


@pytest.mark.parametrize(("size", "dtype"), [(600, "uint16"), (2**16, "uint16"), (2**16 + 1, "uint32")])
def test_the_width_of_a_token_follows_the_vocabulary(tmp_path: Path, size: int, dtype: str) -> None:
    """Tokens take two bytes while every id fits, else four; the largest id survives."""
    tokenizer = word_tokenizer(size, eos_token="w1")
    store = TokenStore.write(tmp_path, texts=[f"w5 w{size - 1}"], words=[2], tokenizer=tokenizer)
    assert store.tokens.dtype == np.dtype(dtype)
    assert store.tokens.tolist() == [5, size - 1, 1]


def test_special_strings_in_a_document_stay_text(tmp_path: Path, tokenizer: "PreTrainedTokenizerFast") -> None:
    """The only EOS of the store is the one after each document, whatever the documents say."""
    texts = ["</s>", "राम </s></s> सीता", "<pad><unk><mask>"]
    # Tokenizers of others see control tokens in text.
    tokenizer.backend_tokenizer.encode_special_tokens = False
    assert tokenizer.backend_tokenizer.encode("</s>").ids == [tokenizer.eos_token_id]
    store = TokenStore.write(tmp_path, texts=texts, words=[1, 3, 1], tokenizer=tokenizer)
    assert np.flatnonzero(store.tokens == tokenizer.eos_token_id).tolist() == (store.offsets[1:] - 1).tolist()
    for index, text in enumerate(texts):
        assert not set(tokenizer.all_special_ids) & set(store.document(index).tolist())
        assert tokenizer.decode(store.document(index)) == text


def test_a_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    """A tokenizer without an EOS is refused in one line, and nothing is written."""
    with pytest.raises(UserError) as caught:
        TokenStore.write(tmp_path / "store", texts=["w1"], words=[1], tokenizer=word_tokenizer(600))
    assert "has no eos token, which packing needs" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    """A tokenizer without the fast backend is refused in one line."""
    slow: Any = SimpleNamespace(is_fast=False, eos_token_id=1, name_or_path="old/one")
    with pytest.raises(UserError, match="tokenizer: 'old/one' has no fast backend, which packing needs"):
        TokenStore.write(tmp_path, texts=["w1"], words=[1], tokenizer=slow)


documents_and_words = st.lists(st.tuples(st.lists(st.integers(2, 60_000), max_size=12), st.integers(0, 20)), min_size=1)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(documents_and_words, st.integers(2, 20))
def test_blocks_against_brute_force(rows: list[tuple[list[int], int]], block_size: int) -> None:
    """Every token but the first is predicted once and in order; token and word sums equal counting them singly."""
    documents, words = [tokens for tokens, _ in rows], [count for _, count in rows]
    flat = [token for document in documents for token in [*document, EOS]]
    # What one token is worth in words: its document's words over its document's tokens.
    shares = [count / (len(tokens) + 1) for tokens, count in rows for _ in range(len(tokens) + 1)]
    with tempfile.TemporaryDirectory() as folder:
        store = handmade(Path(folder), documents, words)
        if len(flat) < 2:
            with pytest.raises(UserError, match="leave nothing to predict"):
                pack(store, block_size=block_size)
            return
        blocks = pack(store, block_size=block_size)
        predicted: list[int] = []
        worth = [shares[0]]
        tokens_of, words_of = [], []
        for index in range(len(blocks)):
            row = blocks[index]
            inputs, labels = row["input_ids"], row["labels"]
            assert inputs.shape == labels.shape == (block_size,)
            assert inputs.dtype == labels.dtype == torch.int64
            real = labels != IGNORED
            assert torch.equal(inputs[real], labels[real])
            if index < len(blocks) - 1:
                assert bool(real.all())
            kept = int(real.sum())
            assert not bool(real[kept:].any())  # padding is on the right
            start = len(predicted)
            assert inputs[0].item() == flat[start]  # the context of the first prediction
            predicted += labels[1:kept].tolist()
            worth += shares[start + 1 : start + kept]
            tokens_of.append(kept - 1)
            words_of.append(sum(shares[start + 1 : start + kept]) + (shares[0] if index == 0 else 0))
        assert predicted == flat[1:]
        assert blocks.tokens().tolist() == tokens_of
        assert blocks.tokens().sum() == blocks.predicted_tokens == len(flat) - 1
        assert min(tokens_of) >= 1
        assert blocks.words() == pytest.approx(np.asarray(words_of), abs=1e-9)
        assert blocks.words().sum() == pytest.approx(sum(words), abs=1e-9)
        assert len(worth) == len(flat)


def test_padding_is_only_in_the_last_block(tmp_path: Path) -> None:
    """Seven tokens in blocks of four are two full blocks that share a token; eight need a third with padding."""
    full = pack(handmade(tmp_path, [[2, 3, 4, 5, 6, 7]], [6]), block_size=4)
    assert [full[index]["input_ids"].tolist() for index in range(len(full))] == [[2, 3, 4, 5], [5, 6, 7, EOS]]
    assert [full[index]["labels"].tolist() for index in range(len(full))] == [[2, 3, 4, 5], [5, 6, 7, EOS]]
    ragged = pack(handmade(tmp_path, [[2, 3, 4, 5, 6, 7, 8]], [7]), block_size=4)
    assert len(ragged) == 3
    assert ragged[2]["input_ids"].tolist() == [8, EOS, EOS, EOS]
    assert ragged[2]["labels"].tolist() == [8, EOS, IGNORED, IGNORED]
    assert ragged.tokens().tolist() == [3, 3, 1]


def test_index_minus_one_is_a_row_of_padding(tmp_path: Path) -> None:
    """Index -1 gives a row of the usual shape in which nothing is predicted."""
    blocks = pack(handmade(tmp_path, [[2, 3, 4, 5, 6, 7]], [6]), block_size=4)
    row = blocks[PADDING]
    assert row["input_ids"].tolist() == [EOS] * 4
    assert row["labels"].tolist() == [IGNORED] * 4
    assert row["input_ids"].dtype == row["labels"].dtype == torch.int64


@pytest.mark.parametrize("index", [-2, 2, 100])
def test_an_index_outside_is_an_index_error(tmp_path: Path, index: int) -> None:
    """An index outside of the blocks is an IndexError, so that iteration ends; -1 alone means padding."""
    blocks = pack(handmade(tmp_path, [[2, 3, 4, 5, 6, 7]], [6]), block_size=4)
    with pytest.raises(IndexError, match=f"block {index} of 2"):
        blocks[index]


def test_blocks_are_iterable_and_picklable(tmp_path: Path) -> None:
    """Blocks iterate to their end, and travel to the worker of a data loader."""
    from torch.utils.data import DataLoader

    blocks = pack(handmade(tmp_path, [[2, 3, 4, 5, 6, 7, 8]] * 3, [7] * 3), block_size=4)
    expected = [blocks[index]["input_ids"].tolist() for index in range(len(blocks))]
    assert [blocks[index]["input_ids"].tolist() for index in range(len(blocks))] == expected
    loader: DataLoader[Any] = DataLoader(blocks, batch_size=2, num_workers=1)
    assert [row for batch in loader for row in batch["input_ids"].tolist()] == expected


@pytest.mark.parametrize(("documents", "block_size"), [([[]], 4), ([[2, 3]], 1)])
def test_a_store_without_a_prediction_is_refused(tmp_path: Path, documents: list[list[int]], block_size: int) -> None:
    """A store of one token, or blocks of one, leave nothing to predict: refused in one line with both numbers."""
    store = handmade(tmp_path, documents, [0] * len(documents))
    with pytest.raises(UserError) as caught:
        Blocks(store, block_size)
    assert f"{len(store.tokens)} tokens in blocks of block_size {block_size} leave nothing to predict" in str(
        caught.value
    )


def test_words_of_the_blocks_of_a_real_store(tmp_path: Path, tokenizer: "PreTrainedTokenizerFast") -> None:
    """The words of the blocks of a written store add up to the words of its texts."""
    words = [len(text.split()) for text in TEXTS]
    store = TokenStore.write(tmp_path, texts=TEXTS, words=words, tokenizer=tokenizer)
    blocks = pack(store, block_size=8)
    assert len(blocks) > 2
    assert blocks.words().sum() == pytest.approx(sum(words))
    assert bool((blocks.words() > 0).all())


@settings(derandomize=True, max_examples=100, deadline=None)
@given(documents_and_words, st.integers(2, 20), st.integers(0, 5), st.integers(0, 3))
def test_repacked_blocks_against_brute_force(
    rows: list[tuple[list[int], int]], block_size: int, seed: int, epoch: int
) -> None:
    """In every epoch all documents stand whole in some order, each token but the first is predicted once, in order."""
    documents, words = [tokens for tokens, _ in rows], [count for _, count in rows]
    with tempfile.TemporaryDirectory() as folder:
        store = handmade(Path(folder), documents, words)
        if len(store.tokens) < 2:
            return
        blocks, plain = pack(store, block_size=block_size, repack_seed=seed), pack(store, block_size=block_size)
        blocks.set_epoch(epoch)
        order, starts = blocks.layout(epoch)
        assert sorted(order) == list(range(len(documents)))
        flat = [token for number in order for token in [*documents[number], EOS]]
        assert [flat[start] for start in starts[:-1]] == [[*documents[number], EOS][0] for number in order]
        shares = [words[n] / (len(documents[n]) + 1) for n in order for _ in range(len(documents[n]) + 1)]
        assert len(blocks) == len(plain)
        assert blocks.tokens().tolist() == plain.tokens().tolist()
        predicted: list[int] = []
        for index in range(len(blocks)):
            row = blocks[index]
            kept = int((row["labels"] != IGNORED).sum())
            start = len(predicted)
            assert row["input_ids"][0].item() == flat[start]
            predicted += row["labels"][1:kept].tolist()
            own = sum(shares[start + 1 : start + kept]) + (shares[0] if index == 0 else 0)
            assert blocks.words(epoch)[index] == pytest.approx(own, abs=1e-9)
        assert predicted == flat[1:]
        assert blocks[PADDING]["labels"].tolist() == [IGNORED] * block_size


def test_repacking_changes_blocks_and_neighbours(tmp_path: Path) -> None:
    """No two epochs and no two seeds have one order of documents, and an epoch is the same whenever it is asked for."""
    documents = [[10 * number + place for place in range(1 + number % 4)] for number in range(1, 31)]
    store = handmade(tmp_path, documents, [1] * 30)
    orders = {(seed, epoch): tuple(pack(store, block_size=8, repack_seed=seed).layout(epoch)[0]) for seed in range(3)
              for epoch in range(4)}  # fmt: skip
    assert len(set(orders.values())) == len(orders)
    assert tuple(range(30)) not in orders.values()
    blocks = pack(store, block_size=8, repack_seed=0)
    seen = []
    for epoch in (0, 1, 0, 3):
        blocks.set_epoch(epoch)
        seen.append([blocks[index]["input_ids"].tolist() for index in range(len(blocks))])
    assert seen[0] == seen[2]
    assert not any(row in seen[1] for row in seen[0])


def test_without_repacking_an_epoch_changes_nothing(tmp_path: Path) -> None:
    """Blocks that are not repacked are the same in every epoch, in the order of the store."""
    blocks = pack(handmade(tmp_path, [[2, 3, 4, 5, 6, 7]] * 3, [6, 1, 2]), block_size=4)
    before = [blocks[index]["input_ids"].tolist() for index in range(len(blocks))]
    blocks.set_epoch(3)
    assert [blocks[index]["input_ids"].tolist() for index in range(len(blocks))] == before
    assert blocks.words(3).tolist() == blocks.words().tolist()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(documents_and_words, st.integers(2, 20), st.sampled_from([None, 3]))
def test_positions_in_documents_against_brute_force(
    rows: list[tuple[list[int], int]], block_size: int, repack_seed: int | None
) -> None:
    """A position counts from the EOS before its document, or from the beginning of the block where that is later."""
    with tempfile.TemporaryDirectory() as folder:
        store = handmade(Path(folder), [tokens for tokens, _ in rows], [count for _, count in rows])
        if len(store.tokens) < 2:
            return
        blocks = pack(store, block_size=block_size, repack_seed=repack_seed, document_attention=True)
        plain = pack(store, block_size=block_size, repack_seed=repack_seed)
        _, starts = blocks.layout(0)
        ends = set((starts[1:] - 1).tolist())
        for index in range(len(blocks)):
            row, before = blocks[index], plain[index]
            assert all(torch.equal(row[name], before[name]) for name in before)
            assert row["position_ids"].dtype == torch.int64
            position = -1
            for place, found in enumerate(row["position_ids"].tolist()):
                at = index * (block_size - 1) + place
                position = 0 if at in ends or at >= len(store.tokens) else position + 1
                assert found == position
        assert blocks[PADDING]["position_ids"].tolist() == [0] * block_size
