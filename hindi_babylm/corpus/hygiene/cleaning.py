"""The steps of hygiene in their order, and a document that goes through them with every loss booked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hindi_babylm.corpus.hygiene.characters import invisible, joiners, legacy_font, mojibake, nfc, spaces
from hindi_babylm.corpus.hygiene.danda import danda
from hindi_babylm.corpus.hygiene.language import language, script
from hindi_babylm.corpus.hygiene.length import long_lines, split_document
from hindi_babylm.corpus.hygiene.markup import entities, markdown, tags, wiki
from hindi_babylm.orthography import count_bytes, count_words

# A mended text can hold new dirt ("&amp;lt;b&amp;gt;"), so the steps go round until none finds any.
ROUNDS = 10


@dataclass(frozen=True)
class Cleaned:
    """A document after hygiene, with what each step took away.

    texts: what remains; several where a long document was split, none where it was dropped.
    changes: step, or "split" -> (words, UTF-8 bytes) that it took away, negative where it added.
    dropped: the step that refused the document, or "min_words"; None when it is kept.
    """

    texts: list[str]
    changes: dict[str, tuple[int, int]]
    dropped: str | None


def clean(text: str, *, steps: Sequence[str], min_words: int, max_words: int) -> Cleaned:
    """Send a document through the `steps` (names of `STEPS`, in order) and bound its length in words.

    A document is dropped by a step that refuses it or leaves no word of it, and by `min_words` when fewer are left;
    one of more than `max_words` is split, into parts of a quarter of that or more. The words and bytes of `text` are
    those of `texts` and `changes` together; for a dropped document, what `changes` leaves of them is what it had when
    it was dropped.

    >>> cleaned = clean("<p>राम घर गया |</p>", steps=tuple(STEPS), min_words=1, max_words=1000)
    >>> cleaned.texts, cleaned.changes, cleaned.dropped
    (['राम घर गया ।'], {'tags': (0, 5), 'spaces': (0, 2), 'danda': (0, -2)}, None)
    >>> clean("India is a country.", steps=tuple(STEPS), min_words=1, max_words=1000).dropped
    'script'
    """
    changes: dict[str, tuple[int, int]] = {}
    if _is_blank(text):
        return Cleaned([], changes, "min_words")
    for _ in range(ROUNDS):
        changed = None
        for name in steps:
            mended = STEPS[name](text)
            if mended is None or _is_blank(mended):
                return Cleaned([], changes, name)
            if mended != text:
                changed = name
                _book(changes, name, text, [mended])
                text = mended
        if not changed:
            break
    else:
        return Cleaned([], changes, changed)  # marks within marks within marks: no text that anybody wrote
    if len(text.split(None, max(1, min_words))) < max(1, min_words):
        return Cleaned([], changes, "min_words")
    texts = split_document(text, max_words)
    if len(texts) > 1:
        _book(changes, "split", text, texts)
    return Cleaned(texts, changes, None)


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _book(changes: dict[str, tuple[int, int]], name: str, before: str, after: list[str]) -> None:
    words = count_words(before) - sum(map(count_words, after))
    size = count_bytes(before) - sum(map(count_bytes, after))
    booked = changes.get(name, (0, 0))
    changes[name] = (booked[0] + words, booked[1] + size)


# Each takes a text and returns it mended, or None to refuse the document. The order is part of the result: letters
# before marks, invisible characters before the marks that they may cut, and what asks for language on clean text.
STEPS: dict[str, Callable[[str], str | None]] = {
    "mojibake": mojibake,
    "legacy_font": legacy_font,
    "nfc": nfc,
    "entities": entities,
    "invisible": invisible,
    "joiners": joiners,
    "tags": tags,
    "wiki": wiki,
    "markdown": markdown,
    "spaces": spaces,
    "danda": danda,
    "long_lines": long_lines,
    "script": script,
    "language": language,
}
