"""A finished model as the tasks see it: texts to tokens to negative log-likelihoods, causal or masked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Scorer:
    """A model in fp32 with its tokenizer, and how a text stands in its context.

    `first` is the token before a text, the context of its first token; a masked model has `last` behind it too.

    >>> from hindi_babylm.modeling import build_model
    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया"], vocab_size=512)
    >>> size = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    >>> model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=16, model_config=size)
    >>> scorer = Scorer.of(model, tokenizer, block_size=16)
    >>> nll, tokens = scorer.nll(["राम घर गया", "राम"], "Scoring")  # nats, and what was predicted of each text
    >>> print(nll.dtype, tokens.tolist())
    float64 [3, 1]
    """

    model: "PreTrainedModel"
    tokenizer: Any
    block_size: int
    first: int
    last: int
    masked: bool

    @classmethod
    def of(cls, model: "PreTrainedModel", tokenizer: Any, *, block_size: int) -> "Scorer":
        """Return the scorer of a model whose documents are separated by EOS, as ours are."""
        from hindi_babylm.masking import is_masked

        eos = tokenizer.eos_token_id
        if not isinstance(eos, int):
            raise UserError(f"evaluation: the tokenizer {tokenizer.name_or_path!r} has no EOS token")
        return cls(model, tokenizer, block_size, first=eos, last=eos, masked=is_masked(type(model).__name__))

    @property
    def room(self) -> int:
        """The tokens of the longest text that stands in one context."""
        return self.block_size - (2 if self.masked else 0)

    def encode(self, texts: Sequence[str]) -> "list[np.ndarray]":
        """Return the token ids of each text, int64 `(tokens,)`; see `encode`."""
        return encode(self.tokenizer, texts)

    def nll(
        self,
        texts: Sequence[str],
        description: str,
        *,
        limit: int | None = None,
        given: Sequence[int] | None = None,
    ) -> "tuple[np.ndarray, np.ndarray]":
        """Return the NLL of each text in nats, and the tokens that were scored of it: `(texts,)` both.

        The first `given (texts,)` tokens of each text are context alone, and not scored.
        Of a masked model it is the pseudo-log-likelihood, and `limit` bounds the tokens that are scored of all texts.
        Raises UserError for a model that has diverged.
        """
        import numpy as np

        from hindi_babylm.evaluation.perplexity import document_nll
        from hindi_babylm.evaluation.pseudo_likelihood import pseudo_nll

        settings: Any = {"block_size": self.block_size, "description": description, "given": given}
        if self.masked:
            edges = self.first, self.last
            return pseudo_nll(self.model, self.tokenizer, texts, limit=limit, edges=edges, **settings)
        documents = self.encode(texts)
        nll = document_nll(self.model, documents, eos_token_id=self.first, **settings)
        lengths = np.asarray([len(tokens) for tokens in documents])
        return nll, lengths - (0 if given is None else np.asarray(given))


def encode(tokenizer: Any, texts: Sequence[str]) -> "list[np.ndarray]":
    """Return the token ids of each text, int64 `(tokens,)`, without special tokens; what reads as one is text.

    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया"], vocab_size=512)
    >>> [tokenizer.decode(ids) for ids in encode(tokenizer, ["राम </s> गया"])]
    ['राम </s> गया']
    """
    import numpy as np

    if not tokenizer.is_fast:
        settings = {"add_special_tokens": False, "split_special_tokens": True, "truncation": False, "verbose": False}
        return [np.asarray(tokenizer(text, **settings)["input_ids"], dtype=np.int64) for text in texts]
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_truncation()
    encoded = backend.encode_batch(list(texts), add_special_tokens=False)
    return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encoded]
