import json
import lzma
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm import orthography
from hindi_babylm.corpus.sources import BUNDLED_CORPUS
from hindi_babylm.orthography import count_aksharas, count_bytes, count_words, normalize, split_aksharas

COMPOSITION_EXCLUSIONS = [chr(code) for code in range(0x0958, 0x0960)]
DEVANAGARI = "".join(chr(code) for code in range(0x0900, 0x0980))
# Signs that open, extend, join or end clusters in ways of their own, and white space of every kind.
MIXED = (
    DEVANAGARI
    + " \n\t\r\x0b\x1c\x85\xa0\u2028a1.\u0301\u200c\u200d\ufe0f\u0600\u0903\u093e\U0001f600\U0001f1ee한각가\x00\u0d4e"
)
hindi_text = st.text(alphabet=DEVANAGARI + " \n\t.?a1\u200c\u200d\u0964", max_size=40)


@pytest.mark.parametrize(
    ("word", "aksharas"),
    [
        ("क्षत्रिय", ["क्ष", "त्रि", "य"]),
        ("स्त्री", ["स्त्री"]),  # three consonants are one conjunct
        ("राष्ट्र", ["रा", "ष्ट्र"]),
        ("हिन्दी", ["हि", "न्दी"]),
        ("हिंदी", ["हिं", "दी"]),  # anusvara stays with its syllable
        ("माँ", ["माँ"]),  # matra and candrabindu
        ("ज़रूर", ["ज़", "रू", "र"]),  # nukta
        ("अर्थात्", ["अ", "र्था", "त्"]),  # a final virama stays with its consonant
        ("१२।", ["१", "२", "।"]),  # digits and danda are units of their own
    ],
)
def test_aksharas_of_words(word: str, aksharas: list[str]) -> None:
    """An akshara holds a whole conjunct with its vowel sign, nukta and nasal."""
    assert split_aksharas(normalize(word)) == [normalize(akshara) for akshara in aksharas]


def test_joiner_keeps_the_conjunct_and_non_joiner_stays_with_its_consonant() -> None:
    """A zero-width joiner or non-joiner is no unit of its own and never begins one."""
    assert split_aksharas("क्\u200dष") == ["क्\u200dष"]
    with_non_joiner = split_aksharas("क्\u200cष")
    assert "".join(with_non_joiner) == "क्\u200cष"
    assert not any(akshara[0] in "\u200c\u200d" for akshara in with_non_joiner)
    assert count_aksharas("क्\u200cष") == len(with_non_joiner) <= 2


@pytest.mark.parametrize("letter", COMPOSITION_EXCLUSIONS)
def test_composition_exclusions_become_letter_and_nukta(letter: str) -> None:
    """The precomposed nukta letters U+0958 to U+095F are two code points in NFC, and still one akshara."""
    normal = normalize(letter)
    assert normal == unicodedata.normalize("NFD", letter)
    assert len(normal) == 2
    assert normal[1] == "\u093c"
    assert count_aksharas(normal) == 1
    assert count_bytes(normal) == 6


@pytest.mark.parametrize(("base", "composed"), [("न", "ऩ"), ("र", "ऱ"), ("ळ", "ऴ")])
def test_the_three_composed_nukta_letters(base: str, composed: str) -> None:
    """The three nukta letters that NFC does compose become one code point."""
    assert normalize(base + "\u093c") == unicodedata.normalize("NFC", composed)
    assert len(normalize(base + "\u093c")) == 1


def test_words_are_whitespace_tokens() -> None:
    """A word is a whitespace-separated token, whatever the whitespace and the punctuation."""
    assert count_words("") == 0
    assert count_words(" \n\t ") == 0
    assert count_words("राम ने\u2028आम\u00a0खाया ।") == 5
    assert count_words("राम,श्याम  और\r\nमोहन।") == 3
    assert count_words("क्\u200dष क्\u200cष") == 2  # joiners separate nothing


def test_bytes_are_of_utf8() -> None:
    """Bytes are those of UTF-8: three a Devanagari code point, four an emoji, one a Latin letter."""
    assert count_bytes("क") == 3
    assert count_bytes("हिंदी") == 15
    assert count_bytes("a😀") == 5
    assert count_bytes("") == 0


@settings(derandomize=True, max_examples=200, deadline=None)
@given(hindi_text)
def test_aksharas_lose_nothing_but_whitespace(text: str) -> None:
    """The aksharas of a text, joined, are the text without its whitespace, and no mark is cut from its letter."""
    units = split_aksharas(text)
    assert "".join("".join(units).split()) == "".join(text.split())
    assert count_aksharas(text) == len(units)
    assert count_aksharas(text) <= len(text)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(hindi_text)
def test_normalize_is_idempotent_and_keeps_words(text: str) -> None:
    """Normalising twice is normalising once, and it neither joins nor splits words."""
    normal = normalize(text)
    assert normalize(normal) == normal
    assert unicodedata.is_normalized("NFC", normal)
    assert count_words(normal) == count_words(text)


@settings(derandomize=True, max_examples=1500, deadline=None)
@given(st.one_of(st.text(alphabet=MIXED, max_size=30), st.text(alphabet=st.characters(exclude_categories=[]))))
def test_aksharas_are_clusters(text: str) -> None:
    """The count is that of the extended grapheme clusters that are not white space, on any text, twice."""
    expected = sum(not cluster.isspace() for cluster in regex.findall(r"\X", text))
    assert [count_aksharas(text), count_aksharas(text)] == [expected] * 2


def test_aksharas_of_the_bundled_corpus_are_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is exact on real text, also with hardly any words remembered and with very long ones."""
    monkeypatch.setattr(orthography, "_REMEMBERED_WORDS", 100)
    monkeypatch.setattr(orthography, "_COUNTS", orthography._ClusterCounts())
    with lzma.open(BUNDLED_CORPUS / "pratham_storyweaver.jsonl.xz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    for text in (*texts, "क्षि" * 1000):
        assert count_aksharas(text) == len(split_aksharas(text))
    assert len(orthography._COUNTS) == 100
    assert max(map(len, orthography._COUNTS)) <= orthography._LONGEST_REMEMBERED


@settings(derandomize=True, max_examples=1500, deadline=None)
@given(st.one_of(st.text(alphabet=MIXED, max_size=30), st.text(alphabet=st.characters(exclude_categories=[]))))
def test_normalize_is_nfc(text: str) -> None:
    """What is returned unlooked at is in NFC already, on any text."""
    assert normalize(text) == unicodedata.normalize("NFC", text)


def test_every_pair_of_signs_is_normalized() -> None:
    """Every pair of Devanagari signs, and every sign of Unicode by itself and after a letter, comes out in NFC."""
    texts = [a + b for a in DEVANAGARI for b in DEVANAGARI]
    texts += [before + chr(code) for code in range(0x110000) for before in ("", "a")]
    assert [text for text in texts if normalize(text) != unicodedata.normalize("NFC", text)] == []
