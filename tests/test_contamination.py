import json
import lzma
import random
import re
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm.corpus import contamination
from hindi_babylm.corpus.contamination import (
    NGRAM,
    SHORTEST,
    HeldOut,
    fold,
    ngram_hashes,
    ngrams_of,
    remove_overlap,
    word_hashes,
)
from hindi_babylm.corpus.sources import BUNDLED_CORPUS

RIDDLE = "एक दिन राजा ने अपने मन्त्री से पूछा कि सबसे बड़ा कौन है"
# Few words, so that texts share runs, and every kind of gap and end between them.
WORDS = st.sampled_from(["राम", "घर", "गया", "राम।", "“घर", "गया?”", "।", "-", "12.5", "डॉ."])
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", "  ", "\n", "\n\n", " \n"])), max_size=30).map(
    lambda parts: "".join(word + gap for word, gap in parts).strip()
)


def spoken(text: str) -> list[str]:
    """Return the words of a text as compared."""
    return [word for word in map(fold, text.split()) if word]


def runs_of(words: list[str], length: int) -> Iterator[tuple[str, ...]]:
    """Yield every run of `length` words."""
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def plain_held_out(texts: Iterable[str], n: int) -> set[tuple[str, ...]]:
    """Return the runs that training texts may not share, as a set of tuples."""
    found: set[tuple[str, ...]] = set()
    for text in texts:
        words = spoken(text)
        if len(words) >= min(n, SHORTEST):
            found.update(runs_of(words, min(n, len(words))))
    return found


def plain_shared(text: str, held_out: set[tuple[str, ...]]) -> list[bool]:
    """Say of each compared word of a text whether it stands in a run of `held_out`."""
    words = spoken(text)
    shared = [False] * len(words)
    for length in {len(run) for run in held_out}:
        for start, run in enumerate(runs_of(words, length)):
            if run in held_out:
                shared[start : start + length] = [True] * length
    return shared


def vector_shared(text: str, held_out: HeldOut) -> list[bool]:
    """Say the same by the arrays of the module."""
    hashes = word_hashes(text)
    return [bool(shared) for shared in contamination._in_shared_runs(hashes[hashes != 0], held_out)]


def bundled(name: str) -> list[str]:
    """Return the texts of a file of the bundled corpus."""
    with lzma.open(BUNDLED_CORPUS / f"{name}.jsonl.xz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["है", "है।", "“है”", "(है)", "है?", "है।।", "—है—", "है\u200d", "\ufeffहै"], True),
        (["क्\u200dषमा", "क्षमा", "क्\u200cषमा"], True),
        (["१२.५", "12.5", "१2.5,"], True),
        (["React", "react", "REACT."], True),
        (["\u0928\u093c", "\u0929"], True),
        (["\u0958", "\u0915\u093c"], True),
        (["कर", "कार"], False),
        (["धीरे-धीरे", "धीरेधीरे"], False),
        (["12.5", "125"], False),
    ],
)
def test_words_are_compared_folded(words: list[str], same: bool) -> None:
    """Punctuation at the edges, joiners, case, script of digits and composition do not tell words apart; letters do."""
    assert (len({fold(word) for word in words}) == 1) is same
    assert (len(set(word_hashes(" ".join(words)).tolist())) == 1) is same


def test_signs_alone_are_no_words() -> None:
    """A word without a letter or digit has the hash 0, and runs go over it."""
    assert word_hashes("राम । - “ 5").tolist().count(0) == 3
    held_out = ngrams_of([RIDDLE])
    assert remove_overlap(RIDDLE.replace(" ", " - "), held_out)[0] == ""


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=3), TEXTS, st.integers(1, 9))
def test_arrays_find_what_sets_of_tuples_find(texts: list[str], text: str, n: int) -> None:
    """The words in shared runs are those that a plain search among tuples of words finds."""
    assert vector_shared(text, ngrams_of(texts, n=n)) == plain_shared(text, plain_held_out(texts, n))


def test_arrays_find_what_sets_find_in_real_text() -> None:
    """On Wikipedia and stories, with quotations planted, the arrays find the same words as sets of tuples."""
    texts = bundled("hindi_wikipedia")[:300] + bundled("pratham_storyweaver")
    held_out, training = texts[::5], [text for row, text in enumerate(texts) if row % 5]
    generator = random.Random(0)
    for row in range(0, len(training), 4):
        words = generator.choice(held_out).split()
        start = generator.randrange(len(words))
        training[row] += "\n" + " ".join(words[start : start + generator.randint(8, 40)])
    arrays, tuples = ngrams_of(held_out), plain_held_out(held_out, NGRAM)
    assert sum(map(len, arrays.runs.values())) == len(tuples)
    found = [vector_shared(text, arrays) for text in training]
    assert found == [plain_shared(text, tuples) for text in training]
    assert sum(any(words) for words in found) > 50


@settings(max_examples=500, deadline=None)
@given(st.lists(TEXTS, max_size=3), TEXTS, st.integers(2, 9))
def test_what_is_left_shares_nothing_and_nothing_is_lost(texts: list[str], text: str, n: int) -> None:
    """After the cut no run is shared, cutting again changes nothing, and rest and passages hold all words."""
    held_out, plain = ngrams_of(texts, n=n), plain_held_out(texts, n)
    rest, passages = remove_overlap(text, held_out)
    assert not any(plain_shared(rest, plain))
    assert remove_overlap(rest, held_out)[0] is rest
    pieces = [piece.split() for piece in [rest, *passages]]
    assert sorted(word for words in pieces for word in words) == sorted(text.split())
    if not any(plain_shared(text, plain)):
        assert rest is text
        assert passages == []
    else:
        assert "" not in passages
        assert passages


