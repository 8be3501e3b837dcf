"""The ledger of every document, word and byte that came in: kept, changed, or dropped and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

EXAMPLES_PER_REASON = 3
EXCERPT = 80  # characters
SOURCES_SHOWN = 20
BYTE_PREMIUM = 2.370  # UTF-8 bytes of Hindi for a byte of English that says the same (Arnett et al. 2024)
UNITS = ("documents", "words", "bytes")


@dataclass
class Ledger:
    """Account for every document, word and byte that came in.

    `read` counts the text as it was decoded, `dropped` the documents that were left out by reason, `changed` what
    was taken from documents that stay by reason (negative where something was added: a split adds documents), and
    `kept` what each split holds of each source: read = dropped + changed + kept in every unit. `build_corpus`
    returns a filled one.

    >>> ledger = Ledger(read={"documents": 1, "words": 4, "bytes": 30})
    >>> ledger.kept = {"train": {"kahani.txt": {"documents": 1, "words": 4, "bytes": 30, "aksharas": 7}}}
    >>> ledger.verify()
    >>> ledger.words("train")
    4
    """

    read: dict[str, int] = field(default_factory=lambda: dict.fromkeys(UNITS, 0))
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)

    def read_in(self, *, words: int, size: int) -> None:
        """Book a document of `words` and `size` bytes as read."""
        for unit, amount in zip(UNITS, (1, words, size), strict=True):
            self.read[unit] += amount

    def drop(self, reason: str, *, words: int, size: int, document_id: str, text: str) -> None:
        """Book a document as dropped for `reason`; the beginnings of the first three are kept as examples."""
        entry = self.dropped.setdefault(reason, _entry())
        _add(entry, (1, words, size), document_id, text)

    def change(
        self, reason: str, *, words: int, size: int, document_id: str, text: str, new_documents: int = 0
    ) -> None:
        """Book `words` and `size` bytes that `reason` took from a document that stays, and the documents it became."""
        entry = self.changed.setdefault(reason, {"touched": 0, **_entry()})
        entry["touched"] += 1
        _add(entry, (-new_documents, words, size), document_id, text)

    def keep(self, split: str, sources: Iterable[str], amounts: Mapping[str, Iterable[int]]) -> None:
        """Book documents as kept in `split`: the source of each, and its words, bytes and aksharas."""
        for source, *sizes in zip(sources, *amounts.values(), strict=True):
            entry = self.kept.setdefault(split, {}).setdefault(source, {"documents": 0, **dict.fromkeys(amounts, 0)})
            entry["documents"] += 1
            for unit, amount in zip(amounts, sizes, strict=True):
                entry[unit] += int(amount)

    def add_tokens(self, split: str, sources: Sequence[str], lengths: Iterable[int]) -> None:
        """Book the tokens of each document of `split`, its EOS included."""
        for source, length in zip(sources, lengths, strict=True):
            entry = self.kept[split][source]
            entry["tokens"] = entry.get("tokens", 0) + int(length)

    def merge(self, other: "Ledger") -> None:
        """Add what another ledger has read, changed and dropped, its examples after one's own."""
        for unit, amount in other.read.items():
            self.read[unit] += amount
        for mine, theirs in ((self.dropped, other.dropped), (self.changed, other.changed)):
            for reason, entry in theirs.items():
                own = mine.setdefault(reason, {**dict.fromkeys(entry, 0), "examples": []})
                for key, value in entry.items():
                    own[key] += value
                del own["examples"][EXAMPLES_PER_REASON:]

    def words(self, split: str | None = None) -> int:
        """Return the words kept in `split`, or in all splits."""
        splits = [split] if split else list(self.kept)
        return sum(entry["words"] for name in splits for entry in self.kept.get(name, {}).values())

    def verify(self) -> None:
        """Raise AssertionError unless kept, changed and dropped add up to what was read."""
        for unit, amount in self.read.items():
            kept = sum(entry[unit] for sources in self.kept.values() for entry in sources.values())
            dropped = sum(entry[unit] for entry in self.dropped.values())
            changed = sum(entry[unit] for entry in self.changed.values())
            if kept + changed + dropped != amount:
                raise AssertionError(
                    f"ledger: {amount} {unit} read, but {kept} kept + {changed} changed + {dropped} dropped"
                )

    def as_dict(self) -> dict[str, Any]:
        """Return the ledger as it stands in `corpus.json`."""
        return {
            "format": 1,
            "read": self.read,
            "dropped": self.dropped,
            "changed": self.changed,
            "kept": self.kept,
            "budget": self.budget,
        }

    def lines(self) -> list[str]:
        """Return the ledger as lines for a person: kept by source and split, changed and dropped by reason."""
        splits = list(self.kept)
        sources = sorted({source for entries in self.kept.values() for source in entries})
        rows = [["words kept", "documents", *splits]]
        for source in sources[:SOURCES_SHOWN]:
            entries = [self.kept[split].get(source, {"documents": 0, "words": 0}) for split in splits]
            documents = sum(entry["documents"] for entry in entries)
            rows.append([_short(source), f"{documents:,}", *(f"{entry['words']:,}" for entry in entries)])
        if more := sources[SOURCES_SHOWN:]:
            rows.append([f"and {len(more):,} more sources", "", *([""] * len(splits))])
        documents = sum(entry["documents"] for entries in self.kept.values() for entry in entries.values())
        rows.append(["all", f"{documents:,}", *(f"{self.words(split):,}" for split in splits)])
        removed = [
            [_short(reason), f"{entry['touched']:,}", f"{entry['words']:,}"] for reason, entry in self.changed.items()
        ]
        dropped = [
            [_short(reason), f"{entry['documents']:,}", f"{entry['words']:,}"] for reason, entry in self.dropped.items()
        ]
        lines = _aligned(rows)
        if removed:
            lines += _aligned([["changed by", "documents", "words less"], *removed])
        if dropped:
            lines += _aligned([["dropped as", "documents", "words"], *dropped])
        return lines


def _entry() -> dict[str, Any]:
    return {**dict.fromkeys(UNITS, 0), "examples": []}


def _add(entry: dict[str, Any], amounts: Sequence[int], document_id: str, text: str) -> None:
    for unit, amount in zip(UNITS, amounts, strict=True):
        entry[unit] += amount
    if len(entry["examples"]) < EXAMPLES_PER_REASON:
        shown = text[:EXCERPT].encode("utf-8", "backslashreplace").decode("utf-8")  # half of a surrogate pair
        entry["examples"].append({"document_id": document_id, "text": shown})


def _short(name: str, width: int = 27) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(max(widths[0], 27)),
                *(cell.rjust(max(w, 10)) for cell, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
