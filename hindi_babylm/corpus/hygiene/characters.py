"""Repairs of single characters: wrong decodings, NFC, invisible characters, joiners, spaces and line ends."""

import re
from collections.abc import Callable

from hindi_babylm.corpus.decoding import looks_like_legacy_font, looks_like_mojibake, repair_mojibake
from hindi_babylm.orthography import normalize

# No mojibake without one of these.
_HIGH_LATIN = re.compile("[\u0080-\u009f\u00a4\u00a5\u00b7\u00c0-\u00ff]")
# One of these is in every text of some length in such a font: hai, aur, nahin, tha, kiya; hai and ka in Chanakya.
_LEGACY_SIGNS = ("gS", "vkSj", "ugha", "Fkk", "fd;k", "\u00e3\u00f1", "\u00b7\u00a4")

_CONTROLS = "\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f"  # the others are white space
_ZERO_WIDTH = "\u00ad\u034f\u061c\u180e\u200b\u2060-\u2064\ufeff"
_BIDI = "\u200e\u200f\u202a-\u202e\u2066-\u206f"
_NO_CHARACTER = "\ufdd0-\ufdef\ufff9-\uffff\ue000-\uf8ff"  # noncharacters, replacement, interlinear, private use
_SURROGATES = "\ud800-\udfff"
_INVISIBLE = re.compile(f"[{_CONTROLS}{_ZERO_WIDTH}{_BIDI}{_NO_CHARACTER}{_SURROGATES}]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

# The viramas of the scripts of India, Sri Lanka and Nepal.
_VIRAMA = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
_PICTURE = "\u2190-\u2bff\u3030\u303d\U0001f000-\U0001faff"
_ARABIC = "\u0620-\u06ff\u0750-\u077f"
# The joiner first, so that the search is for two characters, and then what stands before and after it.
_IDLE_JOINER = re.compile(
    "[\u200c\u200d](?:"
    f"(?<![{_VIRAMA}{_ARABIC}{_PICTURE}\ufe0f].)(?!(?<=\u200d)[{_VIRAMA}])"
    f"|(?<=[{_PICTURE}\ufe0f]\u200d)(?![{_PICTURE}])"
    f"|(?<=[{_PICTURE}\ufe0f]\u200c)"
    f"|(?<=[{_ARABIC}].)(?![{_ARABIC}])"
    ")"
)

_BREAKS = re.compile("\r\n?|[\u000b\u000c\u001c-\u001e\u0085\u2028\u2029]")
_SPACES = re.compile("[\t\u001f\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_ODD_WHITESPACE = re.compile("[\t\u000b-\r\u001c-\u001f\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_SPACE_RUN = re.compile(" {2,}")
_BLANK_LINES = re.compile("\n{3,}")


def mojibake(text: str) -> str:
    """Reverse UTF-8 read as Windows-1252 or Latin-1 where that is exact; leave out lines that stay unreadable."""
    if not _HIGH_LATIN.search(text):
        return text
    return _without_lines(repair_mojibake(text), looks_like_mojibake)


def legacy_font(text: str) -> str:
    """Leave out lines typed in a font that shows Latin letters as Devanagari."""
    if not any(sign in text for sign in _LEGACY_SIGNS):
        return text
    return _without_lines(text, looks_like_legacy_font)


def _without_lines(text: str, refused: Callable[[str], bool]) -> str:
    lines = text.split("\n")
    kept = [line for line in lines if not refused(line)]
    return text if len(kept) == len(lines) else "\n".join(kept)


def nfc(text: str) -> str:
    """Bring a text to NFC: nukta letters U+0958 to U+095F become letter and nukta, and no nukta is taken away."""
    return normalize(text)


def invisible(text: str) -> str:
    """Take away controls, zero-width and bidi marks, byte order marks, soft hyphens and what is no character.

    Two surrogates that stand for one character become that character.
    """
    if not _INVISIBLE.search(text):
        return text
    if _PAIR.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _INVISIBLE.sub("", text)


def joiners(text: str) -> str:
    """Keep ZWJ and ZWNJ where they can change what is read, and take them away elsewhere.

    That is after a virama (क्‍ष, क्‌ष), ZWJ also before one (the eyelash ra), in emoji and between Arabic letters.
    """
    if "\u200d" not in text and "\u200c" not in text:
        return text
    return _IDLE_JOINER.sub("", text)


def spaces(text: str) -> str:
    """Make every line end "\\n" and every other white space one space; strip lines; keep at most one blank line."""
    if _ODD_WHITESPACE.search(text):
        text = _SPACES.sub(" ", _BREAKS.sub("\n", text))
    if "  " in text:
        text = _SPACE_RUN.sub(" ", text)
    if " \n" in text or "\n " in text:
        text = text.replace(" \n", "\n").replace("\n ", "\n")
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip(" \n")
