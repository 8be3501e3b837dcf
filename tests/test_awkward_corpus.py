"""A folder of awkward inputs: nothing raises a traceback, nothing is lost silently, strict refuses each."""

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import zstandard

from hindi_babylm.corpus.assembly import build_corpus
from hindi_babylm.corpus.ledger import Ledger
from hindi_babylm.storage import UserError
from tests.conftest import hindi_sentences

HINDI = "राम ने घर में बहुत अच्छा खाना खाया और फिर वह नदी के किनारे अपने भाई के साथ चला गया ।"
MARATHI = (
    "तो माणूस घरी गेला आणि त्याने आपल्या मुलाला सांगितले की आज आपण बाजारात जाणार आहोत. ते दोघे बाजारात गेले आणि "
    "त्यांनी खूप भाजी विकत घेतली. नंतर ते घरी परत आले आणि त्यांनी जेवण केले आहे. मला हे पुस्तक खूप आवडले आहे."
)
URDU = "یہ ایک بہت اچھی کتاب ہے اور میں نے اسے کل رات پڑھا تھا جو مجھے بہت پسند آئی ہے"
KRUTI_DEV = "Hkkjr ,d egku ns'k gS vkSj ;g ,f'k;k esa fLFkr gS ;gka ds yksx cgqr vPNs gSa"


def rows(*texts: Any) -> bytes:
    """Return JSON lines of the texts."""
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode(
        "utf-8", "surrogatepass"
    )


# File -> its bytes, and the reason in the ledger: of a document that is dropped, or of a change.
AWKWARD: dict[str, tuple[bytes, str]] = {
    "broken_bytes.txt": (HINDI.encode() + b"\n\n\xe0\xa4\xff \xb0\n", "unreadable"),
    "bad_row.jsonl": (rows(HINDI + " १") + b'{"text": "cut\n', "unreadable"),
    "no_object.jsonl": (rows(HINDI + " २") + b'["a list"]\n', "unreadable"),
    "deep.jsonl": (rows(HINDI + " २२") + b"[" * 100_000 + b"\n", "unreadable"),
    "missing_column.jsonl": (rows(HINDI + " ३") + b'{"title": "x"}\n', "unreadable"),
    "number.jsonl": (rows(HINDI + " ४", 5), "unreadable"),
    "surrogate.jsonl": (rows(HINDI + " ५") + b'{"text": "half \\ud83d of a pair %s"}\n' % HINDI.encode(), "invisible"),
    "cells.csv": (f"text,id\n{HINDI} ६,1\na,b,c\n".encode(), "unreadable"),
    "blank.csv": (f"text,id\n{HINDI} ७,1\n \t ,2\n".encode(), "min_words"),
    "mojibake.jsonl": (rows((HINDI + " ८").encode().decode("latin-1")), "mojibake"),
    "kruti_dev.jsonl": (rows(HINDI + " ९", KRUTI_DEV), "legacy_font"),
    "urdu.jsonl": (rows(HINDI + " १०", URDU), "script"),
    "marathi.jsonl": (rows(HINDI + " ११", MARATHI + MARATHI), "language"),
    "html.jsonl": (rows(f"<div class='x'><p>{HINDI} १२</p><br/></div>"), "tags"),
    "duplicates.jsonl": (rows(HINDI + " १३", HINDI + " १३"), "duplicate"),
    "controls.jsonl": (rows(f"{HINDI}\x00\x07\u200b\ufeff १४"), "invisible"),
    "empty_text.jsonl": (rows(HINDI + " १५", ""), "min_words"),
}
# Taken as they are: odd to a machine, fine to a reader.
FINE: dict[str, tuple[bytes, str]] = {
    "bom.txt": (f"\ufeff{HINDI} २०".encode(), f"{HINDI} २०"),
    "utf16.txt": (f"{HINDI} २१".encode("utf-16"), f"{HINDI} २१"),
    "utf16_le.txt": (f"{HINDI} २२".encode("utf-16-le"), f"{HINDI} २२"),
    "blank_lines.txt": (f"{HINDI} २५\n\n \t \n\n".encode(), f"{HINDI} २५"),
    "windows_lines.txt": (f"{HINDI} २३\r\n{HINDI}".encode(), f"{HINDI} २३\n{HINDI}"),
    "special_tokens.jsonl": (rows(f"</s> <pad> {HINDI} <|endoftext|>"), f"</s> <pad> {HINDI} <|endoftext|>"),
    "quotes.csv": (f'text\n"{HINDI} ""उद्धरण"" \nदूसरी पंक्ति"\n'.encode(), f'{HINDI} "उद्धरण"\nदूसरी पंक्ति'),
}
# Files that say nothing that could be trusted: refused by name, with or without strict.
REFUSED: dict[str, bytes] = {
    "empty.jsonl": b"",
    "blank.txt": b" \n\t\n",
    "cut.jsonl.gz": gzip.compress(rows(*(hindi_sentences(9, seed=seed) for seed in range(200))))[:-200],
    "cut.jsonl.xz": lzma.compress(rows(*(hindi_sentences(9, seed=seed) for seed in range(200))))[:-200],
    "cut.jsonl.bz2": bz2.compress(rows(*(hindi_sentences(9, seed=seed) for seed in range(200))))[:-200],
    "cut.jsonl.zst": zstandard.compress(rows(*(hindi_sentences(9, seed=seed) for seed in range(200))))[:-200],
    "not_gzip.txt.gz": HINDI.encode(),
    "not_zstd.txt.zst": HINDI.encode(),
    "not_parquet.parquet": HINDI.encode(),
    "no_column.jsonl": b'{"title": "x"}\n',
    "open_quote.csv": f'text,id\n"{HINDI},1\nb,2\n'.encode(),
    "program.txt": b"\x7fELF\x02\x01\x01\x00\x00\x00" * 100,
}


