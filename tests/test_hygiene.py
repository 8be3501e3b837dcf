import json
import lzma
import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm.corpus.hygiene import cleaning
from hindi_babylm.corpus.hygiene.cleaning import STEPS, Cleaned, clean
from hindi_babylm.corpus.hygiene.length import LONGEST_LINE, long_lines, split_document
from hindi_babylm.corpus.sources import BUNDLED_CORPUS
from hindi_babylm.orthography import count_bytes, count_words
from tests.runs import ROOT

ALL = tuple(STEPS)
GOLD = {
    path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    for path in sorted((ROOT / "tests" / "gold" / "hygiene").glob("*.jsonl"))
}
CASES = [(step, row["text"], row["cleaned"]) for step, rows in GOLD.items() for row in rows]

PIECES = [
    *("राम", "घर गया", "है", "है|", " | ", "||", "|", "। ", "\n", "\n\n\n", " ", "  ", "\t", "\r\n", "\u2028", "\u00a0"),
    *("क\u094d", "\u094d", "\u093c", "\u0958", "न\u093c", "\u200d", "\u200c", "\u200b", "\ufeff", "\u202e", "\x00"),
    *(
        "\ud83d",
        "\ude00",
        "😀",
        "❤\ufe0f",
        "&amp;",
        "&lt;",
        "&gt;",
        "&#",
        "&nbsp;",
        "lt;",
        "<",
        ">",
        "<b>",
        "</b>",
        "<p",
    ),
    *(
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "<ref>",
        "</ref>",
        "</s>",
        "<pad>",
        "[",
        "]",
        "[[",
        "]]",
        "[1]",
        "(",
        ")",
    ),
    *("](http://x.in)", "{{", "}}", "{|", "|}", "'''", "''", "==", "== ", "**", "# ", "> ", "---", "|---", "```", "`"),
    *("[^1]", "à¤", "¹", "à¤¹", "â€", "gS", ",d", "12.5", "1,25,000", "10:30", "डॉ.", "COVID-19", "आहे", "छ", "च", "م"),
    *("字", "a", "File:", "_", "*", "!"),
]
dirt = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    st.text(alphabet=st.characters(exclude_categories=[]), max_size=30),
)
many = settings(derandomize=True, max_examples=600, deadline=None)


