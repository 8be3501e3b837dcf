"""The ledger of every document, word and byte that came in: kept, or dropped and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

EXAMPLES_PER_REASON = 3


@dataclass
class Ledger:
    """Account for every document, word and byte that came in.

    Figures are taken after NFC and stripping, so that read = kept + dropped holds to the byte. `build_corpus` returns
    a filled one.

    >>> ledger = Ledger(read={"documents": 1, "words": 4, "bytes": 30})
    >>> ledger.kept = {"train": {"kahani.txt": {"documents": 1, "words": 4, "bytes": 30, "aksharas": 7}}}
    >>> ledger.verify()
    >>> ledger.words("train")
    4
    """

    read: dict[str, int] = field(default_factory=lambda: _zero())
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)

    def drop(self, reason: str, documents: "Dataset") -> None:
        """Book `documents` as dropped for `reason`, with the beginnings of the first three."""
        if not len(documents):
            return
        entry = self.dropped.setdefault(reason, {**_zero(), "examples": []})
        for unit, amount in measure(documents).items():
            entry[unit] += amount
        room = EXAMPLES_PER_REASON - len(entry["examples"])
        entry["examples"] += [
            {"document_id": row["document_id"], "text": row["text"][:80]}
            for row in documents.select(range(min(room, len(documents))))
        ]

    def keep(self, split: str, documents: "Dataset") -> None:
        """Book `documents` as kept in `split`, source by source."""
        columns = documents.select_columns(["source", "words", "bytes", "aksharas"])
        for row in columns:
            entry = self.kept.setdefault(split, {}).setdefault(row["source"], {**_zero(), "aksharas": 0})
            entry["documents"] += 1
            for unit in ("words", "bytes", "aksharas"):
                entry[unit] += row[unit]

    def add_tokens(self, split: str, sources: Sequence[str], lengths: Iterable[int]) -> None:
        """Book the tokens of each document of `split`, its EOS included."""
        for source, length in zip(sources, lengths, strict=True):
            entry = self.kept[split][source]
            entry["tokens"] = entry.get("tokens", 0) + int(length)

    def words(self, split: str | None = None) -> int:
        """Return the words kept in `split`, or in all splits."""
        splits = [split] if split else list(self.kept)
        return sum(entry["words"] for name in splits for entry in self.kept.get(name, {}).values())

    def verify(self) -> None:
        """Raise AssertionError unless kept and dropped add up to what was read."""
        for unit, amount in self.read.items():
            kept = sum(entry[unit] for sources in self.kept.values() for entry in sources.values())
            dropped = sum(entry[unit] for entry in self.dropped.values())
            if kept + dropped != amount:
                raise AssertionError(f"ledger: {amount} {unit} read, but {kept} kept + {dropped} dropped")

    def as_dict(self) -> dict[str, Any]:
        """Return the ledger as it stands in `corpus.json`."""
        return {
            "format": 1,
            "read": self.read,
            "dropped": self.dropped,
            "kept": self.kept,
            "budget": self.budget,
        }


def measure(documents: "Dataset") -> dict[str, int]:
    """Return the documents, words and bytes of a table."""
    return {"documents": len(documents), "words": sum(documents["words"]), "bytes": sum(documents["bytes"])}


def _zero() -> dict[str, int]:
    return {"documents": 0, "words": 0, "bytes": 0}
