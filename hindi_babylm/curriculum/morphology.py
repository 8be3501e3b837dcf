"""The suffixes of Hindi words, found by their endings and by what else a corpus has of their stems.

To go by endings is the idea of the light stemmer of Ramanathan and Rao (2003, "A Lightweight Stemmer for Hindi"); what
they mark is told in Kachru (2006, "Hindi"). A final vowel that shows gender and number alone (लड़का, नदी, लड़के, चला) is
not counted: it ends citation forms as often as inflected ones, and nothing short of a lexicon tells which.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

# Verbal ending -> what it marks.
VERBAL = {
    **dict.fromkeys(("ता", "ती", "ते", "तीं"), "imperfective"),
    **dict.fromkeys(("ना", "नी", "ने"), "infinitive"),
    **dict.fromkeys(("या", "यी", "ये", "यीं", "ई", "ए", "ईं"), "perfective"),  # after a vowel: आया, आई
    **dict.fromkeys(("कर",), "conjunctive"),
    **dict.fromkeys(("ओ", "ो", "इए", "िए", "इये", "िये"), "imperative"),
    **dict.fromkeys(("ऊँ", "ऊं", "ूँ", "ूं", "एँ", "एं", "ें"), "subjunctive"),
    **{
        person + future: "future"
        for person in ("ऊँ", "ऊं", "ूँ", "ूं", "ए", "े", "एँ", "एं", "ें", "ओ", "ो", "य", "ये", "यें")
        for future in ("गा", "गी", "गे")
    },
}
FUTURE = 2  # affixes: the person of the subjunctive, and -ग-
NOMINAL = {
    **dict.fromkeys(("ें", "एँ", "एं", "ियाँ", "ियां"), "plural"),
    **dict.fromkeys(("ों", "ओं", "ियों", "इयों"), "oblique plural"),
}
CITATION = {"": "bare", "ा": "masculine", "ी": "feminine", "े": "oblique", "ि": "short"}
CAUSATIVE = ("वा", "ला", "ा")  # करवा-, सुला-, पढ़ा-
# What makes a noun or an adjective of another word.
DERIVATIONAL = (
    *("ता", "त्व", "पन", "पना", "ाई", "ाहट", "ावट", "गी", "गिरी", "ीकरण", "करण", "वाद", "कार", "कारी", "कर्ता"),
    *("ीय", "िक", "ात्मक", "ित", "वान", "मान", "दार", "दारी", "हीन", "पूर्ण", "पूर्वक", "शील", "मय", "वादी", "वासी"),
)
# Frequent words that only look inflected; the corpus has what seem other forms of their stems.
WHOLE = frozenset(
    [
        *("क्यों", "कोई", "भाई", "पानी", "रानी", "नानी", "माता", "पिता", "बिना", "मानो", "छाती", "माया", "कन्या"),
        *("पत्नी", "चीनी", "धरती", "कविता", "रचना", "घटना", "नेता", "नाना", "दाना", "कोने", "हवाई", "छाया"),
    ]
)
AUXILIARIES = frozenset(
    [
        *("है", "हैं", "हूँ", "हूं", "हो", "था", "थी", "थे", "थीं", "हुआ", "हुई", "हुए", "हुये", "होता", "होती", "होते"),
        *("होगा", "होगी", "होंगे", "होंगी", "होना", "रहा", "रही", "रहे", "रहता", "रहती", "रहते", "चुका", "चुकी", "चुके"),
        *("गया", "गई", "गयी", "गए", "गये", "जाता", "जाती", "जाते", "जाना", "जाए", "जाये", "जाय", "जाएगा", "जाएगी"),
        *("सका", "सकी", "सके", "सकता", "सकती", "सकते", "सकेगा", "पाया", "पाई", "पाए", "पाता", "पाती", "पाते"),
    ]
)
LONGEST = max(map(len, VERBAL | NOMINAL))


def count_suffixes(types: Sequence[str]) -> list[int]:
    """Return how many inflectional and derivational suffixes each word form of a corpus has: one count a type.

    An ending counts where the corpus has evidence that it is one: for a verb another form of the stem with an ending of
    another kind, for a noun or adjective another form of any kind, and for a derivation the word that it is made of.

    >>> count_suffixes(["घर", "घरों", "करना", "करता", "करवाना", "करवाएँगे", "राष्ट्र", "राष्ट्रीय", "राष्ट्रीयता", "माता"])
    [0, 1, 1, 1, 2, 3, 0, 1, 2, 0]
    """
    verbal, nominal = _paradigms(types, VERBAL), _paradigms(types, NOMINAL | CITATION)
    return [_suffixes(word, verbal, nominal) for word in types]


def _paradigms(types: Iterable[str], endings: dict[str, str]) -> dict[str, set[str]]:
    """Return for each stem what its forms mark."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for word in types:
        for length in range(min(LONGEST, len(word) - 1) + 1):
            kind = endings.get(word[len(word) - length :])
            if kind is not None:
                found[word[: len(word) - length]].add(kind)
    return dict(found)


def _suffixes(word: str, verbal: dict[str, set[str]], nominal: dict[str, set[str]]) -> int:
    if word in WHOLE:
        return 0
    for length in range(min(LONGEST, len(word) - 1), 0, -1):
        stem, ending = word[:-length], word[-length:]
        if len(stem) == 1 and stem != "आ":  # a lone consonant: मे-ं, ग-या
            continue
        if ending in VERBAL and len(verbal[stem]) > 1:
            roots = [stem.removesuffix(causative) for causative in CAUSATIVE if stem.endswith(causative)]
            causatives = any(len(root) > 1 and len(verbal.get(root, ())) > 1 for root in roots)
            return (FUTURE if VERBAL[ending] == "future" else 1) + causatives
        if ending in NOMINAL and len(nominal[stem]) > 1:
            return 1 + _derivations(stem, nominal)
    return _derivations(word, nominal)


def _derivations(word: str, nominal: dict[str, set[str]]) -> int:
    """Count the derivational suffixes that end a word, one after the other."""
    for suffix in DERIVATIONAL:
        stem = word.removesuffix(suffix)
        if stem != word and len(stem) > 2 and "bare" in nominal.get(stem, ()):
            return 1 + _derivations(stem, nominal)
    return 0
