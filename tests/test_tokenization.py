import itertools
import json
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindi_babylm.orthography import normalize
from hindi_babylm.storage import UserError
from hindi_babylm.tokenization import (
    MINIMUM_VOCABULARY,
    SPECIAL_TOKENS,
    TOKENIZERS,
    load_tokenizer,
    tokenizer_report,
    train_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 900
TEXTS = [
    "राम और सीता वन में रहते थे। उनके साथ लक्ष्मण भी था।",
    "क्षत्रिय विद्यार्थी ने अर्थशास्त्र की पुस्तक पढ़ी और हिन्दी में उत्तर लिखा।",
    "लड़कियाँ नदी के किनारे बैठकर गाना गा रही थीं; पानी ठंडा था।",
    "बूढ़े किसान ने कहा, “मेरे खेत में 125 आम के पेड़ हैं।”",
    "वह पढ़ता है, तुम पढ़ते हो, हम पढ़ते हैं और वे पढ़ती हैं।",
]
_draw = random.Random(0)
# Sentences of made-up words: enough different ones to fill a vocabulary.
SYLLABLES = [consonant + vowel for consonant in "कगचजतदनपबमरलसह" for vowel in ["", "ा", "ि", "े", "ों", "्य"]]
TEXTS += [
    " ".join("".join(_draw.choices(SYLLABLES, k=_draw.randint(1, 3))) for _ in range(12)) + "।" for _ in range(80)
]
SOME_TEXTS = TEXTS[:8]
DEVANAGARI = "".join(chr(code) for code in range(0x0900, 0x0980))
AWKWARD = [
    "नमस्ते 😀👩‍👩‍👧 दुनिया 🇮🇳",
    "The quick brown fox, 3.14 % — naïve café",
    "Hello , world . Do n't stop ! Is it ? I 'm we 've",  # what a clean-up of spaces would change
    "یہ اردو ہے۔ زبان",
    "中文 русский ελληνικά 한국어",
    DEVANAGARI,
    " ".join(DEVANAGARI),
    "क्\u200dष और क्\u200cष \u0958लम",
    "दो  तीन   चार\tटैब \n\n नई\r\nपंक्ति\r \n",
    "  आगे और पीछे  ",
    "\u2028राम\u0085सीता\x0c",
    "१२३४५६७८९० 1234567890",
    "a\u0301 न\u093c",
    "",
    " ",
]
SPECIAL_STRINGS = ["</s>", "<pad>", "<unk>", "<mask>", "<0x41>", "<0x0A>"]


@pytest.fixture(scope="module")
def tokenizer() -> "PreTrainedTokenizerFast":
    """Return a small tokenizer trained on a few sentences."""
    return train_tokenizer(TEXTS, vocab_size=VOCAB_SIZE, max_length=64)


def encode(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    """Return the ids of a text as anybody would ask for them."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def decode(tokenizer: "PreTrainedTokenizerFast", ids: list[int]) -> str:
    """Return the text of ids."""
    return str(tokenizer.decode(ids))


def pieces(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[str]:
    """Return the pieces that the pre-tokenizer cuts a text into."""
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(normalize(text))]


@pytest.mark.parametrize("text", [*SOME_TEXTS, *AWKWARD, *SPECIAL_STRINGS], ids=repr)
def test_round_trip_is_lossless(tokenizer: "PreTrainedTokenizerFast", text: str) -> None:
    """Any text, of any script and with any whitespace, comes back as its NFC form."""
    assert decode(tokenizer, encode(tokenizer, text)) == normalize(text)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(DEVANAGARI + " \n1a।", max_size=30))
def test_round_trip_of_any_text(text: str) -> None:
    """Round trips hold for arbitrary Unicode."""
    tokenizer = _cached_tokenizer()
    assert decode(tokenizer, encode(tokenizer, text)) == normalize(text)


_CACHE: "list[PreTrainedTokenizerFast]" = []


def _cached_tokenizer() -> "PreTrainedTokenizerFast":
    if not _CACHE:
        _CACHE.append(train_tokenizer(TEXTS, vocab_size=VOCAB_SIZE))
    return _CACHE[0]


def test_round_trip_over_the_bundled_texts() -> None:
    """A tokenizer trained on stories brings back encyclopedia text that it never saw."""
    import lzma

    from hindi_babylm.corpus.sources import BUNDLED_CORPUS

    texts: dict[str, list[str]] = {}
    for name in ("common_voice_sentences", "hindi_wikipedia"):
        with lzma.open(BUNDLED_CORPUS / f"{name}.jsonl.xz", "rt", encoding="utf-8", newline="\n") as file:
            texts[name] = [json.loads(line)["text"] for line, _ in zip(file, range(40), strict=False)]
    trained = train_tokenizer(texts["common_voice_sentences"], vocab_size=2000)
    report = tokenizer_report(trained, texts["hindi_wikipedia"])
    assert report["round_trip"] == 1.0
    ids = [encode(trained, text) for text in texts["hindi_wikipedia"]]
    tokens = sum(map(len, ids))
    assert report["tokens_per_word"] == pytest.approx(
        tokens / sum(len(text.split()) for text in texts["hindi_wikipedia"])
    )
    assert report["bytes_per_token"] == pytest.approx(
        sum(len(text.encode()) for text in texts["hindi_wikipedia"]) / tokens
    )
    assert 1 < report["tokens_per_word"] < 3.3  # the stock byte-level split needs 3.39 whatever the vocabulary


@pytest.mark.parametrize("text", SPECIAL_STRINGS)
def test_special_strings_in_data_stay_text(tokenizer: "PreTrainedTokenizerFast", text: str) -> None:
    """A string that looks like a special token is text like any other: no special id comes out of it."""
    special = set(tokenizer.all_special_ids)
    for context in (text, f"राम {text} सीता", f"{text}{text}"):
        ids = encode(tokenizer, context)
        assert not special & set(ids)
        assert decode(tokenizer, ids) == context


def test_special_tokens_are_distinct(tokenizer: "PreTrainedTokenizerFast") -> None:
    """Padding, end, unknown and mask are four tokens of the vocabulary; encoding adds none by itself."""
    ids = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id]
    assert ids == [0, 1, 2, 3]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == list(SPECIAL_TOKENS.values())
    assert not set(ids) & set(tokenizer(TEXTS[0])["input_ids"])
    assert decode(tokenizer, [1]) == "</s>"
    assert tokenizer.decode([1, *encode(tokenizer, "राम"), 0], skip_special_tokens=True) == "राम"


@pytest.mark.parametrize("size", [512, 700, VOCAB_SIZE])
def test_vocabulary_size_is_exact(size: int) -> None:
    """The vocabulary has as many tokens as asked for, bytes and special tokens included, with ids without a gap."""
    trained = train_tokenizer(TEXTS, vocab_size=size)
    assert len(trained) == trained.vocab_size == size
    assert sorted(trained.get_vocab().values()) == list(range(size))


def test_every_byte_is_in_the_vocabulary(tokenizer: "PreTrainedTokenizerFast") -> None:
    """All 256 bytes have a token of their own, so that nothing is unknown."""
    vocabulary = tokenizer.get_vocab()
    assert all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    for text in [*AWKWARD, "\U0010ffff\x00"]:
        assert tokenizer.unk_token_id not in encode(tokenizer, text)


def test_a_character_of_the_training_text_is_never_cut(tokenizer: "PreTrainedTokenizerFast") -> None:
    """Every token but the bytes is whole characters, and known characters need no bytes."""
    vocabulary = tokenizer.get_vocab()
    bytes_ = {f"<0x{byte:02X}>" for byte in range(256)}
    seen = set("".join(TEXTS))
    for token in set(vocabulary) - bytes_ - set(SPECIAL_TOKENS.values()):
        assert token.encode("utf-8").decode("utf-8") == token
        assert set(token) <= seen, token  # plain characters: no stand-ins for bytes
    for text in TEXTS:
        assert not bytes_ & set(tokenizer.convert_ids_to_tokens(encode(tokenizer, text)))
        joined = "".join(tokenizer.convert_ids_to_tokens(encode(tokenizer, text)))
        assert joined == normalize(text)


def test_training_is_deterministic_and_hangs_on_its_texts_alone() -> None:
    """The same texts give the same tokenizer to the byte; what it learned comes from these texts only."""
    first, second = (train_tokenizer(TEXTS, vocab_size=VOCAB_SIZE) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    other = train_tokenizer([text.replace("सीता", "मीरा") for text in TEXTS], vocab_size=VOCAB_SIZE)
    assert any("सीत" in token for token in first.get_vocab())
    assert not any("सीत" in token for token in other.get_vocab())
    consumed = train_tokenizer(iter(TEXTS), vocab_size=VOCAB_SIZE)  # a generator is read once and whole
    assert consumed.backend_tokenizer.to_str() == first.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    "word", ["हिंदी", "क्षत्रिय", "राष्ट्रपति", "क्\u200dष", "श्री\u200cमान", "पढ़ी", "ज़रूर", "ॐ", "दुःख", "लड़कियाँ"]
)
def test_the_pre_tokenizer_keeps_a_word_with_its_marks(tokenizer: "PreTrainedTokenizerFast", word: str) -> None:
    """Matras, viramas, nuktas and joiners stay with their word; the space before it too."""
    assert pieces(tokenizer, word) == [normalize(word)]
    assert pieces(tokenizer, f"यह {word} है।") == ["यह", f" {normalize(word)}", " है", "।"]


def test_no_mark_begins_a_piece_and_pieces_lose_nothing(tokenizer: "PreTrainedTokenizerFast") -> None:
    """The pieces of any text join to it, and none begins with a mark that belongs to the letter before."""
    for text in [*SOME_TEXTS, *AWKWARD]:
        found = pieces(tokenizer, text)
        assert "".join(found) == normalize(text)
        for before, piece in itertools.pairwise(found):
            if before[-1].isalpha() or unicodedata.category(before[-1]).startswith("M"):
                assert not unicodedata.category(piece[0]).startswith("M"), (before, piece)


def test_digits_go_by_three(tokenizer: "PreTrainedTokenizerFast") -> None:
    """A number is cut into groups of at most three digits, European or Devanagari."""
    assert pieces(tokenizer, "1234567 १२३४") == ["123", "456", "7", " १२३", "४"]


def test_nothing_deletes_marks(tokenizer: "PreTrainedTokenizerFast") -> None:
    """The only normaliser is NFC: no accent stripping, no case folding, no compatibility forms."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    assert state["normalizer"] == {"type": "NFC"}
    post_processor = state["post_processor"]
    assert post_processor is None or post_processor["special_tokens"] == {}  # it adds no token
    for text in ("हिन्दी में", "É ﬁ ①", DEVANAGARI):
        assert tokenizer.backend_tokenizer.normalizer.normalize_str(text) == unicodedata.normalize("NFC", text)


def test_reloading_gives_the_same_ids(tokenizer: "PreTrainedTokenizerFast", tmp_path: Path) -> None:
    """A saved tokenizer opens with AutoTokenizer to the same ids and special tokens, here and without the package."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    texts = [*SOME_TEXTS, *AWKWARD, *SPECIAL_STRINGS]
    expected = [encode(tokenizer, text) for text in texts]
    reloaded: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert [encode(reloaded, text) for text in texts] == expected
    assert [decode(reloaded, ids) for ids in expected] == [normalize(text) for text in texts]
    assert reloaded.model_max_length == 64
    assert len(reloaded) == VOCAB_SIZE
    for name, token in SPECIAL_TOKENS.items():
        assert getattr(reloaded, name) == token

    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    code = (
        "import json, sys\n"
        "from transformers import AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained('.')\n"
        "texts = json.load(open('texts.json'))\n"
        "ids = [tokenizer(text, add_special_tokens=False)['input_ids'] for text in texts]\n"
        "assert not any(name.startswith('hindi_babylm') for name in sys.modules)\n"
        "print(json.dumps([ids, [tokenizer.decode(i) for i in ids]]))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    ids, decoded = json.loads(done.stdout)
    assert ids == expected
    assert decoded == [normalize(text) for text in texts]


def test_load_tokenizer_opens_a_folder(tokenizer: "PreTrainedTokenizerFast", tmp_path: Path) -> None:
    """An existing tokenizer opens from its folder."""
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert encode(loaded, TEXTS[0]) == encode(tokenizer, TEXTS[0])


@pytest.mark.parametrize("name", ["missing/folder/at-all", "nobody/nothing"])
def test_a_missing_tokenizer_is_refused_in_one_line(name: str) -> None:
    """A tokenizer that is not there is refused in one line that names it."""
    with pytest.raises(UserError) as caught:
        load_tokenizer(name)
    assert str(caught.value).startswith(f"tokenizer: cannot open {name!r}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_a_tokenizer_is_refused_with_the_whole_reason(tmp_path: Path) -> None:
    """The lines of the loader's reason are joined, and nothing is said of the name that is not so."""
    with pytest.raises(UserError, match=r"the backend tokenizer from one of: \(1\) a .*; name the folder") as caught:
        load_tokenizer(str(tmp_path))
    assert "neither" not in str(caught.value)


def test_an_error_without_text_is_told_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader's error without text is told by its type."""
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", MagicMock(side_effect=AssertionError))
    with pytest.raises(UserError, match="cannot open 'x': AssertionError; name"):
        load_tokenizer("x")


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    """A vocabulary below the minimum is refused by name and number."""
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size must be 512 or more, got 511"):
        train_tokenizer(TEXTS, vocab_size=MINIMUM_VOCABULARY - 1)


@pytest.mark.parametrize("algorithm", sorted(TOKENIZERS))
def test_every_algorithm_is_lossless_with_the_same_special_tokens(algorithm: str) -> None:
    """Each algorithm of the registry is lossless, has the four special tokens, and keeps special strings text."""
    trained = train_tokenizer(TEXTS, algorithm=algorithm, vocab_size=700)
    for text in [*SOME_TEXTS, *AWKWARD, *SPECIAL_STRINGS]:
        ids = encode(trained, text)
        assert decode(trained, ids) == normalize(text)
        assert not set(trained.all_special_ids) & set(ids)
    assert {name: getattr(trained, name) for name in SPECIAL_TOKENS} == SPECIAL_TOKENS


def test_texts_with_too_little_for_the_vocabulary() -> None:
    """A text that cannot fill the vocabulary gives a smaller one, whose size its length tells."""
    trained = train_tokenizer(["राम"], vocab_size=2000)
    assert len(trained) < 2000
    assert max(trained.get_vocab().values()) == len(trained) - 1
