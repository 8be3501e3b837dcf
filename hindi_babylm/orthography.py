"""Say what a word, an akshara and a byte of Hindi text are: one definition for budgets, metrics and reports."""

import re
import unicodedata

import regex

# UAX 29 extended grapheme clusters; since Unicode 15.1 rule GB9c keeps a conjunct (consonant, virama,
# consonant) in one cluster, which makes a cluster an orthographic syllable.
_CLUSTER = regex.compile(r"\X")
# Characters that NFC neither changes nor reorders, nor joins to what stands before them; nukta and virama, which are
# among them, need the four checks of `_REORDERED_OR_COMPOSED`. Most Hindi text has no other characters.
_NOT_SURELY_NFC = re.compile("[^\u0000-\u02ff\u0900-\u0950\u0955-\u0957\u0960-\u097f\u200b-\u20cf]")
_REORDERED_OR_COMPOSED = ("\u0928\u093c", "\u0930\u093c", "\u0933\u093c", "\u094d\u093c")
# Bounds on what `_ClusterCounts` remembers: about 20 MB.
_REMEMBERED_WORDS, _LONGEST_REMEMBERED = 2**17, 64


def normalize(text: str) -> str:
    """Return `text` in Unicode NFC, the form in which every count of this package is taken.

    >>> len(normalize("\\u0928\\u093c"))  # na + nukta
    1
    >>> len(normalize("\\u0958"))  # qa is a composition exclusion: NFC has two code points
    2
    """
    if not _NOT_SURELY_NFC.search(text) and not any(pair in text for pair in _REORDERED_OR_COMPOSED):
        return text
    return unicodedata.normalize("NFC", text)


def count_words(text: str) -> int:
    """Count the whitespace-separated tokens of `text`.

    >>> count_words("राम ने 12.5 किलो आम खाए ।")
    7
    """
    return len(text.split())


def split_clusters(text: str) -> list[str]:
    """Split `text` into its orthographic syllables and its whitespace; the parts join to it.

    >>> split_clusters("क्षत्रिय है।")
    ['क्ष', 'त्रि', 'य', ' ', 'है', '।']
    """
    clusters: list[str] = _CLUSTER.findall(text)
    return clusters


def split_aksharas(text: str) -> list[str]:
    """Split `text` into its orthographic syllables, whitespace left out.

    A sign that is no letter (a digit, a danda) is a unit of its own.

    >>> split_aksharas("क्षत्रिय है।")
    ['क्ष', 'त्रि', 'य', 'है', '।']
    """
    return [cluster for cluster in split_clusters(text) if not cluster.isspace()]


def count_aksharas(text: str) -> int:
    """Count the orthographic syllables of `text`, whitespace left out: `len(split_aksharas(text))`, but faster.

    No two words share a cluster, and a cluster of a space and a mark counts as the mark alone does, so words can be
    counted one by one and the frequent ones only once.

    >>> count_aksharas("क्षत्रिय है।")
    5
    """
    return sum(map(_COUNTS.__getitem__, text.split()))


class _ClusterCounts(dict[str, int]):
    """The clusters of each word, counted when a word is first asked for."""

    def __missing__(self, word: str) -> int:
        count = len(_CLUSTER.findall(word))
        if len(self) < _REMEMBERED_WORDS and len(word) <= _LONGEST_REMEMBERED:
            self[word] = count
        return count


_COUNTS = _ClusterCounts()


def count_bytes(text: str) -> int:
    """Count the UTF-8 bytes of `text`; a surrogate without its partner, which UTF-8 has no form for, counts as three.

    >>> count_bytes("घर"), count_bytes("ghar")
    (6, 4)
    """
    return len(text.encode("utf-8", "surrogatepass"))