def bundled() -> list[str]:
    """Return the documents of the bundled corpus."""
    documents = []
    for path in sorted(BUNDLED_CORPUS.glob("*.jsonl.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            documents += [json.loads(line)["text"] for line in file]
    return documents


def pud() -> list[str]:
    """Return the sentences of UD Hindi PUD in the bundled pairs."""
    table = ROOT / "hindi_babylm" / "data" / "pairs" / "hindi_pairs_pud.tsv"
    rows = table.read_text(encoding="utf-8").split("\n")[1:]
    return sorted({row.split("\t")[1] for row in rows if row})


@pytest.mark.parametrize(("step", "text", "cleaned"), CASES)
def test_gold_examples(step: str, text: str, cleaned: str | None) -> None:
    """Each step mends its gold examples exactly as written, and leaves their look-alikes alone."""
    assert STEPS[step](text) == cleaned


def test_every_step_has_gold_that_it_changes_and_gold_that_it_does_not() -> None:
    """No step is without eight examples, of which some change and some stay."""
    assert set(GOLD) | {"long_lines"} == set(STEPS)
    for rows in GOLD.values():
        assert len(rows) >= 8
        changed = [row["text"] != row["cleaned"] for row in rows]
        assert any(changed)
        assert not all(changed)


@pytest.mark.parametrize("step", sorted(GOLD))
def test_a_step_that_is_switched_off_leaves_its_dirt(step: str) -> None:
    """Cleaning with a step alone does what its gold says; cleaning without any step changes nothing."""
    for row in GOLD[step]:
        alone = clean(row["text"], steps=[step], min_words=0, max_words=10**9)
        expected = [row["cleaned"]] if (row["cleaned"] or "").split() else []
        assert alone.texts == expected
        assert clean(row["text"], steps=[], min_words=0, max_words=10**9).texts == [row["text"]]


@pytest.mark.parametrize(
    "text",
    [
        "12.5 किलो, 1,25,000 रुपये, 10:30 बजे और 3/4 भाग।",
        "डॉ. राम प्र. सिंह, बी.ए., COVID-19 से ... बच गए!",
        "१२.५ % और ₹ 1,25,000.50 (लगभग) -- ठीक?",
        "Settings में Wi-Fi on करें & Password डालें; फिर <3",
        "क\u093cलम, ज\u093cरूर, पढ\u093cाई: नुक्ता बना रहे।",
        "श्रीमान्\u200c क्\u200dष र्\u200dयाला",
        "</s> और <pad> और <|endoftext|> पाठ हैं।",
        "'वह बोला, ''हाँ''' — और “चला गया”।",
        "दुःख, दु:ख, हँसी, हंसी, ॐ, ऽ, ॥१२॥",
    ],
)
def test_good_text_is_not_touched(text: str) -> None:
    """Numbers, decimals, times, abbreviations, Latin words, nuktas and joiners pass all steps as written."""
    assert clean(text, steps=ALL, min_words=1, max_words=1000) == Cleaned([text], {}, None)


def squeezed(text: str) -> str:
    """Return a text in NFC with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def test_pud_sentences_pass_unchanged() -> None:
    """Every sentence of UD Hindi PUD in the bundled pairs is kept, all unchanged but one with an idle joiner."""
    changed = []
    for sentence in pud():
        cleaned = clean(sentence, steps=ALL, min_words=1, max_words=1000)
        assert cleaned.dropped is None
        if [squeezed(text) for text in cleaned.texts] != [squeezed(sentence)]:
            changed.append((sentence, cleaned))
    assert len(pud()) == 464
    assert [cleaned.changes for _, cleaned in changed] == [{"joiners": (0, 3)}]
    assert "टिप्पणि\u200dयों" in changed[0][0]


def test_bundled_corpus_passes_unchanged() -> None:
    """All documents of the bundled corpus are kept, and 99 % of their lines and more pass each by itself unchanged."""
    documents = bundled()
    lines = [line for document in documents for line in document.split("\n") if line.strip()]
    assert len(lines) > 20_000
    assert all(clean(text, steps=ALL, min_words=1, max_words=10**9).dropped is None for text in documents)
    unchanged = 0
    for line in lines:
        texts = clean(line, steps=ALL, min_words=1, max_words=10**9).texts
        unchanged += [squeezed(text) for text in texts] == [squeezed(line)]
    assert unchanged >= 0.99 * len(lines)


@pytest.mark.parametrize("step", ALL)
@many
@given(text=dirt)
def test_every_step_is_idempotent(step: str, text: str) -> None:
    """A step finds nothing more to do on what it mended."""
    once = STEPS[step](text)
    if once is not None:
        assert STEPS[step](once) == once


@many
@given(text=dirt, min_words=st.integers(0, 2), max_words=st.integers(8, 12))
def test_cleaning_is_idempotent_and_accounts_for_everything(text: str, min_words: int, max_words: int) -> None:
    """Words and bytes of a document are those that remain and those booked; its parts are clean."""
    cleaned = clean(text, steps=ALL, min_words=min_words, max_words=max_words)
    words = sum(change[0] for change in cleaned.changes.values())
    size = sum(change[1] for change in cleaned.changes.values())
    if cleaned.dropped:
        assert cleaned.texts == []
        assert words <= count_words(text)
        assert size <= count_bytes(text)
    else:
        assert count_words(text) == words + sum(map(count_words, cleaned.texts))
        assert count_bytes(text) == size + sum(map(count_bytes, cleaned.texts))
        assert all(max(1, min_words) <= count_words(part) <= max_words for part in cleaned.texts)
    if len(cleaned.texts) == 1:
        again = clean(cleaned.texts[0], steps=ALL, min_words=min_words, max_words=max_words)
        assert again == Cleaned(cleaned.texts, {}, None)


def test_a_drop_is_booked_at_the_step_that_refuses() -> None:
    """A refused document names its step, and the changes of the steps before it are booked."""
    cleaned = clean("<b>India</b> is a country.", steps=ALL, min_words=1, max_words=9)
    assert cleaned == Cleaned([], {"tags": (0, 7)}, "script")
    assert clean("राम घर", steps=ALL, min_words=3, max_words=9).dropped == "min_words"
    assert clean("", steps=ALL, min_words=0, max_words=9).dropped == "min_words"


def test_a_step_that_leaves_no_word_drops_the_document() -> None:
    """A document of a template alone is dropped by the step that took it, and its words are not booked twice."""
    assert clean("{{a|b c}}", steps=ALL, min_words=1, max_words=9) == Cleaned([], {}, "wiki")


def test_marks_without_end_drop_the_document() -> None:
    """A document of marks that reveal marks is dropped by the step that does not come to an end."""
    text = "राम " + "&amp;" + "amp;" * 30 + "lt;b>"
    assert clean(text, steps=ALL, min_words=1, max_words=99).dropped == "entities"


def test_surrogates_that_make_a_character_become_it() -> None:
    """Two surrogates in a row are one character, one alone is none; both are counted."""
    assert STEPS["invisible"]("\ud83d\ude00 ठीक \ude00\ud83d") == "😀 ठीक "
    assert clean("\ud83d\ude00 ठीक\ud83d", steps=["invisible"], min_words=1, max_words=9).changes == {
        "invisible": (0, 5)
    }


def test_steps_run_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps run as named, in that order, again until nothing changes."""
    seen: list[str] = []

    def without(letter: str) -> Callable[[str], str]:
        def step(text: str) -> str:
            seen.append(letter)
            return text.replace(letter, "")

        return step

    monkeypatch.setattr(cleaning, "STEPS", {"a": without("a"), "b": without("b")})
    assert clean("ab c", steps=["b", "a"], min_words=1, max_words=9).texts == [" c"]
    assert seen == ["b", "a", "b", "a"]


SENTENCE = "राम घर गया। "


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (SENTENCE * 1000, (SENTENCE * 833).rstrip() + "\n" + SENTENCE * 167),
        (SENTENCE * 2000, "\n".join([(SENTENCE * 833).rstrip()] * 2 + [SENTENCE * 334])),
        ("राम " * 4000, ("राम " * 2500).rstrip() + "\n" + "राम " * 1500),
        ("वह बोला “हाँ।” " * 700, ("वह बोला “हाँ।” " * 666).rstrip() + "\n" + "वह बोला “हाँ।” " * 34),
        ("कि" * 6000, "कि" * 4999 + "\n" + "कि" * 1001),
        ("क्ष" * 4000, "क्ष" * 3333 + "\n" + "क्ष" * 667),
        (SENTENCE * 800, SENTENCE * 800),
        ("राम\n" * 5000, "राम\n" * 5000),
        ("12.5 किलो", "12.5 किलो"),
    ],
)
def test_long_lines_end_earlier(text: str, cleaned: str) -> None:
    """A line over the bound ends after a sentence, else at a space, else before a letter; shorter ones stay."""
    assert long_lines(text) == cleaned
    assert max(map(len, cleaned.split("\n"))) <= LONGEST_LINE


