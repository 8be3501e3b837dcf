"""The curricula of words and morphology, against plain loops and on the bundled corpus."""

import math
import statistics
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.curriculum import with_length_by_source
from hindi_babylm.corpus.assembly import build_corpus
from hindi_babylm.curriculum.difficulty import DIFFICULTIES, rank_correlation, sort_by_difficulty
from hindi_babylm.curriculum.morphology import count_suffixes
from hindi_babylm.curriculum.words import WORD, credible_means, read_words


def documents(texts: list[str]) -> Dataset:
    """Return documents of these texts with their number of words."""
    return Dataset.from_dict({"text": texts, "words": [len(text.split()) for text in texts]})


def credible(values: list[list[float]]) -> list[float]:
    """Return Bühlmann and Straub's estimate of each document's mean, by plain loops."""
    every = [value for part in values for value in part]
    overall = statistics.fmean(every)
    filled = [part for part in values if part]
    within = sum((value - statistics.fmean(part)) ** 2 for part in filled for value in part)
    within /= max(1, len(every) - len(filled))
    spread = sum(len(part) * (statistics.fmean(part) - overall) ** 2 for part in filled)
    spread -= (len(filled) - 1) * within
    between = spread / max(1e-9, len(every) - sum(len(part) ** 2 for part in filled) / len(every))
    found = []
    for part in values:
        weight = len(part) * between / (len(part) * between + within) if part and between > 0 else 0.0
        found.append(overall + weight * ((statistics.fmean(part) if part else overall) - overall))
    return found


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(st.text("कखग ", max_size=30), min_size=1, max_size=8))
def test_credible_means_are_those_of_a_loop(texts: list[str]) -> None:
    """Means, variances and credibilities equal a plain computation, for empty and equal documents too."""
    words = read_words(documents(texts))
    value = {"क": 0.5, "ख": 2.0}
    per_type = np.asarray([value.get(word, len(word)) for word in words.types], dtype=np.float64)
    if not len(words.ids):
        assert credible_means(words, np.empty(0)).tolist() == [0.0] * len(texts)
        return
    expected = credible([[value.get(word, len(word)) for word in text.split()] for text in texts])
    assert credible_means(words, per_type[words.ids]) == pytest.approx(np.asarray(expected), abs=1e-9)


def test_words_are_runs_of_letters_and_marks() -> None:
    """Matras, conjuncts and joiners belong to a word; punctuation, digits and spaces to none; NFD is NFC."""
    words = read_words(documents(["क्षत्रिय है। “राम-राम” १२ 5km न\u093cहीं", "", "12 ।"]))
    assert [words.types[n] for n in words.ids] == ["क्षत्रिय", "है", "राम", "राम", "km", "ऩहीं"]
    assert words.lengths.tolist() == [6, 0, 0]
    assert words.documents.tolist() == [0] * 6


def test_lexical_is_the_mean_surprisal_of_words() -> None:
    """A document's difficulty is the credible mean of -log2 of its words' relative frequencies."""
    texts = ["घर में राम है", "राम घर घर", "दुर्लभ शब्द यहाँ", "राम है।"]
    tokens = [WORD.findall(text) for text in texts]
    counts = Counter(word for part in tokens for word in part)
    total = sum(counts.values())
    expected = credible([[-math.log2(counts[word] / total) for word in part] for part in tokens])
    assert DIFFICULTIES["lexical"](documents(texts), 0) == pytest.approx(np.asarray(expected))


def test_lexical_puts_rare_words_last_whatever_the_length() -> None:
    """A short document of rare words is harder than a long one of frequent words."""
    frequent = "राम घर में है और सीता वन में है "
    rare = [f"अप्रतिम{n} विलक्षण{n} पारिभाषिक{n} " * 3 for n in "कख"]
    ordered = sort_by_difficulty(documents([rare[0], frequent * 40, rare[1], frequent * 30]), curriculum="lexical")
    assert [text.startswith("राम") for text in ordered["text"]] == [True, True, False, False]


# Words that share a corpus, with their suffixes.
PARADIGMS = {
    **{"घर": 0, "घरों": 1, "लड़का": 0, "लड़की": 0, "लड़के": 0, "लड़कों": 1, "लड़कियाँ": 1, "लड़कियों": 1},
    **{"बात": 0, "बातें": 1, "बातों": 1, "बहू": 0, "बहुओं": 1, "बहुएँ": 1, "कथा": 0, "कथाएँ": 1, "कथाओं": 1},
    **{"कर": 0, "करना": 1, "करता": 1, "करती": 1, "करूँ": 1, "करूँगा": 2, "करेंगे": 2, "करवाना": 2, "करवाया": 2},
    **{"करवाएँगे": 3, "आना": 1, "आता": 1, "आकर": 1, "आए": 1, "आएगा": 2, "गया": 0, "है": 0, "हैं": 0, "में": 0},
    **{"राष्ट्र": 0, "राष्ट्रीय": 1, "राष्ट्रीयता": 2, "सुंदर": 0, "सुंदरता": 1, "बच्चा": 0, "बच्चों": 1},
    **{"माता": 0, "पानी": 0, "क्यों": 0, "अपना": 0, "अपनी": 0, "अपने": 0, "इतना": 0, "उसने": 0, "उन्होंने": 0},
}


@pytest.mark.parametrize("word", PARADIGMS)
def test_suffixes_of_hindi_words(word: str) -> None:
    """Inflection, causative, future and derivation count; citation forms and what only looks inflected do not."""
    types = list(PARADIGMS)
    assert count_suffixes(types)[types.index(word)] == PARADIGMS[word]


