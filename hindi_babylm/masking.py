"""Tokens to hide from a model that predicts them from both sides: masked blocks, and which models want them."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hindi_babylm.packing import Blocks, TokenStore

IGNORED = -100
# Of the chosen tokens, those that become the mask, and those that become any other token (Devlin et al. 2019).
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1


class MaskedBlocks(Dataset[dict[str, torch.Tensor]]):
    """Blocks of `input_ids, attention_mask, labels (block_size,)` in which some tokens are to be predicted.

    Of the tokens of a block `probability` is chosen, rounded, and at least one: of these 80 % become the mask, 10 %
    any token that is not special, and 10 % stay (Devlin et al. 2019, section 3.1 and their code, which draws a fixed
    number too). `labels` has the chosen tokens and -100 elsewhere. Special tokens and padding are never chosen, nor is
    the first token of a row, which is the last of the block before. What is chosen hangs on `seed`, `set_epoch` and
    the index alone: no number of workers and no place of a resume changes it.

    Raises UserError for a tokenizer without a mask token.

    >>> from hindi_babylm.packing import TokenStore, pack
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> texts = ["राम घर गया", "सीता ने आम खाया"]
    >>> tokenizer = train_tokenizer(texts * 10, vocab_size=512)
    >>> store = TokenStore.write("tokens/train", texts=texts, words=[3, 4], tokenizer=tokenizer)
    >>> blocks = MaskedBlocks(pack(store, block_size=9), tokenizer=tokenizer, probability=0.15, seed=1)
    >>> for epoch in range(2):
    ...     blocks.set_epoch(epoch)
    ...     print(tokenizer.decode(blocks[0]["input_ids"]))
    राम घर गया</s>सीता ने<mask> खाया</s>
    राम घर<mask></s>सीता ने आम खाया</s>
    """

    def __init__(
        self, blocks: "Blocks", *, tokenizer: "PreTrainedTokenizerBase", probability: float, seed: int
    ) -> None:
        self.blocks = blocks
        self.probability = probability
        self.seed = seed
        self.epoch = 0
        self.mask_token_id = mask_token_id(tokenizer)
        self.special = np.asarray(sorted(set(tokenizer.all_special_ids)), dtype=np.int64)
        self.replacements = np.setdiff1d(np.arange(len(tokenizer)), self.special)

    @property
    def store(self) -> "TokenStore":
        """The token store that the blocks are of."""
        return self.blocks.store

    @property
    def block_size(self) -> int:
        """The tokens of a row."""
        return self.blocks.block_size

    def __len__(self) -> int:
        return len(self.blocks)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose masks the rows have."""
        self.epoch = epoch
        self.blocks.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.blocks[index]
        ids = row["input_ids"].numpy()
        real = row["labels"].numpy() != IGNORED
        places = np.flatnonzero(real & ~np.isin(ids, self.special))
        places = places[places > 0]
        inputs, labels = ids.copy(), np.full_like(ids, IGNORED)
        if len(places):
            generator = np.random.default_rng([self.seed, self.epoch, index])
            chosen = generator.permutation(places)[: max(1, round(self.probability * len(places)))]
            labels[chosen] = ids[chosen]
            lot = generator.random(len(chosen))
            inputs[chosen[lot < MASKED_SHARE]] = self.mask_token_id
            changed = chosen[(lot >= MASKED_SHARE) & (lot < MASKED_SHARE + RANDOM_SHARE)]
            inputs[changed] = generator.choice(self.replacements, len(changed))
        real[0] = True  # a row of padding alone: a softmax over nothing would be no number
        return {
            **row,
            "input_ids": torch.from_numpy(inputs),
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
            "labels": torch.from_numpy(labels),
        }

    def tokens(self) -> np.ndarray:
        """Return the tokens that each block brings, predicted or not: `(blocks,)`."""
        return self.blocks.tokens()

    def words(self, epoch: int = 0) -> np.ndarray:
        """Return the words of each block of `epoch` as float64 `(blocks,)`."""
        return self.blocks.words(epoch)

    def first_document(self, index: int) -> int:
        """Return the index of the first document that begins in block `index`, else of the last one before it."""
        return self.blocks.first_document(index)


def mask_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id of the token that hides others; raise UserError where there is none.

    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया"], vocab_size=512)
    >>> tokenizer.convert_ids_to_tokens(mask_token_id(tokenizer))
    '<mask>'
    """
    if not isinstance(tokenizer.mask_token_id, int):
        raise UserError(
            f"tokenizer: {tokenizer.name_or_path!r} has no mask token, which a masked model needs; take another one, "
            "or leave the key tokenizer out to train one"
        )
    return tokenizer.mask_token_id


def is_masked(class_name: str) -> bool:
    """Tell whether a class of transformers predicts masked tokens, and not the next one.

    >>> is_masked("DebertaV2ForMaskedLM"), is_masked("GPT2LMHeadModel")
    (True, False)
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    masked, causal = MODEL_FOR_MASKED_LM_MAPPING_NAMES.values(), MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return class_name in masked and class_name not in causal


def auto_class(class_name: str | None) -> Any:
    """Return the auto class that opens the weights of a class of transformers; causal where none is named.

    >>> auto_class("DebertaV2ForMaskedLM").__name__, auto_class(None).__name__
    ('AutoModelForMaskedLM', 'AutoModelForCausalLM')
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    return AutoModelForMaskedLM if class_name and is_masked(class_name) else AutoModelForCausalLM
