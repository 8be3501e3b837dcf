import json
import lzma
import math
import random
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from datasketch import MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from hindi_babylm.corpus import duplicates
from hindi_babylm.corpus.contamination import fold
from hindi_babylm.corpus.duplicates import (
    PERMUTATIONS,
    SHINGLE,
    content_key,
    exact_duplicates,
    near_duplicates,
    signatures,
)
from hindi_babylm.corpus.sources import BUNDLED_CORPUS
from hindi_babylm.storage import UserError

SYLLABLES = [
    consonant + vowel for consonant in "कखगघचछजझटठडढतथदधनपफबभमयरलवसह" for vowel in ("", "ा", "ि", "ी", "ु", "े", "ो")
]


def make_words(count: int, start: int) -> list[str]:
    """Return `count` words that no other range of numbers has."""
    base = len(SYLLABLES)
    return [
        SYLLABLES[n % base] + SYLLABLES[n // base % base] + SYLLABLES[n // base**2 % base]
        for n in range(start, start + count)
    ]


def make_pair(similarity: float, number: int, shingles: int = 200) -> tuple[str, str]:
    """Return two texts with a common beginning whose sets of shingles have about this Jaccard similarity."""
    common = round(shingles * similarity)
    own = (shingles - common) // 2
    words = make_words(common + SHINGLE - 1 + 2 * own, number * 1000)
    shared = words[: common + SHINGLE - 1]
    return " ".join(shared + words[len(shared) :][:own]), " ".join(shared + words[len(shared) + own :])


def jaccard(first: str, second: str) -> float:
    """Return the Jaccard similarity of the sets of shingles of two texts."""
    sets = []
    for text in (first, second):
        words = [word for word in map(fold, text.split()) if word]
        length = min(SHINGLE, len(words))
        sets.append({tuple(words[start : start + length]) for start in range(len(words) - length + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.fixture(scope="module")
def stories() -> list[str]:
    """Return the children's stories of the bundled corpus."""
    with lzma.open(BUNDLED_CORPUS / "pratham_storyweaver.jsonl.xz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("राम ने १२ आम खाए।\nसीता हँसी ।", True),
        (" राम ने १२\tआम खाए। सीता हँसी।\r\n", True),
        ("राम ने १२ आम खाए।\u00a0सीता हँसी।", True),
        ("राम ने १२ आम खाए। सीता ह\u0901सी।", True),
        ("राम ने १२ आम खाए। सीता हँसी", False),
        ("राम ने १२ आम खाए। सीता हंसी।", False),
        ("राम ने 12 आम खाए। सीता हँसी।", False),
        ("सीता हँसी। राम ने १२ आम खाए।", False),
    ],
)
def test_exact_means_all_but_whitespace(other: str, same: bool) -> None:
    """Exact duplicates differ in whitespace and composition only, not in punctuation, script of digits or order."""
    assert (content_key("राम ने १२ आम खाए। सीता हँसी।") == content_key(other)) is same


def test_composed_and_decomposed_letters_have_one_key() -> None:
    """Texts that NFC makes equal have one key, which fits into 64 bits and is the same in every process."""
    assert content_key("\u0928\u093c") == content_key("\u0929") == 0x6A226FB990A5359F
    assert content_key("") != content_key("क")


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=60))
def test_exact_duplicates_point_to_the_first(keys: list[int]) -> None:
    """Each repeated key points to its first place, as a search from the start finds it."""
    expected = [keys.index(key) for key in keys]
    assert exact_duplicates(np.array(keys, dtype=np.uint64)).tolist() == expected


def test_estimates_keep_to_their_standard_error() -> None:
    """The share of equal columns estimates the exact Jaccard similarity without bias, with the binomial's spread."""
    pairs = [make_pair(0.05 + 0.9 * number / 399, number) for number in range(400)]
    rows = signatures([text for pair in pairs for text in pair])
    exact = np.array([jaccard(*pair) for pair in pairs])
    estimates = (rows[::2] == rows[1::2]).mean(axis=1)
    errors = (estimates - exact) / np.sqrt(exact * (1 - exact) / PERMUTATIONS)
    assert np.ptp(exact) > 0.85
    assert abs(errors.mean()) < 4 / math.sqrt(len(pairs))
    assert abs((errors**2).mean() - 1) < 4 * math.sqrt(2 / len(pairs))
    assert abs(errors).max() < 5


@pytest.mark.parametrize("similarity", [0.5, 0.65, 0.75, 0.8, 0.85, 0.95])
def test_planted_near_duplicates_follow_the_curve(similarity: float) -> None:
    """Of planted pairs so many are dropped as independent columns predict: a band agrees, and enough columns do."""
    pairs, threshold = 300, 0.8
    texts = [make_pair(similarity, number) for number in range(pairs)]
    found = near_duplicates(signatures([text for pair in texts for text in pair]), threshold=threshold)
    assert all(row is None for row in found[::2])
    assert all(found[row] in (None, row - 1) for row in range(1, 2 * pairs, 2))
    dropped = sum(row is not None for row in found) / pairs

    split = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=duplicates.WEIGHTS)
    agree = np.random.default_rng(1).random((20_000, PERMUTATIONS)) < jaccard(*texts[0])
    bands = np.any(np.all(agree[:, : split.b * split.r].reshape(-1, split.b, split.r), axis=2), axis=1)
    expected = (bands & (agree.mean(axis=1) >= threshold)).mean()
    error = math.sqrt(max(expected * (1 - expected), 0.003) / pairs)
    assert abs(dropped - expected) < 4 * error
    assert similarity > 0.65 or dropped == 0
    assert similarity < 0.95 or dropped == 1


