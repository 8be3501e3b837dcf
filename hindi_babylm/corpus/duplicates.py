"""Documents that repeat earlier ones: word for word by a hash, nearly by MinHash over runs of words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hindi_babylm.corpus.contamination import ngram_hashes, word_hashes
from hindi_babylm.corpus.hashing import stable_hash
from hindi_babylm.orthography import normalize
from hindi_babylm.storage import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Permutations and words of a shingle: an estimate has a standard error of sqrt(J (1 - J) / 128), 0.035 at J = 0.8.
PERMUTATIONS, SHINGLE = 128, 5
# Bands are chosen to miss few pairs: a pair that they bring up wrongly costs a comparison, not a document.
WEIGHTS = (0.05, 0.95)
HIGHEST_SPLIT = 0.9  # the threshold that bands are chosen for at most: near 1 the library finds no two
PIECE = 4096  # shingles permuted at once, 4 MiB at 128 permutations, so that a long document takes no more


def content_key(text: str) -> int:
    """Return a hash of 64 bits of `text` in NFC and without whitespace: exact duplicates differ in no more than that.

    >>> content_key("राम घर\\nगया ।") == content_key("राम  घर गया।") != content_key("राम घर गया")
    True
    """
    return stable_hash("".join(normalize(text).split()))


def exact_duplicates(keys: "NDArray[np.uint64]") -> "NDArray[np.int64]":
    """Return for each document's key the index of the first document with this key, `(documents,)`; its own for that.

    >>> import numpy as np
    >>> keys = np.array([content_key(text) for text in ["राम आया।", "सीता आई।", "राम आया ।"]], dtype=np.uint64)
    >>> print(exact_duplicates(keys))
    [0 1 0]
    """
    import numpy as np

    order = np.argsort(keys, kind="stable")  # of equal keys the first document stands first
    begins = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
    firsts = np.empty(len(keys), dtype=np.int64)
    firsts[order] = np.repeat(order[begins], np.diff(begins, append=len(keys)))
    return firsts


def signatures(
    texts: Sequence[str], *, permutations: int = PERMUTATIONS, shingle: int = SHINGLE, seed: int = 0
) -> "NDArray[np.uint32]":
    """Return the MinHash signature of the shingles of each text: `(documents, permutations)`.

    A shingle is a run of `shingle` words, compared as `contamination.fold` leaves them; a text of fewer words is one
    shingle. Two texts agree in a column with the probability of their Jaccard similarity J (Broder 1997). A row hangs
    on its text alone, so texts may be dealt out to workers.

    Raises UserError when the package datasketch is missing.

    >>> told, again, other = signatures(["राम घर गया और सो गया।", "राम घर गया , और सो गया", "सीता वन में रही।"])
    >>> print((told == again).mean(), (told == other).mean())
    1.0 0.0
    """
    import numpy as np

    sketch = _datasketch().MinHash(num_perm=permutations, seed=seed, hashfunc=int, scheme="affine64")
    rows = np.empty((len(texts), permutations), dtype=np.uint32)
    for row, text in enumerate(texts):
        words = word_hashes(text)
        words = words[words != 0]
        sketch.clear()
        for _, hashes in ngram_hashes(words, {min(shingle, len(words))}):
            for start in range(0, len(hashes), PIECE):
                sketch.update_batch(hashes[start : start + PIECE].tolist())
        # Half of each value tells different ones apart; hashes of 32 bits would not: a short text has only one.
        rows[row] = sketch.hashvalues >> np.uint64(32)
    return rows


def near_duplicates(signatures: "NDArray[np.uint32]", *, threshold: float) -> list[int | None]:
    """Return for each document the first kept one before it that it nearly equals, None where it is kept.

    Near is an estimated Jaccard similarity, the share of equal columns, of `threshold` or more. Compared are pairs that
    agree in a whole band of columns. A document goes only when it is near a kept one: where a is near b and b near c,
    but a not near c, c stays. Beside the signatures it takes 4 bytes a document and band, 64 at the threshold 0.8.

    Raises UserError when the package datasketch is missing.

    >>> told = "एक दिन राजा ने अपने मन्त्री से पूछा कि सबसे बड़ा कौन है और मन्त्री चुप रहा"
    >>> near_duplicates(signatures([told, "सीता वन में रही।", f"{told}।"]), threshold=0.8)
    [None, None, 0]
    """
    import numpy as np

    documents, permutations = signatures.shape
    split = _datasketch().MinHashLSH(threshold=min(threshold, HIGHEST_SPLIT), num_perm=permutations, weights=WEIGHTS)
    # Of each band the document before this one that agrees in it, from there on the kept ones only; -1 at the end.
    links = np.full((split.b, documents), -1, dtype=np.int32)
    for band, link in enumerate(links):
        columns = signatures[:, band * split.r : (band + 1) * split.r]
        _, bucket = np.unique(columns, axis=0, return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        same = bucket[order[1:]] == bucket[order[:-1]]
        link[order[1:][same]] = order[:-1][same]
    found: list[int | None] = [None] * documents
    for row in np.flatnonzero((links >= 0).any(axis=0)).tolist():
        agreeing = set()
        for link in links:
            other = int(link[row])
            if other >= 0 and found[other] is not None:
                other = link[row] = int(link[other])
            while other >= 0:
                agreeing.add(other)
                other = int(link[other])
        others = np.array(sorted(agreeing), dtype=np.int64)
        near = np.mean(signatures[others] == signatures[row], axis=1) >= threshold
        if near.any():
            found[row] = int(others[near.argmax()])
    return found


def _datasketch() -> Any:
    try:
        import datasketch
    except ModuleNotFoundError as error:
        raise UserError(
            "corpus: finding near duplicates needs the package datasketch, which is not installed: "
            "pip install 'hindi-babylm[dedup]', or do without near duplicates"
        ) from error
    return datasketch
