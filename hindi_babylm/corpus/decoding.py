"""Bytes -> lines of text in bounded memory; text that was once decoded wrongly, or never left a font of its own."""

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from hindi_babylm.storage import UserError

_CHUNK = 1 << 20
_HEAD = 1 << 16
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NAMES = {"utf-8": "UTF-8"} | {f"utf-{n}-{order}": f"UTF-{n}" for n in (16, 32) for order in ("le", "be")}
_SHOWN_BYTES = 2


def decode_lines(stream: BinaryIO) -> Iterator[tuple[str, str | None]]:
    r"""Yield each line of a text file without its "\n" or "\r\n", and None or what is wrong with its bytes.

    UTF-8, and UTF-16 and UTF-32 by their byte order mark; UTF-16 without a mark by its zero bytes. Only "\n" ends a
    line, so lines are those of every text editor: not U+2028, form feed or U+0085. Broken bytes become U+FFFD, and the
    line's fault says where they stand. Memory is bounded by the longest line.

    Raises UserError, "no text file", at the first NUL byte of what is not UTF-16 or UTF-32.

    >>> import io
    >>> file = io.BytesIO("एक\r\n".encode() + b"\xe0A\n")
    >>> for line in decode_lines(file):
    ...     print(line)
    ('एक', None)
    ('�A', 'line 2: broken UTF-8 at byte 1 of the line (0xE0 0x41)')
    """
    head = b""
    while len(head) < _HEAD and (chunk := stream.read(_HEAD - len(head))):
        head += chunk
    encoding, mark = _encoding_of(head)
    for number, raw in enumerate(_raw_lines(head[mark:], stream, encoding), start=1):
        if encoding == "utf-8" and b"\0" in raw:
            raise UserError(f"line {number} has a NUL byte, so it is no text file; give text in UTF-8 or UTF-16")
        fault = None
        try:
            line = raw.decode(encoding)
        except UnicodeDecodeError as error:
            shown = " ".join(f"0x{byte:02X}" for byte in raw[error.start : error.start + _SHOWN_BYTES])
            fault = f"line {number}: broken {_NAMES[encoding]} at byte {error.start + 1} of the line ({shown})"
            line = raw.decode(encoding, "replace")
        yield line.removesuffix("\r"), fault


def _encoding_of(head: bytes) -> tuple[str, int]:
    """Return the encoding of a file by its first bytes, and the length of its byte order mark."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    # Spaces, line ends and Latin letters have a high byte of zero, Devanagari has 0x09, and no text has U+0000.
    pairs = max(1, len(head) // 2)
    for encoding, high, low in (("utf-16-le", head[1::2], head[0::2]), ("utf-16-be", head[0::2], head[1::2])):
        if high.count(0) and high.count(0) + high.count(9) > 0.9 * pairs and low.count(0) < 0.01 * pairs:
            return encoding, 0
    if b"\0" in head:
        raise UserError(f"a NUL byte at byte {head.index(0) + 1}, so it is no text file; give text in UTF-8 or UTF-16")
    return "utf-8", 0


def _raw_lines(head: bytes, stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yield the bytes of each line, its line feed left out."""
    newline = "\n".encode(encoding)
    unit = len(newline)
    pending: list[bytes] = []  # the line that is not yet over, as pieces: joined once, however long it is
    size = 0
    chunk = head
    while chunk:
        for position, piece in enumerate(chunk.split(newline)):
            if position and size % unit:  # the bytes of a line feed, but of two neighbouring characters
                pending.append(newline)
                size += unit
            elif position:
                yield b"".join(pending)
                pending, size = [], 0
            pending.append(piece)
            size += len(piece)
        chunk = _read_units(stream, unit)
    if size:
        yield b"".join(pending)


def _read_units(stream: BinaryIO, unit: int) -> bytes:
    """Read a chunk of whole units, so that no line feed straddles two chunks."""
    chunk = stream.read(_CHUNK)
    while len(chunk) % unit and (more := stream.read(unit - len(chunk) % unit)):
        chunk += more
    return chunk


def _tail(byte: int) -> set[str]:
    """Return the characters that a byte becomes when it is read as Latin-1 or as Windows-1252."""
    return {chr(byte), bytes([byte]).decode("cp1252", "ignore") or chr(byte)}