def test_an_ending_without_evidence_is_none() -> None:
    """A word that ends like an inflected one counts nothing when the corpus has no other form of its stem."""
    assert count_suffixes(["चिकना", "मकान"]) == [0, 0]
    assert count_suffixes(["देखना", "मकान"]) == [0, 0]
    assert count_suffixes(["देखना", "देखता"]) == [1, 1]
    assert count_suffixes(["मकानों", "सरिता"]) == [0, 0]
    assert count_suffixes(["मकानों", "मकान"]) == [1, 0]


def test_morphology_counts_suffixes_and_chains_of_auxiliaries() -> None:
    """The difficulty is the credible mean over words of suffixes, and of auxiliaries that follow on another."""
    texts = ["घर करता है", "घर घर में", "घरों में करना जा रहा है", "किया गया था", "है"]
    # रहा counts nothing, है after it one; था after गया one. है begins the last document and follows on nothing.
    expected = credible([[0, 1, 0], [0, 0, 0], [1, 0, 1, 0, 0, 1], [0, 0, 1], [0]])
    assert DIFFICULTIES["morphology"](documents(texts), 0) == pytest.approx(np.asarray(expected))


def test_morphology_puts_complex_forms_last() -> None:
    """Of documents of one length that with plural, causative and periphrastic forms is the harder one."""
    simple = "राम घर में है । सीता वन में है । लड़का अच्छा है । बात सच है । "
    hard = "लड़कों ने बातें करवाना और करवाया जाता रहना देखा । घरों में लड़कियाँ करवाएँगे । "
    other = "लड़की करना करता देखता देखना घर जाता जाना रहता है "
    ordered = sort_by_difficulty(
        documents([hard * 3, simple * 3, hard * 4, simple * 4, other]), curriculum="morphology"
    )
    assert [text.startswith("राम") for text in ordered["text"]][:2] == [True, True]
    assert ordered["text"][-1].startswith("लड़कों")


@pytest.mark.parametrize("curriculum", ["lexical", "morphology"])
def test_short_documents_do_not_fill_the_extremes(curriculum: str) -> None:
    """Among documents drawn from two kinds of text, the shortest third fills neither end."""
    draw = np.random.default_rng(0)
    easy = np.asarray(["राम", "घर", "में", "है", "और", "सीता", "वन", "को", "गया", "था", "बात", "करना", "करता"])
    hard = np.asarray(["राम", "घरों", "में", "है", "विद्वत्ता", "और", "बातें", "करवाया", "करवाना", "जाता", "बातों", "शब्दावली"])
    lengths = draw.permutation(np.repeat([4, 40, 400], 100))
    texts = [" ".join(draw.choice(easy if draw.random() < 0.5 else hard, size=length)) for length in lengths]
    order = np.argsort(DIFFICULTIES[curriculum](documents(texts), 0), kind="stable")
    for end in (order[:60], order[-60:]):
        assert (lengths[end] == 4).mean() < 0.2
        assert (lengths[end] == 400).mean() > 0.4


@pytest.fixture(scope="module")
def bundled() -> Dataset:
    """Return the train split of the bundled corpus."""
    return build_corpus(sources=[{"bundled": "all"}])[0]["train"]


@pytest.mark.parametrize(("curriculum", "bound"), [("lexical", 0.4), ("morphology", 0.3)])
def test_no_measure_of_words_is_length(bundled: Dataset, curriculum: str, bound: float) -> None:
    """On the bundled corpus ranks differ from those of length, more so within a source, and wholly for dealt words.

    Overall `lexical` has -0.34: the corpus's long documents are stories, its short ones articles with rarer words.
    """
    words = np.asarray(bundled["words"])
    values = DIFFICULTIES[curriculum](bundled, 0)
    assert abs(rank_correlation(values, words)) < bound
    sources = Counter(bundled["source"])
    inside = with_length_by_source(bundled, values)
    assert max(abs(inside[source]) for source, count in sources.items() if count > 100) < 0.2
    # A sum over words, as in Platanios et al. (2019), is length.
    assert rank_correlation(values * words, words) > 0.9

    dealt = np.random.default_rng(0).permutation(np.asarray(" ".join(bundled["text"]).split(), dtype=object))
    ends = np.cumsum(words)
    texts = [" ".join(dealt[end - count : end]) for end, count in zip(ends, words, strict=True)]
    spread = DIFFICULTIES[curriculum](documents(texts), 0).std()
    assert spread < 0.05 * values.std()


def test_the_curricula_differ(bundled: Dataset) -> None:
    """No two curricula order the bundled corpus alike."""
    found = {name: difficulty(bundled, 0) for name, difficulty in DIFFICULTIES.items()}
    pairs = [(one, other) for one in found for other in found if one < other]
    assert len(pairs) == 6
    assert all(abs(rank_correlation(found[one], found[other])) < 0.5 for one, other in pairs)


def test_rank_correlation_of_small_cases() -> None:
    """Equal, opposite and tied ranks have the values that Spearman's formula gives by hand."""
    assert rank_correlation(np.asarray([1, 2, 3]), np.asarray([10, 20, 99])) == pytest.approx(1)
    assert rank_correlation(np.asarray([1, 2, 3]), np.asarray([3, 2, 1])) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert rank_correlation(np.asarray([1, 5, 5, 9]), np.asarray([1, 2, 3, 4])) == pytest.approx(4.5 / math.sqrt(22.5))
    assert math.isnan(rank_correlation(np.asarray([2, 2, 2]), np.asarray([1, 2, 3])))