def build(folder: Path, **settings: Any) -> tuple[Any, Ledger]:
    """Build a corpus of all files of a folder."""
    return build_corpus(sources=[{"path": str(folder)}], **settings)


@pytest.fixture
def clean_folder(tmp_path: Path) -> Path:
    """Return a folder with enough good Hindi for three splits."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "good.jsonl").write_bytes(rows(*(hindi_sentences(4, seed=seed) for seed in range(60))))
    return folder


def test_all_of_it_together_is_accounted_for(clean_folder: Path) -> None:
    """A folder of everything that can be read at all gives a corpus, and each oddity stands in the ledger."""
    for name, (data, _) in (AWKWARD | FINE).items():
        (clean_folder / name).write_bytes(data)
    (clean_folder / "long_line.jsonl").write_bytes(rows(hindi_sentences(70_000, seed=99)))
    splits, ledger = build(clean_folder, max_document_words=10_000, decontaminate=False)
    ledger.verify()
    assert {reason for _, reason in AWKWARD.values()} <= set(ledger.dropped) | set(ledger.changed)
    texts = {text for part in splits.values() for text in part["text"]}
    assert {text for _, text in FINE.values()} <= texts
    # The line of 5 MB is split, not dropped, and every word of it is there.
    long = hindi_sentences(70_000, seed=99)
    assert len(long.encode()) > 5_000_000
    assert ledger.changed["split"]["documents"] < -30
    assert max(len(text.split()) for text in texts) <= 10_000
    read = ledger.read["words"]
    lost = sum(entry["words"] for entry in [*ledger.dropped.values(), *ledger.changed.values()])
    assert sum(len(text.split()) for text in texts) == read - lost == ledger.words()


@pytest.mark.parametrize("name", AWKWARD)
def test_strict_refuses_each_alone(clean_folder: Path, name: str) -> None:
    """With strict every oddity ends the command with its reason and an example, without it the ledger has it."""
    data, reason = AWKWARD[name]
    build(clean_folder, strict=True)
    (clean_folder / name).write_bytes(data)
    _, ledger = build(clean_folder)
    assert reason in {**ledger.dropped, **ledger.changed}
    with pytest.raises(UserError) as refused:
        build(clean_folder, strict=True)
    assert f"by '{reason}'" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", FINE)
def test_strict_takes_what_is_fine(clean_folder: Path, name: str) -> None:
    """Other encodings, line ends, quotes and strings that look like special tokens are no fault."""
    data, text = FINE[name]
    (clean_folder / name).write_bytes(data)
    splits, _ = build(clean_folder, strict=True)
    assert text in {text for part in splits.values() for text in part["text"]}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_without_trust_is_refused_by_name(clean_folder: Path, name: str, strict: bool) -> None:
    """An archive cut short, an empty file, a file that is not what its name says: one line that names it."""
    (clean_folder / name).write_bytes(REFUSED[name])
    sources = [{"path": str(clean_folder / "good.jsonl")}, {"path": str(clean_folder / name)}]
    with pytest.raises(UserError) as refused:
        build_corpus(sources=sources, strict=strict)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
