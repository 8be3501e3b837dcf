"""Files -> rows: text, JSON lines, CSV, TSV and parquet, plain or compressed, in bounded memory."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hindi_babylm.corpus.decoding import decode_lines
from hindi_babylm.storage import UserError

Row = Mapping[str, Any]


class Fault(NamedTuple):
    """A row that cannot be used: its text as far as there is one, and why, with its line. It is dropped and counted."""

    text: str
    why: str


Reader = Callable[[BinaryIO, Mapping[str, Any]], Iterable[Row | Fault]]


def read_rows(file: str, source: Mapping[str, Any]) -> Iterator[Row | Fault]:
    """Yield the rows of a file whose name says format and compression, and a `Fault` for each that is unusable.

    Raises UserError, naming the file, when it is no file of its format, cut short or empty.
    """
    path = Path(file)
    reader, compression = FORMATS[format_of(path.name)], path.suffix.lower()
    with ExitStack() as files:
        try:
            stream: Any = files.enter_context(open(path, "rb"))
            if compression in COMPRESSIONS:
                stream = files.enter_context(COMPRESSIONS[compression](stream))
            empty = True
            for row in reader(stream, source):
                empty = False
                yield row
        except UserError as error:
            raise UserError(f"corpus: cannot read {file!r}: {error}; mend it or leave it out") from error
        except (OSError, EOFError, ValueError, OverflowError, RuntimeError, zlib.error, csv.Error) as error:
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
    path = Path(name.lower())
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    if suffix not in FORMATS:
        raise UserError(
            f"corpus: cannot read {name!r}: its name must end in one of {' '.join(FORMATS)}, "
            f"optionally followed by {' '.join(COMPRESSIONS)}"
        )
    return suffix


def read_text(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row | Fault]:
    """Cut a text file into documents at blank lines, or by `sample_by` at every line, or not at all."""
    unit, column = source.get("sample_by", "paragraph"), source.get("text_column", "text")
    lines: list[str] = []
    for line, fault in decode_lines(stream):
        if fault is not None:
            yield Fault(line, fault)
        elif unit == "document" or (unit == "paragraph" and line.strip()):
            lines.append(line)
        elif unit == "line" and line.strip():
            yield {column: line}
        elif lines:
            yield {column: "\n".join(lines)}
            lines = []
    if any(map(str.strip, lines)):
        yield {column: "\n".join(lines)}


def read_json_lines(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row | Fault]:
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
        yield row if fault is None else Fault(line, fault)


def read_csv(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row | Fault]:
    """Read comma-separated values (RFC 4180) with a header; a field in quotes may hold line ends."""
    return _read_table(stream, delimiter=",")


def read_tsv(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row | Fault]:
    """Read tab-separated values with a header; a field in quotes may hold line ends and tabs."""
    return _read_table(stream, delimiter="\t")


def read_parquet(stream: BinaryIO, source: Mapping[str, Any]) -> Iterator[Row | Fault]:
    """Read parquet; a file that is compressed as a whole is read into memory, for the format begins at its end."""
    import pyarrow.parquet

    plain = isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO)
    file = pyarrow.parquet.ParquetFile(stream if plain else io.BytesIO(stream.read()))
    names = file.schema_arrow.names
    _check_header(names)
    # The other columns may be large, and of types that Python has no value for.
    wanted = {source.get("text_column", "text"), "id", "work", "source"}
    columns = [name for name in names if name in wanted] if source.get("text_column", "text") in names else names
    for batch in file.iter_batches(batch_size=256, columns=columns):
        yield from batch.to_pylist()


def _check_header(names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UserError(f"the column {twice[0]!r} stands twice in it")


def _read_table(stream: BinaryIO, *, delimiter: str) -> Iterator[Row | Fault]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a document may be longer than the 128 KB of the default
    faults: list[str] = []

    def lines() -> Iterator[str]:
        for line, fault in decode_lines(stream):
            faults.extend([fault] if fault is not None else [])
            yield f"{line}\n"

    # Strict: a quote that is never closed would swallow the rows after it.
    table = csv.reader(lines(), delimiter=delimiter, strict=True)
    header = next(filter(None, table), [])
    if faults:
        raise UserError(f"its header is broken: {faults[0]}")
    _check_header(header)
    for cells in table:
        if not cells:
            continue
        if len(cells) != len(header):
            faults.append(f"line {table.line_num}: {len(cells)} cells, but {len(header)} columns")
        if faults:
            yield Fault(delimiter.join(cells), faults[0])
            faults.clear()
        else:
            yield dict(zip(header, cells, strict=True))


class _Streams(io.RawIOBase):
    """The bytes of a file of compressed streams, one after the other.

    Unlike `zstandard.open` it tells the end of the data from a file cut short, and unlike `lzma.open` and `bz2.open` it
    does not take a damaged later stream for garbage at the end that may be left out.
    """

    def __init__(self, file: BinaryIO, make: Callable[[], Any]) -> None:
        self._file, self._make = file, make
        self._stream: Any = None
        self._decoded = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoded:
            ended = self._stream is None or self._stream.eof
            compressed = (self._stream.unused_data if self._stream is not None and ended else b"") or self._file.read(
                2**16
            )
            if ended:
                compressed = compressed.lstrip(b"\0")  # xz may fill up with zeros
                compressed = compressed or self._file.read(2**16).lstrip(b"\0")
            if not compressed:
                if not ended:
                    raise EOFError("the compressed data end in the middle")
                return 0
            if ended:
                self._stream = self._make()
            try:
                self._decoded = memoryview(self._stream.decompress(compressed))
            except Exception as error:  # each library has a type of its own for data that are not what they should be
                raise OSError(f"the compressed data are damaged: {error}") from error
        size = min(len(buffer), len(self._decoded))
        buffer[:size], self._decoded = self._decoded[:size], self._decoded[size:]
        return size


def _open_xz(file: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(_Streams(file, lzma.LZMADecompressor))


def _open_bz2(file: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(_Streams(file, bz2.BZ2Decompressor))


def _open_zstd(file: BinaryIO) -> io.BufferedReader:
    import zstandard

    return io.BufferedReader(_Streams(file, zstandard.ZstdDecompressor().decompressobj))


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
    ".xz": _open_xz,
    ".zst": _open_zstd,
    ".bz2": _open_bz2,
}
