"""Bounds on lines and documents: what is too long is split, and nothing of it is lost but white space."""

import re
from collections.abc import Iterator

LONGEST_LINE = 10_000  # characters, about 2,000 words: longer than any paragraph of prose

_SENTENCE_END = re.compile("[।॥?!.][\"'”’)»]{0,3}$")
_SENTENCE_GAP = re.compile("[।॥?!.][\"'”’)»]{0,3} ")
# A letter or sign that neither continues the cluster before it nor follows a virama or joiner.
_START = re.compile(
    "(?<![\u094d\u200c\u200d])[^\\s\u0900-\u0903\u093a-\u093c\u093e-\u094f\u0951-\u0957\u0962\u0963\u0300-\u036f\u200c\u200d\ufe0f]"
)
_WORD = re.compile(r"\S+")


def long_lines(text: str) -> str:
    """End lines of more than `LONGEST_LINE` characters earlier: after a sentence, else at a space, else in a word."""
    if len(text) <= LONGEST_LINE:
        return text
    lines = text.split("\n")
    if len(max(lines, key=len)) <= LONGEST_LINE:
        return text
    return "\n".join(part for line in lines for part in _shorter(line))


def _shorter(line: str) -> Iterator[str]:
    start = 0
    while len(line) - start > LONGEST_LINE:
        middle, end = start + LONGEST_LINE // 2, start + LONGEST_LINE
        gap = max((match.end() - 1 for match in _SENTENCE_GAP.finditer(line, middle, end)), default=-1)
        if gap < 0:
            gap = line.rfind(" ", start + 1, end)
        if gap >= 0:
            yield line[start:gap]
            start = gap + 1
        else:
            cut = max((match.start() for match in _START.finditer(line, middle, end)), default=end)
            yield line[start:cut]
            start = cut
    yield line[start:]


def split_document(text: str, max_words: int) -> list[str]:
    """Split a text of more than `max_words` words into parts of about equal length, white space stripped.

    Part ends at a blank line where there is one in the second half of its length, else at a line's end, else after a
    sentence, else between two words.
    """
    if len(text) < 2 * max_words:  # a word has a character, and a space after it
        return [text]
    spans = [match.span() for match in _WORD.finditer(text)]
    parts = []
    first = 0
    while len(spans) - first > max_words:
        rest = len(spans) - first
        aim = -(-rest // -(-rest // max_words))
        low = max(1, aim // 2)
        high = min(max_words, rest - low)

        def merit(words: int, first: int = first, aim: int = aim) -> tuple[int, int]:
            end, start = spans[first + words - 1][1], spans[first + words][0]
            gap = text[end:start]
            kind = 3 if gap.count("\n") > 1 else 2 if "\n" in gap else 0
            return kind or int(_SENTENCE_END.search(text[end - 4 : end]) is not None), -abs(words - aim)

        words = max(range(low, high + 1), key=merit)
        parts.append(text[spans[first][0] : spans[first + words - 1][1]])
        first += words
    if not parts:
        return [text]
    return [*parts, text[spans[first][0] : spans[-1][1]]]
