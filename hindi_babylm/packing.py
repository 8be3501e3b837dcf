"""Documents -> a flat, memory-mapped token store -> blocks of one length."""

import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from hindi_babylm.console import stage
from hindi_babylm.storage import UserError, read_json, write_atomically, write_json

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerFast

ENCODE_BATCH = 256
DOCUMENTS = "documents.jsonl"
IGNORED = -100
PADDING = -1


class TokenStore:
    """The tokens of documents in one flat array, with an EOS after each document.

    `tokens (n,)` is memory-mapped uint16, or uint32 for vocabularies past 65,536; document `i` with its EOS is
    `tokens[offsets[i]:offsets[i + 1]]`, and `words[i]` counts its words. An example is at `write`.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        facts = read_json(path / "store.json")
        self.path = path
        self.eos_token_id: int = facts["eos_token_id"]
        self.tokens = np.memmap(path / "tokens.bin", dtype=np.dtype(facts["dtype"]), mode="r")
        self.offsets = np.load(path / "offsets.npy")
        self.words = np.load(path / "words.npy")

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.words)

    def document(self, index: int) -> np.ndarray:
        """Return the token ids of a document without its EOS, as int64 `(tokens,)`."""
        return np.asarray(self.tokens[self.offsets[index] : self.offsets[index + 1] - 1], dtype=np.int64)

    def lengths(self) -> np.ndarray:
        """Return the tokens of each document, EOS included: `(documents,)`."""
        return np.diff(self.offsets)

    @classmethod
    def write(
        cls, path: str | Path, *, texts: Sequence[str], words: Iterable[int], tokenizer: "PreTrainedTokenizerFast"
    ) -> "TokenStore":
        """Encode `texts` in order into a store at `path`; no token is dropped and none truncated.

        Raises UserError for a tokenizer without an EOS token or without the fast backend.

        >>> from hindi_babylm.tokenization.training import train_tokenizer
        >>> texts = ["राम घर गया", "सीता ने आम खाया"]
        >>> tokenizer = train_tokenizer(texts * 10, vocab_size=512)
        >>> store = TokenStore.write("tokens/train", texts=texts, words=[3, 4], tokenizer=tokenizer)
        >>> print(len(store), store.lengths().tolist())  # documents, and the tokens of each with its EOS
        2 [4, 5]
        >>> tokenizer.decode(store.document(1))
        'सीता ने आम खाया'
        """
        if not tokenizer.is_fast or tokenizer.eos_token_id is None:
            lack = "eos token" if tokenizer.is_fast else "fast backend"
            raise UserError(
                f"tokenizer: {tokenizer.name_or_path!r} has no {lack}, which packing needs; "
                "take another one, or leave the key tokenizer out to train one"
            )
        path = Path(path)
        backend = tokenizer.backend_tokenizer
        # Strings such as "</s>" in a document are text: they must not become control tokens.
        backend.encode_special_tokens = True
        eos = int(tokenizer.eos_token_id)
        dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
        offsets = array("q", [0])
        with (
            stage(f"Encoding {path.name}", len(texts), "documents") as progress,
            write_atomically(path / "tokens.bin") as temporary,
            open(temporary, "wb") as file,
        ):
            for start in range(0, len(texts), ENCODE_BATCH):
                batch = list(texts[start : start + ENCODE_BATCH])
                for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
                    ids = np.asarray([*encoding.ids, eos], dtype=dtype)
                    ids.tofile(file)
                    offsets.append(offsets[-1] + len(ids))
                progress.update(len(batch))
        _save_array(path / "offsets.npy", offsets)
        _save_array(path / "words.npy", words)
        # Written last: a store that has its facts is whole.
        write_json(path / "store.json", {"format": 1, "dtype": dtype.name, "eos_token_id": eos})
        return cls(path)


class Blocks(Dataset[dict[str, torch.Tensor]]):
    """Blocks of `input_ids (block_size,)` and `labels (block_size,)`, read from the memory map on demand.

    Neighbouring blocks share one token, because a model does not predict the first token of a row: so every token
    of the store but its first is predicted exactly once. Only the last block is padded; its padding is labelled
    -100 and never in the loss, and causal attention needs no mask for padding on the right. Index -1 gives
    a row of padding, with which a sampler fills up an epoch for several processes.

    With `repack_seed` each epoch puts the documents in an order of its own, drawn with the seed and the epoch, and
    cuts them anew: as many blocks of as many tokens, with other boundaries and other neighbours.

    With `document_attention` a block has `position_ids (block_size,)` too, see `document_positions`.
    """

    def __init__(
        self, store: TokenStore, block_size: int, *, repack_seed: int | None = None, document_attention: bool = False
    ) -> None:
        self.store = store
        self.block_size = block_size
        self.repack_seed = repack_seed
        self.document_attention = document_attention
        self.epoch = 0
        self._laid_out: tuple[int, np.ndarray, np.ndarray] | None = None  # of one epoch, at hand for its blocks
        self.predicted_tokens = len(store.tokens) - 1
        if self.predicted_tokens < 1 or block_size < 2:
            raise UserError(
                f"packing: {len(store.tokens)} tokens in blocks of block_size {block_size} leave nothing to predict"
            )

    def __len__(self) -> int:
        return -(-self.predicted_tokens // (self.block_size - 1))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not PADDING <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        start = index * (self.block_size - 1) if index != PADDING else len(self.store.tokens)
        found = self._read(start, min(start + self.block_size, len(self.store.tokens)))
        # The value of padding does not matter; EOS exists in every vocabulary.
        ids = np.full(self.block_size, self.store.eos_token_id, dtype=np.int64)
        ids[: len(found)] = found
        labels = ids.copy()
        labels[len(found) :] = IGNORED
        row = {"input_ids": ids, "labels": labels}
        if self.document_attention:
            row["position_ids"] = document_positions(ids, self.store.eos_token_id)
        return {name: torch.from_numpy(values) for name, values in row.items()}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose blocks are read from here on."""
        self.epoch = epoch

    def layout(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the documents in the order of `epoch`, and the position of each one's first token, and of the end.

        Both are int64, `(documents,)` and `(documents + 1,)`.
        """
        if self.repack_seed is None:
            return np.arange(len(self.store)), self.store.offsets
        # The third number keeps the draw apart from that of the order of blocks.
        order = np.random.default_rng([self.repack_seed, epoch, 1]).permutation(len(self.store))
        return order, np.concatenate([[0], np.cumsum(self.store.lengths()[order])])

    def _read(self, start: int, end: int) -> np.ndarray:
        """Return the tokens at the positions `start..end-1` of the epoch, gathered from its documents."""
        if self.repack_seed is None or start >= end:
            return self.store.tokens[start:end]
        if self._laid_out is None or self._laid_out[0] != self.epoch:
            self._laid_out = self.epoch, *self.layout(self.epoch)
        _, order, starts = self._laid_out
        first, last = np.searchsorted(starts, [start, end - 1], side="right") - 1
        parts = []
        for place in range(first, last + 1):
            offset = self.store.offsets[order[place]] - starts[place]
            parts.append(self.store.tokens[offset + max(start, starts[place]) : offset + min(end, starts[place + 1])])
        return np.concatenate(parts)

    def tokens(self) -> np.ndarray:
        """Return the predicted tokens of each block, the same in every epoch: `(blocks,)`."""
        counts = np.full(len(self), self.block_size - 1)
        counts[-1] = self.predicted_tokens - (len(self) - 1) * (self.block_size - 1)
        return counts

    def first_document(self, index: int) -> int:
        """Return the index of the first document that begins in block `index`, else of the last one before it."""
        found = np.searchsorted(self.store.offsets[:-1], index * (self.block_size - 1))
        return min(int(found), len(self.store) - 1)

    def words(self, epoch: int = 0) -> np.ndarray:
        """Return the words of each block of `epoch` as float64 `(blocks,)`, whose sum is the words of the store.

        A document's words are shared out over its tokens, EOS included; a block has the shares of the tokens that
        it predicts, the first block that of the epoch's first token too.
        """
        boundaries = np.minimum(1 + np.arange(len(self) + 1) * (self.block_size - 1), len(self.store.tokens))
        boundaries[0] = 0
        order, starts = self.layout(epoch)
        passed = np.concatenate([[0], np.cumsum(self.store.words[order])])
        return np.diff(np.interp(boundaries, starts, passed))


def document_positions(ids: np.ndarray, eos_token_id: int) -> np.ndarray:
    """Return the position of each token of a block in its document, from 0, int64 `(block_size,)`.

    The models of `modeling.KEEP_DOCUMENTS_APART` let a token attend only to those before it back to position 0, when
    they get no attention mask and no cache. The EOS of a document counts to the next one, as the context of its
    first token, which is what the evaluation of single documents gives them. A document that was begun in the block
    before starts at 0 too.

    >>> document_positions(np.array([7, 8, 1, 5, 6, 7, 1, 5]), eos_token_id=1).tolist()
    [0, 1, 0, 1, 2, 3, 0, 1]
    """
    places = np.arange(len(ids))
    return places - np.maximum.accumulate(np.where(ids == eos_token_id, places, 0))


def pack(
    store: TokenStore, *, block_size: int, repack_seed: int | None = None, document_attention: bool = False
) -> Blocks:
    """Cut a token store into blocks of `block_size` tokens; the options are those of `Blocks`.

    Raises UserError when the store is too small for one prediction.

    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> texts = ["राम घर गया", "सीता ने आम खाया"]
    >>> tokenizer = train_tokenizer(texts * 10, vocab_size=512)
    >>> store = TokenStore.write("tokens/train", texts=texts, words=[3, 4], tokenizer=tokenizer)
    >>> blocks = pack(store, block_size=6)  # of 9 tokens; a block shares its first with the one before
    >>> [tokenizer.decode(blocks[index]["input_ids"]) for index in range(len(blocks))]
    ['राम घर गया</s>सीता ने', ' ने आम खाया</s></s></s>']
    >>> print(blocks[1]["labels"].tolist()[-2:], blocks.tokens().tolist())  # of padding, and the predicted tokens
    [-100, -100] [5, 3]
    """
    return Blocks(store, block_size, repack_seed=repack_seed, document_attention=document_attention)


def write_documents(folder: Path, documents: "datasets.Dataset") -> None:
    """Write the documents of the token store in `folder` beside it: `text, source, document_id, work`."""
    rows = documents.select_columns(["text", "source", "document_id", "work"])
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with write_atomically(folder / DOCUMENTS) as temporary:
        temporary.write_bytes(lines.encode("utf-8"))


def read_documents(folder: Path) -> "datasets.Dataset":
    """Read what `write_documents` has written."""
    import datasets

    with open(folder / DOCUMENTS, encoding="utf-8", newline="\n") as file:
        return datasets.Dataset.from_list([json.loads(line) for line in file])


def _save_array(path: Path, values: Iterable[int]) -> None:
    with write_atomically(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.fromiter(values, dtype=np.int64))
