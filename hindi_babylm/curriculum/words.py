"""Documents as words, and what a document's words are on average."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import regex

from hindi_babylm.console import stage
from hindi_babylm.orthography import normalize

if TYPE_CHECKING:
    from datasets import Dataset

# A run of letters and marks: of है। and "है" the word is है, and digits are none. Python's own \w has no matras.
WORD = regex.compile(r"[\p{L}\p{M}\u200c\u200d]+")
READ_BATCH = 256


@dataclass(frozen=True)
class DocumentWords:
    """The words of documents: word `n` is `types[ids[n]]`, of document `documents[n]`; both `(words,)`."""

    types: list[str]
    ids: np.ndarray
    documents: np.ndarray
    lengths: np.ndarray  # the words of each document: `(documents,)`

    def frequencies(self) -> np.ndarray:
        """Return how often each type occurs: int64 `(types,)`."""
        return np.bincount(self.ids, minlength=len(self.types))


def read_words(documents: "Dataset") -> DocumentWords:
    """Return the words of documents, column `text`, in NFC, without punctuation and digits.

    >>> from datasets import Dataset
    >>> words = read_words(Dataset.from_dict({"text": ["राम घर गया।", "घर, घर 12"]}))
    >>> print(words.types, words.ids.tolist(), words.lengths.tolist())
    ['राम', 'घर', 'गया'] [0, 1, 2, 1, 1] [3, 2]
    """
    number: defaultdict[str, int] = defaultdict(count().__next__)
    parts, lengths = [np.empty(0, dtype=np.int32)], []
    with stage("Reading words", len(documents), "documents") as progress:
        for batch in documents.select_columns(["text"]).iter(batch_size=READ_BATCH):
            for text in batch["text"]:
                found = WORD.findall(normalize(text))
                parts.append(np.fromiter(map(number.__getitem__, found), dtype=np.int32, count=len(found)))
                lengths.append(len(found))
            progress.update(len(batch["text"]))
    owners = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return DocumentWords(list(number), np.concatenate(parts), owners, np.asarray(lengths, dtype=np.int64))


def credible_means(words: DocumentWords, values: np.ndarray) -> np.ndarray:
    """Return the mean over each document's words of `values (words,)`, drawn to that of all: float64 `(documents,)`.

    Means of few words scatter, so the lowest and the highest would be those of short documents. Each is weighted by its
    credibility n t / (n t + s), with n words, s the variance of values within documents and t that of documents' true
    means, and the mean of all words by the rest: Bühlmann and Straub (1970), "Glaubwürdigkeit für Schadensätze", with
    their unbiased estimates of s and t. A document without words gets the mean of all; so does every one when the means
    differ by no more than chance (t <= 0).

    >>> from datasets import Dataset
    >>> words = read_words(Dataset.from_dict({"text": ["क ख", "क ख " * 50, "ग घ " * 50]}))
    >>> value = np.array([0.0, 1.0, 2.0, 3.0])[words.ids]  # of क, ख, ग, घ: the means are 0.5, 0.5 and 2.5
    >>> print(credible_means(words, value).round(2))
    [0.56 0.5  2.5 ]
    """
    counted = words.lengths > 0
    lengths = words.lengths.astype(np.float64)
    sums = np.bincount(words.documents, weights=values, minlength=len(lengths))
    total, documents = lengths.sum(), int(counted.sum())
    overall = sums.sum() / max(total, 1.0)
    means = np.where(counted, sums / np.maximum(lengths, 1.0), overall)
    within = float(np.square(values - means[words.documents]).sum()) / max(total - documents, 1.0)
    spread = float(lengths @ np.square(means - overall)) - (documents - 1) * within
    between = max(0.0, spread / max(total - float(np.square(lengths).sum()) / max(total, 1.0), 1e-9))
    weight = lengths * between
    credibility = np.divide(weight, weight + within, out=np.zeros_like(weight), where=weight > 0)
    result: np.ndarray = overall + credibility * (means - overall)
    return result
