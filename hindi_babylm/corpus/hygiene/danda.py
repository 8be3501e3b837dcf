"""Pipes that were typed for dandas."""

import re

_CLOSERS = "\"'”’)»\\]"
_DEVANAGARI = "\u0900-\u0963\u0966-\u097f"
# One or two pipes, before a space, a closing mark or the end of the line.
_PIPE = re.compile(rf"(?<!\|)\|\|?(?=[ {_CLOSERS}]|$)")
_AFTER_DEVANAGARI = re.compile(f"[{_DEVANAGARI}][{_CLOSERS}]{{0,3}} ?$")
_CANDIDATE = re.compile(rf"[{_DEVANAGARI}][{_CLOSERS}]{{0,3}} ?\|")
_LINE_END = re.compile(rf"[।॥?!|][{_CLOSERS}]{{0,3}}$")
_VERSE_NUMBER = re.compile(r"(॥ ?[0-9०-९]{1,4} ?)\|\|(?!\|)")
_MOTTO = re.compile(rf"\|\|([^|]*[{_DEVANAGARI}] ?)\|\|")
# The last word of most sentences, a finite verb.
_FINITE = re.compile(
    "(?:^|[ (\"'“‘])(?:है|हैं|था|थे|थी|थीं|हूँ|हूं|हो|गया|गये|गए|गई|गयी|रहा|रहे|रही|दिया|लिया|किया|कहा|हुआ|हुए|हुई|नहीं"
    "|[\u0904-\u0963]+(?:ूँगा|ूंगा|ेगा|ेगी|ेंगे|ेंगी|ोगे|ोगी|ओगे|ओगी|एगा|एगी|एंगे|एँगे|एंगी|एँगी|ाया|ाये|ायी))"
    f"[{_CLOSERS}]{{0,3}} ?$"
)
_SEGMENT = 80  # characters before a pipe that decide about it


def danda(text: str) -> str:
    """Make "|" and "||" at a sentence's end after Devanagari a danda and a double danda; spaces stay as written.

    In a line that ends like a sentence it is a pipe after a finite verb or two words; in another line every pipe must
    follow a finite verb. Rows of tables, which begin with a pipe or have others, keep theirs.
    """
    if "|" not in text:
        return text
    return "\n".join(_mend(line) if "|" in line else line for line in text.split("\n"))


def _mend(line: str) -> str:
    if not _CANDIDATE.search(line):
        return line
    bare = line.strip()
    if motto := _MOTTO.fullmatch(bare):
        return line.replace(bare, f"॥{motto[1]}॥")
    if bare.startswith("|"):
        return line
    end = len(line.rstrip(" \"'”’)»]"))
    ends = sum(map(line.count, "|।॥"))
    spoken = _LINE_END.search(bare) is not None and (ends < 3 or "||" in line or "॥" in line or _has_finite(line))
    pieces: list[str] = []
    start = since = 0
    for match in _PIPE.finditer(line):
        position = match.start()
        segment = re.split("[।॥?!|]", line[max(since, position - _SEGMENT) : position])[-1]
        since = match.end()
        finite = _FINITE.search(segment) is not None
        if not spoken and not finite:  # one pipe that is no danda makes the others cells of a row
            return line
        alone = match.end() >= end and (not segment.endswith(" ") or ends == 1)
        if _AFTER_DEVANAGARI.search(segment) and (finite or len(segment.split()) > 1 or alone):
            pieces += [line[start:position], "॥" if len(match.group()) == 2 else "।"]
            start = match.end()
    return _VERSE_NUMBER.sub(r"\1॥", "".join([*pieces, line[start:]]))


def _has_finite(line: str) -> bool:
    """Say whether a danda or pipe of the line follows a finite verb."""
    ends = (match.start() for match in re.finditer("[|।॥]", line))
    return any(_FINITE.search(line[max(0, position - _SEGMENT) : position]) for position in ends)
