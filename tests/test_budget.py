import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hindi_babylm.corpus.assembly import build_corpus
from hindi_babylm.corpus.budget import fill, ranks
from hindi_babylm.storage import UserError
from tests.test_corpus import numbered, split_ids, write


def sources_of(folder: Path, *sizes: int, **settings: Any) -> list[dict[str, Any]]:
    """Write sources of so many documents each, and return them with the settings by name: weight=(1, 3)."""
    sources = []
    for place, size in enumerate(sizes):
        rows = [{**row, "text": row["text"] + "कखगघ"[place]} for row in numbered(size, prefix=f"s{place}")]
        path = write(folder / f"{place}.jsonl", rows)
        given = {key: values[place] for key, values in settings.items() if values[place] is not None}
        sources.append({"path": str(path), "name": f"s{place}", **given})
    return sources


def amounts(splits: Any, unit: str = "words") -> Counter[str]:
    """Add up the kept words or bytes of each source, by hand."""
    total: Counter[str] = Counter()
    for part in splits.values():
        for source, text in zip(part["source"], part["text"], strict=True):
            total[source] += len(text.split()) if unit == "words" else len(text.encode())
    return total


def test_ranks_are_a_seeded_order_without_ties() -> None:
    """Ranks are distinct, the same for a seed, another order for another, and spread evenly over 64 bits."""
    names = [f"document-{number}" for number in range(4000)]
    first = ranks(names, seed=0)
    assert len(set(first.tolist())) == 4000
    assert (first == ranks(names, seed=0)).all()
    assert abs(np.corrcoef(first.astype(float), ranks(names, seed=1).astype(float))[0, 1]) < 0.1
    counts = np.histogram(first / 2.0**64, bins=10, range=(0, 1))[0]
    assert (abs(counts - 400) < 5 * 400**0.5).all()


def test_fill_takes_documents_until_the_next_would_pass() -> None:
    """A budget is filled from the front: equal to a loop that stops at the first document that does not fit."""
    draw = random.Random(0)
    for _ in range(200):
        sizes = [draw.randint(1, 9) for _ in range(draw.randint(0, 30))]
        limit = draw.randint(0, 150)
        count = total = 0
        for size in sizes:
            if total + size > limit:
                break
            count, total = count + 1, total + size
        assert fill(np.asarray(sizes, dtype=np.int64), limit) == count


@pytest.mark.parametrize("unit", ["words", "bytes"])
@pytest.mark.parametrize("weights", [(1.0, 3.0), (0.5, 0.5), (2.0, 1.0)])
def test_the_mix_is_exact_to_one_document(tmp_path: Path, weights: tuple[float, float], unit: str) -> None:
    """Each source fills its share of the budget until its next document would pass it."""
    limit = {"words": 900, "bytes": 9000}[unit]
    longest = {"words": 9, "bytes": 9 * 13 + 12}[unit]
    budget: dict[str, Any] = {f"max_{unit}": limit}
    splits, ledger = build_corpus(sources=sources_of(tmp_path, 400, 400, weight=weights), **budget)
    kept = amounts(splits, unit)
    for place, weight in enumerate(weights):
        share = limit * weight / sum(weights)
        assert share - longest < kept[f"s{place}"] <= share
    assert ledger.budget["unit"] == unit
    assert ledger.budget["used"] == sum(kept.values())
    assert ledger.budget["english_bytes"] == round(sum(amounts(splits, "bytes").values()) / 2.370)
    assert "weight" in ledger.dropped


def test_a_capped_source_takes_its_words_first(tmp_path: Path) -> None:
    """Beside weights a source with a cap gives its words, and the weights share out the rest of the budget."""
    sources = sources_of(tmp_path, 400, 400, 400, max_words=(200, None, None), weight=(None, 1.0, 1.0))
    kept = amounts(build_corpus(sources=sources, max_words=1000)[0])
    assert 191 < kept["s0"] <= 200
    rest = (1000 - kept["s0"]) / 2
    assert rest - 9 < kept["s1"] <= rest
    assert rest - 9 < kept["s2"] <= rest


def test_a_source_too_small_for_its_weight_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A share that its source cannot fill is one warning with both figures, and nothing else fills it."""
    splits, _ = build_corpus(sources=sources_of(tmp_path, 20, 400, weight=(1.0, 1.0)), max_words=1000)
    there = sum(len(row["text"].split()) for row in numbered(20))
    assert f"of s0 {there} words are left, fewer than the 500 of its weight 1" in capsys.readouterr().err
    kept = amounts(splits)
    assert kept["s0"] == there
    assert 491 < kept["s1"] <= 500


def test_a_larger_budget_keeps_every_document_and_its_split(tmp_path: Path) -> None:
    """Under weights too a larger budget only adds documents, and none changes its split."""
    sources = sources_of(tmp_path, 400, 400, weight=(1.0, 2.0))
    before: dict[str, set[str]] = {}
    for budget in (600, 900, 1500):
        now = split_ids(build_corpus(sources=sources, max_words=budget)[0])
        assert all(ids <= now[split] for split, ids in before.items())
        before = now


@pytest.mark.parametrize(
    ("settings", "limits", "message"),
    [
        ({"weight": (1.0, 2.0)}, {}, "weights share out a budget: give max_words or max_bytes"),
        ({"weight": (1.0, None)}, {"max_words": 500}, "source 's1' has no weight, but 's0' has one"),
        (
            {"weight": (1.0, None), "max_words": (None, 600)},
            {"max_words": 500},
            "the capped sources fill the budget of 500 words",
        ),
    ],
)
def test_weights_that_say_nothing_are_refused(
    tmp_path: Path, settings: dict[str, Any], limits: dict[str, Any], message: str
) -> None:
    """Weights need a budget, of every source or none, and room beside the caps."""
    with pytest.raises(UserError, match=message):
        build_corpus(sources=sources_of(tmp_path, 400, 400, **settings), **limits)