def test_a_long_document_is_split_at_the_best_place() -> None:
    """Parts end at blank lines, else at line ends, else after sentences, else anywhere, and are about equal."""
    word = "राम "
    assert split_document(word * 10, 10) == [word * 10]
    assert split_document((word * 12).strip(), 10) == [(word * 6).strip()] * 2
    assert split_document("क ख ग घ ङ\nच छ ज। झ ञ ट ठ", 10) == ["क ख ग घ ङ", "च छ ज। झ ञ ट ठ"]
    assert split_document("क ख ग\nघ ङ\n\nच छ ज झ ञ ट", 10) == ["क ख ग\nघ ङ", "च छ ज झ ञ ट"]
    assert split_document("क ख ग घ।” ङ च छ ज झ ञ ट ठ", 10) == ["क ख ग घ।”", "ङ च छ ज झ ञ ट ठ"]


@many
@given(st.lists(st.sampled_from(["क", "ख।", "ग", "\n", "\n\n"]), max_size=60).map(" ".join), st.integers(2, 9))
def test_no_part_of_a_split_document_is_tiny(text: str, max_words: int) -> None:
    """Each part has at most the bound and at least a quarter of it, and together they are the words of the whole."""
    parts = split_document(text, max_words)
    assert " ".join(parts).split() == text.split()
    if len(parts) > 1:
        assert all(max_words // 4 <= count_words(part) <= max_words for part in parts)


def test_the_documented_steps_are_those_of_the_registry() -> None:
    """The table of the decisions names every step, in order."""
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)` \|", decisions, re.M)
    assert table == list(STEPS)
