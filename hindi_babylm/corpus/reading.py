"""Files -> rows: text, JSON lines, CSV, TSV and parquet, plain or compressed, in bounded memory."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from hindi_babylm.corpus.decoding import decode_lines
from hindi_babylm.storage import UserError

# A column that a reader adds to a row that cannot be used: why, with its line. Such a row is dropped and counted.
FAULT = "unreadable"
Row = dict[str, Any]
Reader = Callable[[BinaryIO, Mapping[str, Any]], Iterable[Row]]


def read_rows(file: str, source: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of a file whose name says format and compression: its columns, and `FAULT` where one is unusable.

    Raises UserError, naming the file, when it is no file of its format, cut short or empty.
    """
    path = Path(file)
    reader = FORMATS[format_of(path.name)]
    with ExitStack() as files:
        try:
            stream: Any = files.enter_context(open(path, "rb"))
            if path.suffix in COMPRESSIONS:
                stream = files.enter_context(COMPRESSIONS[path.suffix](stream))
            empty = True
            for row in reader(stream, source):
                empty = False
                yield row
        except UserError as error:
            raise UserError(f"corpus: cannot read {file!r}: {error}; mend it or leave it out") from error
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, csv.Error) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(". ")
            raise UserError(
                f"corpus: cannot read {file!r}: {reason}; is it there, and whole? mend it or leave it out"
            ) from error
        if empty:
            raise UserError(f"corpus: {file!r} is empty; mend it or leave it out")


def format_of(name: str) -> str:
    """Return the suffix that says how to read a file, compression taken off; raise UserError when it is not ours.

    >>> format_of("kahani.jsonl.xz")
    '.jsonl'
    """
    path = Path(name)
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    if suffix not in FORMATS:
        raise UserError(
            f"corpus: cannot read {name!r}: its name must end in one of {' '.join(FORMATS)}, "
            f"optionally followed by {' '.join(COMPRESSIONS)}"
        )
    return suffix


def read_text(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row]:
    """Cut a text file into documents at blank lines, or by `sample_by` at every line, or not at all."""
    unit = source.get("sample_by", "paragraph")
    lines: list[str] = []
    for line, fault in decode_lines(stream):
        if fault is not None:
            yield {"text": line, FAULT: fault}
        elif unit == "document" or (unit == "paragraph" and line.strip()):
            lines.append(line)
        elif unit == "line" and line.strip():
            yield {"text": line}
        elif lines:
            yield {"text": "\n".join(lines)}
            lines = []
    if any(map(str.strip, lines)):
        yield {"text": "\n".join(lines)}


def read_json_lines(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row]:
    """Read one JSON object from each line."""
    for number, (line, fault) in enumerate(decode_lines(stream), 1):
        if fault is None and not line.strip():
            continue
        row: Any = None
        try:
            row = json.loads(line)
            if fault is None and not isinstance(row, dict):
                fault = f"line {number}: no JSON object"
        except ValueError as error:
            fault = fault or f"line {number}: no JSON: {error}"
        except RecursionError:
            fault = f"line {number}: JSON nested too deep"
        yield row if fault is None else {"text": line, FAULT: fault}


def read_csv(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row]:
    """Read comma-separated values (RFC 4180) with a header; a field in quotes may hold line ends."""
    return _read_table(stream, delimiter=",")


def read_tsv(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row]:
    """Read tab-separated values with a header; a field in quotes may hold line ends and tabs."""
    return _read_table(stream, delimiter="\t")


def read_parquet(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row]:
    """Read parquet; a file that is compressed as a whole is read into memory, for the format begins at its end."""
    import pyarrow.parquet

    # `datasets` writes and reads the same way; the hub's datasets are such files.
    plain = isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO)
    whole = stream if plain else io.BytesIO(stream.read())
    for batch in pyarrow.parquet.ParquetFile(whole).iter_batches(batch_size=256):
        yield from batch.to_pylist()


def _read_table(stream: BinaryIO, *, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a document may be longer than the 128 KB of the default
    faults: list[str] = []

    def lines() -> Iterator[str]:
        for line, fault in decode_lines(stream):
            faults.extend([fault] if fault is not None else [])
            yield f"{line}\n"

    # Strict: a quote that is never closed would swallow the rows after it.
    table = csv.reader(lines(), delimiter=delimiter, strict=True)
    header = next(table, None)
    for cells in table:
        if not cells:
            continue
        if len(cells) != len(header or ()):
            faults.append(f"line {table.line_num}: {len(cells)} cells, but {len(header or ())} columns")
        if faults:
            yield {"text": delimiter.join(cells), FAULT: faults[0]}
            faults.clear()
        else:
            yield dict(zip(header or (), cells, strict=True))


class _ZstdFile(io.RawIOBase):
    """The bytes of a file in zstd; unlike `zstandard.open` it tells the end of the data from a file cut short."""

    def __init__(self, stream: BinaryIO) -> None:
        import zstandard

        self._stream, self._decompressor = stream, zstandard.ZstdDecompressor()
        self._frame: Any = None
        self._decoded = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoded:
            compressed = (self._frame.unused_data if self._frame and self._frame.eof else b"") or self._stream.read(
                2**16
            )
            if not compressed:
                if self._frame and not self._frame.eof:
                    raise EOFError("the compressed data end in the middle")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            try:
                self._decoded = memoryview(self._frame.decompress(compressed))
            except Exception as error:  # zstandard.ZstdError, of a package that is imported only where it is needed
                raise OSError(f"no zstd data: {error}") from error
        size = min(len(buffer), len(self._decoded))
        buffer[:size], self._decoded = self._decoded[:size], self._decoded[size:]
        return size


# Suffix of a file -> what reads its rows; a suffix of `COMPRESSIONS` may follow.
FORMATS: dict[str, Reader] = {
    ".txt": read_text,
    ".jsonl": read_json_lines,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
COMPRESSIONS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": lambda stream: io.BufferedReader(_ZstdFile(stream)),
    ".bz2": bz2.open,
}
