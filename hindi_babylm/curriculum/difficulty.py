"""How difficult a document is, one function a curriculum."""

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


def length(documents: "Dataset", seed: int) -> "np.ndarray":
    """Return the words of each document (specification, "Length-Based"): float64 `(documents,)`."""
    import numpy as np

    return np.asarray(documents["words"], dtype=np.float64)


def random(documents: "Dataset", seed: int) -> "np.ndarray":
    """Return a number drawn for each document, the control of a curriculum: float64 `(documents,)` in [0, 1)."""
    import numpy as np

    return np.random.default_rng(seed).random(len(documents))


DIFFICULTIES: dict[str, Callable[["Dataset", int], "np.ndarray"]] = {
    "length": length,
    "random": random,
}
