import math
from collections import Counter

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hindi_babylm.evaluation.ngram import Floors
from hindi_babylm.orthography import split_clusters
from hindi_babylm.tokenization.algorithms import TOKENIZERS
from hindi_babylm.tokenization.report import count_cuts, encode, tokenizer_report, unigram_bits_per_byte
from hindi_babylm.tokenization.training import train_tokenizer
from tests.test_tokenization import AWKWARD, TEXTS, trained

# Of every script, none with a space alone: a mean over words needs one. NFC, as a corpus is.
UNSEEN = [
    text for text in TEXTS[:5] + AWKWARD if text.strip() and trained("bpe").decode(trained("bpe").encode(text)) == text
]


def bytes_of(tokenizer: PreTrainedTokenizerFast, ids: list[int], text: str) -> list[int]:
    """Return how many bytes of `text` each token holds, found by the bytes that its name stands for."""
    sizes = []
    for name in tokenizer.convert_ids_to_tokens(ids):
        stands_for_bytes = type(tokenizer.backend_tokenizer.decoder).__name__ == "ByteLevel"
        is_byte = len(name) == 6 and name.startswith("<0x")
        sizes.append(len(name) if stands_for_bytes else 1 if is_byte else len(name.encode()))
    assert sum(sizes) == len(text.encode())
    return sizes


@pytest.mark.parametrize("algorithm", sorted(TOKENIZERS))
def test_each_figure_is_that_of_a_plain_count(algorithm: str) -> None:
    """Every figure of the report equals one counted from the bytes of each token."""
    tokenizer = trained(algorithm)
    tokens = boundaries = cuts = back = 0
    used: Counter[int] = Counter()
    for text in UNSEEN:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ends = np.cumsum([len(cluster.encode()) for cluster in split_clusters(text)]).tolist()
        inner = np.cumsum(bytes_of(tokenizer, ids, text)).tolist()[:-1]
        tokens, boundaries = tokens + len(ids), boundaries + len(inner)
        cuts += sum(position not in ends for position in inner)
        used.update(ids)
        back += tokenizer.decode(ids) == text
    assert tokenizer_report(tokenizer, UNSEEN) == {
        "tokens_per_word": tokens / sum(len(text.split()) for text in UNSEEN),
        "bytes_per_token": sum(len(text.encode()) for text in UNSEEN) / tokens,
        "cuts_in_aksharas": cuts / boundaries,
        "unknown": 0.0,
        "round_trip": back / len(UNSEEN),
        "vocabulary_used": len(used) / len(tokenizer.get_vocab()),
    }
    assert back == len(UNSEEN)
    assert 0 < cuts < boundaries


@pytest.mark.parametrize(
    ("text", "offsets", "cuts"),
    [
        ("क्षत्रिय", [(0, 8)], 0),
        ("क्षत्रिय", [(0, 3), (3, 7), (7, 8)], 0),
        ("क्षत्रिय", [(0, 2), (2, 8)], 1),  # between the consonants of a conjunct
        ("कि", [(0, 1), (1, 2)], 1),  # before a matra
        ("राम घर", [(0, 3), (3, 4), (4, 6)], 0),
        ("क", [(0, 1)] * 3, 2),  # three bytes of a character
        ("कख", [(0, 2)] * 6, 4),  # six bytes of two characters: one boundary lies between them
        ("कि", [(0, 2)] * 6, 5),
        ("कि", [(0, 2), (1, 2)], 1),  # the second holds the last byte of the matra
        ("", [], 0),
    ],
)
def test_cuts_by_hand(text: str, offsets: list[tuple[int, int]], cuts: int) -> None:
    """Boundaries inside of aksharas and of characters are counted, those between aksharas are not."""
    assert count_cuts(text, offsets) == cuts


def lossy_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of three words, without bytes or an end of text."""
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "राम": 1, "घर": 2, "नदी": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    lossy: PreTrainedTokenizerFast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    return lossy


def test_loss_is_measured() -> None:
    """An existing tokenizer that loses text has its unknown tokens, lost texts and unused vocabulary counted."""
    report = tokenizer_report(lossy_tokenizer(), ["राम घर", "राम वन घर", "राम"])
    assert report["unknown"] == pytest.approx(1 / 6)
    assert report["round_trip"] == pytest.approx(2 / 3)
    assert report["vocabulary_used"] == pytest.approx(3 / 4)
    assert report["tokens_per_word"] == 1
    assert unigram_bits_per_byte(lossy_tokenizer(), ["राम घर"], ["राम"]) == pytest.approx(math.log2(6 / 2) / 9)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_the_unigram_is_that_of_the_final_figures(algorithm: str) -> None:
    """Bits per byte of the unigram are those that the evaluation of a run computes from its token stores."""
    tokenizer = train_tokenizer(TEXTS[20:], algorithm=algorithm, vocab_size=600)
    eos = int(tokenizer.eos_token_id)
    tokens = np.concatenate([[*ids, eos] for ids in encode(tokenizer, TEXTS[20:])])
    floors = Floors(tokens, vocab_size=len(tokenizer), eos_token_id=eos)
    nats = floors.unigram_nll([np.asarray(ids) for ids in encode(tokenizer, TEXTS[:20])]).sum()
    size = sum(len(text.encode()) for text in TEXTS[:20])
    assert unigram_bits_per_byte(tokenizer, TEXTS[20:], TEXTS[:20]) == pytest.approx(nats / math.log(2) / size)


def test_more_texts_than_a_batch_are_encoded_in_order() -> None:
    """Texts beyond a batch come in their order, and special strings in them stay text."""
    texts = [f"राम {number} </s>" for number in range(600)]
    tokenizer = trained("bpe")
    assert list(encode(tokenizer, texts)) == [tokenizer(text)["input_ids"] for text in texts]
    assert not any(tokenizer.eos_token_id in ids for ids in encode(tokenizer, texts))
