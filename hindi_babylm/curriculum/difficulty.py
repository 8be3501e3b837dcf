"""How difficult a document is, one function a curriculum.

`lexical` and `morphology` are means over words, so that they are not the length in disguise, and drawn to the mean of
the corpus where a document has few words (`curriculum.words.credible_means`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

NO_CURRICULUM = "none"


def sort_by_difficulty(documents: "Dataset", *, curriculum: str, seed: int = 0) -> "Dataset":
    """Return the documents, columns `text, words`, from easy to hard; equals keep their order.

    >>> from datasets import Dataset
    >>> documents = Dataset.from_dict({"text": ["सीता ने आम खाया", "राम घर गया"], "words": [4, 3]})
    >>> print(*sort_by_difficulty(documents, curriculum="length")["text"], sep=" / ")
    राम घर गया / सीता ने आम खाया
    """
    import numpy as np

    return documents.select(np.argsort(DIFFICULTIES[curriculum](documents, seed), kind="stable"))


def rank_correlation(one: "np.ndarray", other: "np.ndarray") -> float:
    """Return Spearman's rho of two measures of the same documents, equals at the mean of their ranks.

    NaN where all documents are equal by one of them.

    >>> import numpy as np
    >>> rank_correlation(np.array([1, 2, 3]), np.array([9, 5, 1]))
    -1.0
    """
    import numpy as np

    ranks = []
    for values in (one, other):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        own = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
        ranks.append(own - own.mean())
    size = float(np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    return float(ranks[0] @ ranks[1]) / size if size else float("nan")


def length(documents: "Dataset", seed: int) -> "np.ndarray":
    """Return the words of each document (specification, "Length-Based"): float64 `(documents,)`."""
    import numpy as np

    return np.asarray(documents["words"], dtype=np.float64)


def random(documents: "Dataset", seed: int) -> "np.ndarray":
    """Return a number drawn for each document, the control of a curriculum: float64 `(documents,)` in [0, 1)."""
    import numpy as np

    return np.random.default_rng(seed).random(len(documents))


def lexical(documents: "Dataset", seed: int) -> "np.ndarray":
    """Return how rare the words of each document are among these documents, in bits a word: float64 `(documents,)`.

    The mean of -log2 p(word) with p the relative frequency, which is above 0 for every word: the word rarity of
    Platanios et al. (2019), but for theirs being a sum, which grows with length.
    """
    import numpy as np

    from hindi_babylm.curriculum.words import credible_means, read_words

    words = read_words(documents)
    frequencies = words.frequencies()
    rarity = -np.log2(frequencies / max(1, frequencies.sum()))
    return credible_means(words, rarity[words.ids])


def morphology(documents: "Dataset", seed: int) -> "np.ndarray":
    """Return the grammatical morphemes a word of each document: float64 `(documents,)`.

    Counted are suffixes (`count_suffixes`), and each auxiliary that follows on another, for Hindi builds its tenses of
    both: करता 1, करवाएँगे 3, किया जा रहा है 1. Over all words this is the index of synthesis of Greenberg (1960, "A
    Quantitative Approach to the Morphological Typology of Language") less the one stem that each word has, and with
    periphrasis counted as inflection.
    """
    import numpy as np

    from hindi_babylm.curriculum.morphology import AUXILIARIES, count_suffixes
    from hindi_babylm.curriculum.words import credible_means, read_words

    words = read_words(documents)
    morphemes = np.asarray(count_suffixes(words.types), dtype=np.float64)[words.ids]
    auxiliary = np.asarray([word in AUXILIARIES for word in words.types], dtype=bool)[words.ids]
    # Hindi sentences end, and do not begin, with an auxiliary: the end between two words need not be known.
    morphemes[1:] += auxiliary[1:] & auxiliary[:-1] & (np.diff(words.documents) == 0)
    return credible_means(words, morphemes)


DIFFICULTIES: dict[str, Callable[["Dataset", int], "np.ndarray"]] = {
    "length": length,
    "morphology": morphology,
    "lexical": lexical,
    "random": random,
}
