"""Say what a word, an akshara and a byte of Hindi text are: one definition for budgets, metrics and reports."""

import unicodedata

import regex

# UAX 29 extended grapheme clusters; since Unicode 15.1 rule GB9c keeps a conjunct (consonant, virama,
# consonant) in one cluster, which makes a cluster an orthographic syllable.
_CLUSTER = regex.compile(r"\X")


def normalize(text: str) -> str:
    """Return `text` in Unicode NFC, the form in which every count of this package is taken.

    >>> len(normalize("\\u0928\\u093c"))  # na + nukta
    1
    >>> len(normalize("\\u0958"))  # qa is a composition exclusion: NFC has two code points
    2
    """
    return unicodedata.normalize("NFC", text)


def count_words(text: str) -> int:
    """Count the whitespace-separated tokens of `text`.

    >>> count_words("राम ने 12.5 किलो आम खाए ।")
    7
    """
    return len(text.split())


def split_aksharas(text: str) -> list[str]:
    """Split `text` into its orthographic syllables, whitespace left out.

    A sign that is no letter (a digit, a danda) is a unit of its own.

    >>> split_aksharas("क्षत्रिय है।")
    ['क्ष', 'त्रि', 'य', 'है', '।']
    """
    return [cluster for cluster in _CLUSTER.findall(text) if not cluster.isspace()]


def count_aksharas(text: str) -> int:
    """Count the orthographic syllables of `text`, whitespace left out.

    >>> count_aksharas("क्षत्रिय है।")
    5
    """
    return len(split_aksharas(text))


def count_bytes(text: str) -> int:
    """Count the UTF-8 bytes of `text`.

    >>> count_bytes("घर"), count_bytes("ghar")
    (6, 4)
    """
    return len(text.encode("utf-8"))
