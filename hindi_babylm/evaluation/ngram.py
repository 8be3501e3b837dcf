"""A trigram of the training tokens with modified Kneser-Ney smoothing: the floor that a neural model has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hindi_babylm.console import stage

# The highest vocabulary of which three ids fit into 64 bits.
LARGEST_VOCABULARY = 2_642_245
# Of counts 1, 2 and more, where their closed form has no answer: those of KenLM's --discount_fallback.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_END = np.uint64(2**64 - 1)  # after every key, so that a search always ends at one


class Trigram:
    """An interpolated trigram with modified Kneser-Ney smoothing (Chen and Goodman 1999, section 4.1.6).

    `tokens (n,)` are documents with an EOS after each. As for the model, the context of a document's first token is
    EOS alone, and an EOS is predicted at its end. Bigrams that begin with EOS keep their own counts, since no token
    goes before it. Unigrams are interpolated with the uniform distribution, so every token has a probability, and those
    of the vocabulary sum to 1 after any context. Raises ValueError past 2,642,245 tokens of vocabulary.

    Building it takes up to 55 bytes a token, and 28 stay.

    >>> tokens = np.array([1, 2, 0, 1, 2, 0, 1, 3, 0])  # three documents, ended by EOS, which is 0
    >>> trigram = Trigram(tokens, vocab_size=4, eos_token_id=0)
    >>> np.exp(-trigram.document_nll([np.array([1]), np.array([2])])).round(4).tolist()  # 1 is first in each of them
    [0.6125, 0.1125]
    """

    def __init__(self, tokens: np.ndarray, *, vocab_size: int, eos_token_id: int) -> None:
        if vocab_size > LARGEST_VOCABULARY:
            raise ValueError(f"a trigram of {vocab_size} tokens of vocabulary: at most {LARGEST_VOCABULARY}")
        self.vocab_size, self.eos_token_id = vocab_size, eos_token_id
        bigrams, starts = _bigrams(np.concatenate([[eos_token_id], tokens]), vocab_size)
        first = bigrams // vocab_size == eos_token_id
        trigrams = (starts * vocab_size**2 + bigrams[1:])[~first[1:]]
        beginnings = bigrams[first]
        del bigrams, starts, first
        keys, counts = np.unique(trigrams, return_counts=True)
        del trigrams
        # A shorter one counts once for each token that it follows.
        shorter, shorter_counts = np.unique(np.concatenate([keys % vocab_size**2, beginnings]), return_counts=True)
        self._trigrams = _Level.of(keys, counts, vocab_size)
        self._bigrams = _Level.of(shorter, shorter_counts, vocab_size)
        followed = np.bincount((shorter % vocab_size).astype(np.int64), minlength=vocab_size)
        taken = discounts(followed)[np.minimum(followed, 3)]
        self._unigram = (followed - taken + taken.sum() / vocab_size) / followed.sum()

    def document_nll(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        """Return the NLL of each document in nats, float64 `(documents,)`: `(tokens,)` each, without its EOS."""
        lengths = np.asarray([len(tokens) for tokens in documents], dtype=np.int64)
        eos = np.asarray([self.eos_token_id])
        ids = np.concatenate([eos, *(part for tokens in documents for part in (eos, tokens))])
        counted = np.ones(len(ids), dtype=bool)
        counted[0] = counted[np.cumsum(lengths + 1) - lengths] = False
        bigrams, starts = _bigrams(ids, self.vocab_size)
        # No trigram has EOS in its middle, so the first token of a document has the probability of its bigram.
        trigrams = (starts * self.vocab_size**2 + bigrams[1:])[counted[2:]]
        bigrams, tokens = bigrams[counted[1:]], ids[counted]
        lower = self._bigrams.interpolate(bigrams, self._unigram[tokens])
        nats = -np.log(self._trigrams.interpolate(trigrams, lower))
        return np.bincount(np.repeat(np.arange(len(lengths)), lengths), nats, minlength=len(lengths))


class Floors:
    """What any model of the same tokens must beat: their add-one unigram and their trigram, over training `tokens`.

    `tokens (n,)` are documents with an EOS after each.

    >>> floors = Floors(np.array([1, 2, 0, 1, 0]), vocab_size=3, eos_token_id=0)
    >>> np.exp(-floors.unigram_nll([np.array([1])])).round(9).tolist()  # (2 + 1) / (5 + 3)
    [0.375]
    """

    def __init__(self, tokens: np.ndarray, *, vocab_size: int, eos_token_id: int) -> None:
        with stage("Counting trigrams", len(tokens), "tokens") as progress:
            self.counts = np.bincount(tokens, minlength=vocab_size)
            self.trigram = Trigram(tokens, vocab_size=vocab_size, eos_token_id=eos_token_id)
            progress.update(len(tokens))

    def unigram_nll(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        """Return the NLL of each document in nats under the unigram, float64 `(documents,)`."""
        smoothed = self.counts.astype(np.float64) + 1
        nats = np.log(smoothed.sum()) - np.log(smoothed)
        return np.asarray([nats[tokens].sum() for tokens in documents])

    def trigram_nll(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        """Return the NLL of each document in nats under the trigram, float64 `(documents,)`."""
        return self.trigram.document_nll(documents)


def discounts(counts: np.ndarray) -> np.ndarray:
    """Return what is taken from n-grams counted 0, 1, 2, and 3 times or more: `(4,)`; counts of 0 are left out.

    D_k = k - (k + 1) Y n_(k+1) / n_k with Y = n_1 / (n_1 + 2 n_2), where n_k n-grams are counted k times (Chen and
    Goodman 1999, equation 17). Where one of n_1 to n_4 is 0, or a discount would not be above 0, they are 0.5, 1 and
    1.5.

    >>> discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4])).tolist()
    [0.0, 0.5, 1.25, 1.0]
    """
    n = [int(np.count_nonzero(counts == times)) for times in (1, 2, 3, 4)]
    if all(n):
        y = n[0] / (n[0] + 2 * n[1])
        estimated = [k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3)]
        if min(estimated) > 0:
            return np.asarray([0.0, *estimated])
    return np.asarray([0.0, *FALLBACK_DISCOUNTS])


@dataclass(frozen=True)
class _Level:
    """The n-grams of one order: sorted `keys` with their `counts`, and sorted `contexts` with their totals.

    A key is its context times the vocabulary plus its last token. `weights` are what the discounts leave to the lower
    order, as shares of the totals.
    """

    keys: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    weights: np.ndarray
    discounts: np.ndarray
    vocab_size: int

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray, vocab_size: int) -> "_Level":
        """Add up the counts and discounts of each context; what is not found stands at the end of each array."""
        contexts = keys // vocab_size
        starts = np.flatnonzero(np.diff(contexts, prepend=_END))
        contexts = np.append(contexts[starts], _END)
        taken = discounts(counts)
        totals = np.add.reduceat(counts, starts)
        left = np.add.reduceat(taken[np.minimum(counts, 3)], starts) / totals
        return cls(
            keys=np.append(keys, _END),
            counts=np.append(counts, 0),
            contexts=contexts,
            totals=np.append(totals, 1),
            weights=np.append(left, 1.0),
            discounts=taken,
            vocab_size=vocab_size,
        )

    def interpolate(self, keys: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Return the probability of each n-gram's last token, given that of the lower order: `(keys,)`."""
        counts = self.counts[_places(self.keys, keys)]
        context = _places(self.contexts, keys // self.vocab_size)
        share = (counts - self.discounts[np.minimum(counts, 3)]) / self.totals[context]
        return np.asarray(share + self.weights[context] * lower)


def _bigrams(ids: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of the bigrams of `ids (n,)`: uint64 `(n - 1,)`, and the ids before those but the first."""
    wide = ids.astype(np.uint64)
    return wide[:-1] * vocab_size + wide[1:], wide[:-2]


def _places(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each of `wanted` stands in sorted `keys`, -1 where it does not."""
    # In order, neighbours are found in the same part of the array, which the processor then has at hand.
    order = np.argsort(wanted)
    places = np.empty(len(wanted), dtype=np.int64)
    places[order] = np.searchsorted(keys, wanted[order])
    return np.where(keys[places] == wanted, places, -1)