_BYTES = {character: byte for byte in range(0x80, 0x100) for character in _tail(byte)}
_TAILS = "[" + "".join(sorted(character for character, byte in _BYTES.items() if byte < 0xC0)) + "]"
# The UTF-8 bytes of Devanagari (E0 A4 or A5, and one more) and of typographic marks (E2 80, and one more) read as
# Windows-1252 or Latin-1. No language writes these sequences.
_MOJIBAKE = re.compile(f"\u00e0[\u00a4\u00a5]{_TAILS}|\u00e2[\u20ac\u0080]{_TAILS}")
# A few marks of two bytes; taken for mojibake only beside one of the above.
_MOJIBAKE_PAIR = re.compile("\u00c2[\u00a0\u00a9\u00ab\u00ad\u00ae\u00b0\u00b7\u00bb]")
_MOJIBAKE_LEFT = re.compile("\u00e0[\u00a4\u00a5]|\u00c3.\u00c2[\u00a4\u00a5]")


def repair_mojibake(text: str) -> str:
    """Reverse UTF-8 that was read as Windows-1252 or Latin-1, sequence by sequence, wherever that is exact.

    >>> repair_mojibake("à¤¹à¤¿à¤¨à¥\\x8dà¤¦à¥€ â€“ café")
    'हिन्दी – café'
    """
    if not _MOJIBAKE.search(text):
        return text
    return _MOJIBAKE_PAIR.sub(_reverse, _MOJIBAKE.sub(_reverse, text))


def _reverse(match: re.Match[str]) -> str:
    return bytes(_BYTES[character] for character in match.group()).decode("utf-8")


def looks_like_mojibake(text: str) -> bool:
    """Say whether a tenth of a text or more is Devanagari in bytes of Latin letters: "à¤¹à¤¿".

    >>> looks_like_mojibake("à¤¹à¤¿à¤¨à¥à¤¦à¥€"), looks_like_mojibake("voilà, ¥ 500")
    (True, False)
    """
    found = len(_MOJIBAKE_LEFT.findall(text))
    return found > 1 and 3 * found > 0.1 * len(text)


# The most frequent words of Hindi as the fonts Kruti Dev and DevLys have them on Latin keys, and Chanakya on Latin-1
# letters: hai, hain, aur, men, ko, nahin, tha, ek, lie, yah, bhi, ho, karne, tatha. The second set is less telling.
# fmt: off
_LEGACY_STRONG = frozenset({
    "gS", "gSa", "gSA", "gSaA", "vkSj", "esa", "dks", "ugha", "Fkk", "Fks", "Fkh", "Fkk]", "FkkA", ",d", "fy,", ";g",
    ";s", "Hkh", "gks", "djus", "djrs", "rFkk", "fd;k", "gqvk", "gqbZ", "x;k", "x;h", "mUgksaus", "mlus", "ftl",
    "ãñ", "ãñ´", "ãñÐ", "ãñ´Ð", "·¤è", "·¤æ", "·¤ð", "·¤ô", "×ð´", "¥æñÚU", "Ùãè´", "Íæ", "Íð", "Íè", "Üð", "°·¤",
})
_LEGACY_WEAK = frozenset(
    {"dk", "ds", "dh", "us", "ls", "ij", "fd", "og", "tks", "rks", "eSa", "dj", "bl", "ml", "âð", "Ùð", "ÂÚU"}
)
# fmt: on


def looks_like_legacy_font(text: str) -> bool:
    """Say whether a text was typed in a font that shows Latin letters as Devanagari (Kruti Dev, DevLys, Chanakya).

    It counts the most frequent words of Hindi as they look in those fonts: two of them, and a sixth of the words.

    >>> looks_like_legacy_font("Hkkjr ,d egku ns'k gS"), looks_like_legacy_font("India is a great country")
    (True, False)
    """
    words = text.split()
    strong = sum(word in _LEGACY_STRONG for word in words)
    weak = sum(word in _LEGACY_WEAK for word in words)
    return strong > 0 and strong + weak > 1 and 6 * (strong + weak) >= len(words)
