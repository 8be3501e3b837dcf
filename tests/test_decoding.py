import io
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm.corpus.decoding import decode_lines, looks_like_legacy_font, looks_like_mojibake, repair_mojibake
from hindi_babylm.storage import UserError

TEXT = "एक पंक्ति\r\nदूसरी: a\u2028b\x0cc\x85d\n\nचौथी 12.5"
LINES = ["एक पंक्ति", "दूसरी: a\u2028b\x0cc\x85d", "", "चौथी 12.5"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
MARKED_BE = {"utf-16": b"\xfe\xff", "utf-32": b"\x00\x00\xfe\xff"}


class Dripping(io.RawIOBase):
    """A stream that gives at most a few bytes a call, as a pipe may."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = io.BytesIO(data), size

    def read(self, size: int = -1) -> bytes:
        return self.data.read(min(size, self.size) if size >= 0 else self.size)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_lines_of_every_encoding(encoding: str, size: int) -> None:
    """A file's lines come out the same in UTF-8, UTF-16 and UTF-32, split at line feeds alone, however it is read."""
    stream = cast(BinaryIO, Dripping(TEXT.encode(encoding), size))
    assert list(decode_lines(stream)) == [(line, None) for line in LINES]


@pytest.mark.parametrize("encoding", MARKED_BE)
def test_big_endian_by_its_mark(encoding: str) -> None:
    """A byte order mark of the other order is read too, and is no part of the text."""
    data = MARKED_BE[encoding] + TEXT.encode(f"{encoding}-be")
    assert [line for line, _ in decode_lines(io.BytesIO(data))] == LINES


def test_a_long_text_in_utf16_without_a_mark() -> None:
    """UTF-16 is known by its zero bytes also where the file is longer than what is looked at, across chunks."""
    text = "राम ने 12.5 किलो आम खाए ।\n" * 50_000
    for encoding in ("utf-16-le", "utf-16-be"):
        assert [line for line, _ in decode_lines(io.BytesIO(text.encode(encoding)))] == text.split("\n")[:-1]


@pytest.mark.parametrize("order", ["le", "be"])
def test_no_line_ends_between_two_characters(order: str) -> None:
    """The bytes of a line feed that belong to two neighbouring characters end no line."""
    text = "\u0a0a\u0a00\u000a\u0a00\u000aक \u0100\u0a0aख\n" * 3
    marked = ("\ufeff" + text).encode(f"utf-16-{order}")
    assert [line for line, _ in decode_lines(io.BytesIO(marked))] == text.split("\n")[:-1]


def test_broken_bytes_are_told_with_their_line() -> None:
    """A line with broken bytes comes out with U+FFFD for them, and its fault names line, byte and bytes."""
    data = "ठीक\n".encode() * 16 + b"abcd\xe0A\n" + "ठीक".encode()
    lines = list(decode_lines(io.BytesIO(data)))
    assert lines[16] == ("abcd\ufffdA", "line 17: broken UTF-8 at byte 5 of the line (0xE0 0x41)")
    assert [fault for _, fault in lines[:16] + lines[17:]] == [None] * 17
    assert lines[17][0] == "ठीक"


def test_broken_utf16_is_told() -> None:
    """Half a surrogate pair and a cut last character are faults of UTF-16."""
    data = b"\xff\xfe" + "क\n".encode("utf-16-le") + b"\x00\xd8" + "ख\n".encode("utf-16-le") + b"\x15"
    faults = [fault for _, fault in decode_lines(io.BytesIO(data))]
    assert faults[0] is None
    assert faults[1] == "line 2: broken UTF-16 at byte 1 of the line (0x00 0xD8)"
    assert faults[2] is not None
    assert faults[2].startswith("line 3: broken UTF-16 at byte 1")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x7fELF\x02\x01\x01\x00\x00\x00", "a NUL byte at byte 8"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "a NUL byte at byte 4"),
        ("राम\n".encode() * 20_000 + b"\x00\n", "line 20001 has a NUL byte"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, words: str) -> None:
    """A NUL byte ends the reading in one line that says where it is and what to give."""
    with pytest.raises(UserError, match=f"^{words}.*no text file; give text in UTF-8 or UTF-16$"):
        list(decode_lines(io.BytesIO(data)))


def test_an_empty_file_has_no_lines() -> None:
    """Nothing and a lone byte order mark are no lines; a lone line feed is one empty line."""
    assert list(decode_lines(io.BytesIO(b""))) == []
    assert list(decode_lines(io.BytesIO(b"\xef\xbb\xbf"))) == []
    assert list(decode_lines(io.BytesIO(b"\n"))) == [("", None)]


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.binary(max_size=60).filter(lambda data: b"\0" not in data))
def test_any_bytes_without_nul_are_read(data: bytes) -> None:
    """Any bytes come out as their lines decoded with replacement, and have a fault where something was replaced."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return
    lines = data.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    found = list(decode_lines(io.BytesIO(data)))
    assert [line for line, _ in found] == [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines]
    for (line, fault), raw in zip(found, lines, strict=True):
        assert (fault is None) == (line.encode() == raw.removesuffix(b"\r"))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_mojibake_is_reversed_exactly(encoding: str) -> None:
    """UTF-8 read as Latin-1, or as Windows-1252 where it has the bytes, comes back as it was."""
    text = "“गंगा नदी” – भारत की है…" if encoding == "latin-1" else "गंगा नदी – भारत की है…"
    assert repair_mojibake(text.encode().decode(encoding)) == text


def test_mojibake_is_told_from_latin_letters() -> None:
    """Lost bytes leave text that looks like mojibake; French, Portuguese and Hindi do not."""
    assert looks_like_mojibake("à¤¹à¤¿à¤¨à¥à¤¦à¥€")
    assert looks_like_mojibake("हिन्दी भाषा".encode().decode("latin-1").encode().decode("latin-1"))  # twice
    for text in ("voilà, ¥ 500 à ¤", "São à São", "हिन्दी भाषा", "", "àéîõü ÀÉÎÕÜ"):
        assert not looks_like_mojibake(text)
        assert repair_mojibake(text) == text


def test_legacy_fonts_are_told_from_english() -> None:
    """Typed gibberish of Kruti Dev and Chanakya is known by its frequent words; English, code and units are not it."""
    assert looks_like_legacy_font("Hkkjr ,d egku ns'k gS")
    assert looks_like_legacy_font("ÖæÚUÌ °·¤ çßàææÜ Îðàæ ãñ Áô Îçÿæ‡æ °çàæØæ ×ð´ çSÍÌ ãñÐ")
    for text in ("India is a great country", "git log; ls -l", "भारत एक महान देश है", "", "4 GB RAM, 5 gS", "ds = dk"):
        assert not looks_like_legacy_font(text)
