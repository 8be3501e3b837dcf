"""The pieces of a text, of which a token never holds more than one."""

from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

# A word keeps its matras, viramas and joiners (categories M and Cf), which the stock byte-level pattern \p{L}+ cuts
# off, and the space before it; digits go by up to three; every character falls into exactly one alternative. Letters
# and other signs never share a piece, so no token of a text can be spelled like a special token.
DEVANAGARI_SPLIT = (
    r" ?[\p{L}\p{M}\u200c\u200d]+"
    r"| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{M}\p{N}\u200c\u200d]+"
    r"|\s+(?!\S)|\s+"
)
_PIECE = regex.compile(DEVANAGARI_SPLIT)


def split_pieces(text: str) -> list[str]:
    """Split `text` into its pieces, which join to it.

    >>> split_pieces("राम ने 2024 में कहा।")
    ['राम', ' ने', ' 202', '4', ' में', ' कहा', '।']
    """
    pieces: list[str] = _PIECE.findall(text)
    return pieces


def piece_splitter() -> "PreTokenizer":
    """Return the pre-tokenizer that cuts a text into its pieces."""
    return _splitter(DEVANAGARI_SPLIT)


def byte_splitter(longest: int | None = None) -> "PreTokenizer":
    """Return the pre-tokenizer that writes each piece in the alphabet of 256 signs that stand for bytes (as GPT-2's).

    With `longest`, a longer piece is cut after so many characters.
    """
    from tokenizers import pre_tokenizers

    cuts = [_splitter(rf"[\s\S]{{1,{longest}}}")] if longest else []
    stand_ins = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([piece_splitter(), *cuts, stand_ins])


def _splitter(pattern: str) -> "PreTokenizer":
    import tokenizers
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