def plain_near_duplicates(rows: NDArray[np.uint32], threshold: float) -> list[int | None]:
    """Compare each document with every kept one before it, in order."""
    permutations = rows.shape[1]
    split = MinHashLSH(threshold=min(threshold, 0.9), num_perm=permutations, weights=duplicates.WEIGHTS)
    found: list[int | None] = []
    for row, signature in enumerate(rows.tolist()):
        found.append(None)
        for other, earlier in enumerate(rows[:row].tolist()):
            equal = [one == two for one, two in zip(signature, earlier, strict=True)]
            band = any(all(equal[start : start + split.r]) for start in range(0, split.b * split.r, split.r))
            if found[other] is None and band and sum(equal) / permutations >= threshold:
                found[row] = other
                break
    return found


@settings(deadline=None)
@given(
    arrays.arrays(np.uint32, st.tuples(st.integers(0, 30), st.just(16)), elements=st.integers(0, 1)),
    st.sampled_from([0.4, 0.6, 0.75, 0.9, 1.0]),
)
def test_buckets_find_what_a_plain_comparison_finds(rows: NDArray[np.uint32], threshold: float) -> None:
    """The index gives the same earlier documents as comparing each document with all kept ones."""
    assert near_duplicates(rows, threshold=threshold) == plain_near_duplicates(rows, threshold)


def test_a_chain_keeps_its_far_end() -> None:
    """A document near a dropped one, but not near a kept one, is kept; one near two kept ones goes by the first."""
    words = make_words(200, 0)
    chain = [" ".join(words[start : start + 160]) for start in (0, 10, 20)]
    assert jaccard(chain[0], chain[1]) > 0.85 > 0.8 > jaccard(chain[0], chain[2])
    assert near_duplicates(signatures(chain), threshold=0.82) == [None, 0, None]
    assert near_duplicates(signatures([chain[0], chain[2], chain[1]]), threshold=0.82) == [None, None, 0]


def test_short_and_empty_texts() -> None:
    """A text of fewer words than a shingle is near its equals alone, and texts without words are near each other."""
    texts = ["राम घर गया।", "राम घर आया।", "“राम” घर गया", "", "राम", " । ", "राम घर", "राम घर गया और सो गया।"]
    assert near_duplicates(signatures(texts), threshold=0.8) == [None, None, 0, None, None, 3, None, None]


def test_a_long_document_is_signed_in_pieces(stories: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature of a text does not depend on how many shingles are permuted at once."""
    whole = signatures(stories[:5])
    monkeypatch.setattr(duplicates, "PIECE", 7)
    assert (signatures(stories[:5]) == whole).all()


def test_workers_and_order_do_not_matter(stories: list[str]) -> None:
    """Four fresh processes give the signatures of one; a row depends on text and seed alone, in every version."""
    alone = signatures(stories)
    parts = [stories[start : start + 32] for start in range(0, len(stories), 32)]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        assert (np.concatenate(list(pool.map(signatures, parts))) == alone).all()
    assert (signatures(stories[::-1])[::-1] == alone).all()
    assert (signatures(stories[:1], seed=1) != alone[:1]).mean() > 0.9
    assert signatures(["राम घर गया।"], permutations=4).tolist() == [[3160058558, 1216370680, 1900332252, 2455529492]]


def test_near_duplicates_in_real_text(stories: list[str]) -> None:
    """Of stories and copies with every hundredth word changed and no line breaks, only the copies go."""
    generator = random.Random(0)
    changed = []
    for text in stories[:40]:
        words = text.split()
        for row in generator.sample(range(len(words)), len(words) // 100):
            words[row] = "बदला"
        changed.append(" ".join(words))
    found = near_duplicates(signatures(stories + changed), threshold=0.8)
    assert found[: len(stories)] == [None] * len(stories)
    assert found[len(stories) :] == list(range(40))


def test_memory_is_stated() -> None:
    """Signatures take 512 bytes a document, and the index of 10,000 documents at most 256 more at its height."""
    documents = 10_000
    rows = np.random.default_rng(0).integers(0, 2**32, (documents, PERMUTATIONS), dtype=np.uint32)
    rows[5000:] = rows[:5000]
    assert signatures(["राम"]).dtype == rows.dtype
    assert rows.nbytes == 512 * documents
    tracemalloc.start()
    try:
        found = near_duplicates(rows, threshold=0.8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [None] * 5000 + list(range(5000))
    assert peak < 256 * documents


def test_a_missing_package_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without datasketch the way to install it is told, by both functions that need it."""
    monkeypatch.setitem(sys.modules, "datasketch", None)
    for call in (lambda: signatures(["राम"]), lambda: near_duplicates(np.zeros((1, 8), np.uint32), threshold=0.8)):
        with pytest.raises(UserError, match=r"pip install 'hindi-babylm\[dedup\]'") as caught:
            call()
        assert "\n" not in str(caught.value)