def test_whole_sentences_go_and_line_breaks_stay() -> None:
    """The sentences that a run touches are cut, their neighbours stay, and so does the larger gap around them."""
    held_out = ngrams_of([f"पहले {RIDDLE}, बताओ।"])
    text = f"डॉ. सिंह 12.5 किलो आम लाए। वह “हँसा!”\n\nबोला {RIDDLE}? ठीक है।\nसब चुप रहे ॥ रात हुई।"
    rest, passages = remove_overlap(text, held_out)
    assert passages == [f"बोला {RIDDLE}?"]
    assert rest == "डॉ. सिंह 12.5 किलो आम लाए। वह “हँसा!”\n\nठीक है।\nसब चुप रहे ॥ रात हुई।"


@pytest.mark.parametrize("end", ["।", "॥", "?", "!", "।”", "?')", " ।", "\n"])
def test_sentence_ends(end: str) -> None:
    """A danda, a double danda, a question mark, an exclamation mark and a line break end a sentence."""
    rest, passages = remove_overlap(f"वह आया{end} {RIDDLE}{end} वह गया", ngrams_of([RIDDLE]))
    assert rest.split() == f"वह आया{end} वह गया".split()
    assert len(passages) == 1


@pytest.mark.parametrize("word", ["डॉ.", "12.5", "कि-", "है,", "है;"])
def test_what_ends_no_sentence(word: str) -> None:
    """A full stop, a comma and a dash do not end a sentence."""
    assert remove_overlap(f"वह {word} {RIDDLE} {word} गया", ngrams_of([RIDDLE]))[0] == ""


def test_a_verse_is_found_across_its_lines() -> None:
    """A run goes over line breaks: lines of verse are shorter than a run."""
    lines = RIDDLE.split()
    verse = "\n".join([" ".join(lines[:5]), " ".join(lines[5:9]), " ".join(lines[9:])])
    assert remove_overlap(f"पहली पंक्ति\n{verse}\nअन्तिम पंक्ति", ngrams_of([RIDDLE])) == (
        "पहली पंक्ति\nअन्तिम पंक्ति",
        [verse],
    )


def test_a_run_made_by_a_cut_is_cut_too() -> None:
    """Where the ends that a cut brings together make a run that is held out, they are cut as well."""
    held_out = ngrams_of(["क ख ग घ", "प फ ब भ"], n=4)
    assert remove_overlap("त थ। क ख। प फ ब भ। ग घ। द ध।", held_out) == ("त थ।\nद ध।", ["क ख। प फ ब भ। ग घ।"])


@pytest.mark.parametrize("length", range(3, NGRAM + 3))
def test_short_texts_count_as_a_whole(length: int) -> None:
    """A held-out text shorter than a run is found as a whole, not in part, and one below the bound not at all."""
    words = (RIDDLE + " और कौन छोटा").split()[:length]
    held_out = ngrams_of([" ".join(words)])
    rest, _ = remove_overlap(f"आदि। {' '.join(words)}। अन्त।", held_out)
    assert (rest == "आदि।\nअन्त।") is (length >= SHORTEST)
    part = f"आदि। {' '.join(words[:-1])}। अन्त।"
    assert (remove_overlap(part, held_out)[0] is part) is (length <= NGRAM)


def test_nothing_held_out_changes_nothing() -> None:
    """Without held-out text, and for a text without words, the text comes back itself."""
    assert remove_overlap(RIDDLE, ngrams_of([]))[0] is RIDDLE
    for text in ("", " । "):
        assert remove_overlap(text, ngrams_of([RIDDLE]))[0] is text


def test_hashes_are_spread_over_64_bits() -> None:
    """Runs of the same words in 20,000 orders have as many hashes, and each bit is set in half of them."""
    generator = np.random.default_rng(0)
    words = word_hashes(RIDDLE)
    orders = np.unique(generator.permuted(np.tile(np.arange(NGRAM), (20_000, 1)), axis=1), axis=0)
    # One long row with the runs side by side: those that begin a row are looked at.
    (_, hashes), *_ = ngram_hashes(words[orders].ravel(), {NGRAM})
    hashes = hashes[::NGRAM]
    assert len(np.unique(hashes)) == len(orders)
    for bit in range(64):
        share = np.mean(hashes >> np.uint64(bit) & np.uint64(1))
        assert abs(share - 0.5) < 5 * 0.5 / len(orders) ** 0.5, bit


def test_memory_is_stated() -> None:
    """Held-out runs take 16 to 24 bytes each."""
    held_out = ngrams_of(bundled("pratham_storyweaver"))
    runs = sum(map(len, held_out.runs.values()))
    size = sum(hashes.nbytes for hashes in held_out.runs.values()) + held_out.endings.nbytes
    assert runs > 60_000
    assert 16 * runs <= size <= 24 * runs


def test_whitespace_of_words_is_that_of_the_search() -> None:
    """`str.split` and the pattern of the cut see the same words, whatever the whitespace."""
    text = "".join(f"क{chr(code)}" for code in range(0x3001) if chr(code).isspace())
    assert re.findall(r"\S+", text) == text.split()
    assert len(text.split()) > 20
