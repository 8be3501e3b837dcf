"""The rows of a task: a TSV file, in quotes or without, or a table of the hub."""

import csv
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import regex

from hindi_babylm.storage import UserError, first_line

# What a writer that quotes only where it must leaves of a field with quotation marks: each stands twice inside.
_QUOTED = regex.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')


class HubTable(NamedTuple):
    """A table of the hub, or of a local folder that is laid out like one."""

    hub_id: str
    config: str
    split: str = "train"

    def __str__(self) -> str:
        return f"{self.hub_id} ({self.config})"


def read_table(place: Path | HubTable, *, columns: Collection[str]) -> list[dict[str, str]]:
    """Return the rows of a table that must have `columns`.

    Raises UserError for a file that cannot be read or is no such table, and for a hub that is out of reach.

    >>> _ = Path("pairs.tsv").write_text('sen\\twrong_sen\\nवे "घर" गए\\tवे "घर" गया\\n', encoding="utf-8")
    >>> read_table(Path("pairs.tsv"), columns=["sen", "wrong_sen"])
    [{'sen': 'वे "घर" गए', 'wrong_sen': 'वे "घर" गया'}]
    """
    rows = _read_hub(place) if isinstance(place, HubTable) else _read_tsv(place)
    if not rows:
        raise UserError(f"evaluation: {place} has no row")
    missing = sorted(set(columns) - set(rows[0]))
    if missing:
        raise UserError(f"evaluation: {place} lacks the columns {', '.join(missing)}; it has {', '.join(rows[0])}")
    for number, row in enumerate(rows, start=1):
        empty = [column for column in columns if not (row[column] or "").strip()]
        if empty:
            raise UserError(f"evaluation: {place}: row {number} has nothing in {', '.join(empty)}")
    return rows


def is_quoted(lines: Collection[str]) -> bool:
    """Tell whether tab-separated `lines` have fields in quotes, or quotation marks that are text.

    They are in quotes when each field with a quotation mark has one at both ends and two for each inside, or when
    every field has one at both ends. What is read otherwise would have marks that are not in the text, or lack some.

    >>> is_quoted(['a\\tb', '"वह ""घर"" गया"\\tराम']), is_quoted(['a\\tb', 'वह "घर" गया\\t"राम"'])
    (True, False)
    """
    fields = [field for line in lines for field in line.split("\t")]
    marked = [field for field in fields if '"' in field]
    everywhere = all(len(field) > 1 and field[0] == field[-1] == '"' for field in fields)
    return bool(marked) and (everywhere or all(_QUOTED.fullmatch(field) for field in marked))


def _read_tsv(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"evaluation: cannot read {path}: {reason}") from error
    lines = [line for line in text.split("\n") if line]
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    quoted = is_quoted(lines)
    rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE))
    for number, cells in enumerate(rows, start=1):
        if len(cells) != len(rows[0]):
            raise UserError(f"evaluation: {path}: line {number} has {len(cells)} fields, the header {len(rows[0])}")
    return [dict(zip(rows[0], cells, strict=True)) for cells in rows[1:]]


def _read_hub(place: HubTable) -> list[dict[str, str]]:
    import datasets

    # The cache of `datasets` takes local folders of one name for one dataset, whatever lies in them.
    anew: Any = {"download_mode": "force_redownload"} if Path(place.hub_id).is_dir() else {}
    try:
        return list(datasets.load_dataset(place.hub_id, place.config, split=place.split, **anew))
    except Exception as error:  # every builder raises its own types: all are told, none is swallowed
        raise UserError(
            f"evaluation: cannot read {place} from the hub: {type(error).__name__}: "
            f"{first_line(error)[:200].rstrip('. ')}; check the connection, or give the path of a TSV of the same "
            "columns"
        ) from error
