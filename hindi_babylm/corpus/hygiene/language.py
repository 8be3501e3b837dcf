"""Documents that are not Hindi: another script, or Marathi, Nepali or Sanskrit in the same one."""

import functools
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Measured, see docs/decisions.md.
LEAST_DEVANAGARI = 0.3
# Shorter documents are too short to tell, and are kept.
FEWEST_WORDS = 50
LEAST_HINDI, LEAST_OTHER = 0.05, 0.08
_SAMPLE = 1_000  # characters looked at in the beginning, the middle and the end of a document

_WORD = re.compile("[\u0900-\u0963\u0971-\u097f]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The most frequent words of Hindi that Marathi, Nepali and Sanskrit do not have: a fifth of a Hindi text or more.
_HINDI = _words(
    "के और है में से हैं ने नहीं था थे थी वह यह मैं लिए हूँ हूं कि भी ही अपने गया किया इस उस उसके क्या कुछ जब तुम हम कर करने को की का"
)
# The same of the others, less the words that occur in Hindi or in its dialects and verse (ते, तर, मी, पण, वा, मा, जे).
_MARATHI = _words(
    "आणि आहे आहेत नाही नाहीत होते होता होती तेव्हा त्यास त्याने आपल्या असे तुम्ही त्या त्यांना मला तुला "
    "म्हणाला म्हणून म्हणजे त्याच्या तिच्या त्यांनी त्यांच्या माझ्या तुझ्या काय करून आम्ही किंवा कोणी "
    "त्याचा त्याची त्याचे असा असून झाला झाली झाले होऊन येथे मात्र हे ह्या सर्व केले केली"
)
_NEPALI = _words(
    "पनि छ छन् छैन थियो थिए थिइन् भएको भएका भयो गर्ने गर्न गर्नु गरेको गरे गरी नै आफ्नो आफ्ना त्यो हुन्छ "
    "हुने रहेको रहेका लागि भन्ने भने भनी भनेर मेरो तिमी उनी उनले मलाई गर्दै गएको अनि पछि र"
)
_SANSKRIT = _words(
    "च इति अपि तत् सः एव मम किम् तस्य अथ अहम् अहं एवम् अस्ति ततः तत्र मया तम् तेन आसीत् कथम् एतत् इव यः "
    "इदम् यत् अयम् भवति सन्ति तदा यदा त्वं वयं एषः एषा अत्र कश्चन"
)
_MARATHI_ENDING = re.compile("(?:च्या|ांनी|ांना|ण्यास|ण्याचा|ण्याची|ण्याचे|मध्ये|साठी|ाला|ाचे|ाचा|ाची)$")
_NEPALI_ENDING = re.compile("(?:हरू|हरु|हरूको|हरूले|लाई|बाट|न्छ|न्छन्|एको|एका|नेछ)$")
_SANSKRIT_ENDING = re.compile("(?:ः|म्|त्|न्|स्य|ेषु|न्ति|ोः|ाणि)$")
_OTHERS = ((_MARATHI, _MARATHI_ENDING), (_NEPALI, _NEPALI_ENDING), (_SANSKRIT, _SANSKRIT_ENDING))


def script(text: str) -> str | None:
    """Refuse a text of whose letters and marks less than `LEAST_DEVANAGARI` are Devanagari, or that has none."""
    import numpy as np

    codes = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    _, devanagari, other = np.bincount(_kinds()[codes], minlength=3)
    return text if devanagari and devanagari >= LEAST_DEVANAGARI * (devanagari + other) else None


@functools.cache
def _kinds() -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """Return a table `(65536,)` by code point: 1 Devanagari letter or mark, 2 another one, 0 anything else."""
    import numpy as np

    letters = [
        unicodedata.category(chr(code))[0] in "LM" and not 0xFE00 <= code <= 0xFE0F  # not the variants of emoji
        for code in range(0x10000)
    ]
    kinds = np.array(letters, dtype=np.uint8) * np.uint8(2)
    for start, stop in ((0x0900, 0x0980), (0xA8E0, 0xA900)):
        kinds[start:stop] = np.minimum(kinds[start:stop], 1)
    return kinds


def language(text: str) -> str | None:
    """Refuse a text of 50 words or more in Marathi, Nepali or Sanskrit: few words of Hindi, many of the other.

    Dialects and verse have neither, so they are kept; so is a text of which one sample in three is Hindi.
    """
    middle = len(text) // 2
    starts = (0, middle, len(text) - _SAMPLE) if len(text) > _SAMPLE else (0,)
    found: list[str] = []
    for start in starts:
        words = _WORD.findall(text, start, start + _SAMPLE)
        if sum(map(_HINDI.__contains__, words)) >= LEAST_HINDI * len(words):
            return text
        found += words
    other = max(sum(word in known or ending.search(word) is not None for word in found) for known, ending in _OTHERS)
    return None if len(found) >= FEWEST_WORDS and other >= LEAST_OTHER * len(found) else text
