"""Raw files to Arrow record batches: Parquet, CSV (also .gz) and Avro, by suffix.

Local paths are read directly, `scheme://` paths through Beam's file systems. A file is
cut into units of work (row groups of a Parquet file, else the whole file), and each
unit knows how many rows it must yield wherever the format says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import glob
import itertools
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tfmtl.errors import ConfigError, DataError

BATCH_ROWS = 65_536
_CSV_HEAD = 1 << 20  # bytes; the names of the columns are mostly found in so many
_CSV_BLOCK = 64 << 20  # bytes; a longer row is an error
_AVRO_ROWS = 8_192
_UNIT_ROWS = 1 << 20
SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".avro")
_READ_ERRORS = (
    pa.ArrowException,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    zlib.error,
)


@dataclasses.dataclass(frozen=True)
class Unit:
    """A part of a file that one worker reads.

    Attributes:
        file: Position of the file in the sorted list of inputs.
        path: The file.
        row_groups: Of a Parquet file.
        first_row: Position of the unit's first row in the file.
        rows: How many rows it must yield; None where only reading tells.
    """

    file: int
    path: str
    row_groups: tuple[int, ...] | None
    first_row: int
    rows: int | None


@dataclasses.dataclass(frozen=True)
class Broken:
    """Lines of a CSV file that have another number of fields than the header.

    Attributes:
        lines: Their text.
        rows: Their positions among the rows of the file.
    """

    lines: tuple[str, ...]
    rows: tuple[int, ...]


class Positions:
    """Positions in the file of the rows that are read, broken lines counted too."""

    def __init__(self, first_row: int) -> None:
        self._first = first_row
        self._taken = 0
        self._before = np.zeros(0, np.int64)  # rows that stand before each broken line

    def skip(self, rows: Sequence[int]) -> None:
        """Leaves out broken lines, in rising order, before rows behind them are taken.

        Args:
            rows: Their positions.
        """
        known = len(self._before)
        before = np.array(rows, np.int64) - self._first
        before -= np.arange(known, known + len(rows))
        self._before = np.concatenate([self._before, before])

    def take(self, count: int) -> np.ndarray:
        """Positions of the next rows: int64 [count]."""
        rows = np.arange(self._taken, self._taken + count)
        self._taken += count
        broken = np.searchsorted(self._before, rows, side="right")
        return np.asarray(self._first + rows + broken)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the inputs hold, known before the job starts.

    Attributes:
        units: The work.
        rows: Of all files, estimated from sizes where the format does not say.
        types: Column to Arrow type, of the first file that knows types.
    """

    units: tuple[Unit, ...]
    rows: int
    types: dict[str, pa.DataType]


def resolve(patterns: Sequence[str]) -> list[str]:
    """Expands globs to files.

    Raises:
        ConfigError: No pattern, a pattern without a file, or an unknown suffix.
    """
    if not patterns:
        raise ConfigError("`input` must name at least one file or glob. Received: none")
    paths: set[str] = set()
    for pattern in patterns:
        found = _expand(str(pattern))
        if not found:
            raise ConfigError(f"`input` matches no file. Received: {str(pattern)!r}")
        paths.update(found)
    for path in paths:
        if not path.lower().endswith(SUFFIXES):
            raise ConfigError(
                f"`input` files must end in one of {list(SUFFIXES)}. Received: {path!r}"
            )
    return sorted(paths)


def inspect(paths: Sequence[str], needed: Sequence[str]) -> Inputs:
    """Looks into every file: readable, all columns there, how many rows.

    Args:
        paths: From `resolve`.
        needed: The columns the job reads.

    Raises:
        DataError: A file is empty or damaged, or lacks a column.
    """
    units: list[Unit] = []
    total = 0
    types: dict[str, pa.DataType] = {}
    for index, path in enumerate(paths):
        try:
            if _is_parquet(path):
                found, columns = _inspect_parquet(index, path)
                types = types or columns
                names = list(columns)
                total += sum(u.rows or 0 for u in found)
            else:
                found = [Unit(index, path, None, 0, None)]
                names = _avro_names(path) if _is_avro(path) else _csv_names(path)
                total += max(1, _size(path) // (20 if path.endswith(".gz") else 80))
        except _READ_ERRORS as error:
            raise _damaged(path, error) from error
        _check_columns(path, names, needed)
        units += found
    return Inputs(tuple(units), total, types)


def column_names(path: str) -> list[str]:
    """The columns of a file.

    Raises:
        DataError: It is damaged.
    """
    try:
        if _is_parquet(path):
            return list(_inspect_parquet(0, path)[1])
        return _avro_names(path) if _is_avro(path) else _csv_names(path)
    except _READ_ERRORS as error:
        raise _damaged(path, error) from error


def read(unit: Unit, columns: Sequence[str]) -> Iterator[pa.RecordBatch | Broken]:
    """Reads a unit in batches of at most `BATCH_ROWS` rows.

    Args:
        unit: A part of a file.
        columns: Columns to read.

    Yields:
        Record batches with these columns, and CSV lines that do not parse.

    Raises:
        DataError: The file is damaged.
    """
    try:
        if _is_parquet(unit.path):
            yield from _read_parquet(unit, columns)
        elif _is_avro(unit.path):
            yield from _read_avro(unit.path, columns)
        else:
            yield from _read_csv(unit.path, columns)
    except _READ_ERRORS as error:
        raise _damaged(unit.path, error) from error


def _expand(pattern: str) -> list[str]:
    if "://" in pattern:
        # Remote paths only: the import costs a second.
        from apache_beam.io.filesystems import FileSystems

        return [m.path for m in FileSystems.match([pattern])[0].metadata_list]
    if os.path.isfile(pattern):
        return [os.path.abspath(pattern)]
    found = glob.glob(os.path.abspath(pattern), recursive=True)
    return [p for p in found if os.path.isfile(p)]


def _open(path: str) -> IO[bytes]:
    if "://" in path:
        from apache_beam.io.filesystem import CompressionTypes
        from apache_beam.io.filesystems import FileSystems

        stream: IO[bytes] = FileSystems.open(
            path, compression_type=CompressionTypes.UNCOMPRESSED
        )
        return stream
    return open(path, "rb")


def _size(path: str) -> int:
    if "://" in path:
        from apache_beam.io.filesystems import FileSystems

        return int(FileSystems.match([path])[0].metadata_list[0].size_in_bytes)
    return os.path.getsize(path)


def _is_parquet(path: str) -> bool:
    return path.lower().endswith((".parquet", ".pq"))


def _is_avro(path: str) -> bool:
    return path.lower().endswith(".avro")


def has_types(path: str) -> bool:
    """Whether the file's format tells a number from a text."""
    return _is_parquet(path) or _is_avro(path)


def _damaged(path: str, error: Exception) -> DataError:
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    if "straddling" in reason:
        return DataError(
            f"`input` file {path!r} cannot be read: a row is longer than "
            f"{_CSV_BLOCK >> 20} MiB, or a quote is never closed"
        )
    return DataError(
        f"`input` file {path!r} cannot be read: it is empty, truncated or damaged "
        f"({reason})"
    )


def _check_columns(path: str, names: list[str], needed: Sequence[str]) -> None:
    missing = [c for c in needed if c not in names]
    if not missing:
        return
    hints = []
    for column in missing:
        close = difflib.get_close_matches(column, names, n=2)
        hints.append(
            repr(column) + (f" (close: {', '.join(map(repr, close))})" if close else "")
        )
    raise DataError(
        f"`input` file {path!r} lacks the column(s) {', '.join(hints)}; it has: "
        f"{sorted(names)}"
    )


def _inspect_parquet(
    index: int, path: str
) -> tuple[list[Unit], dict[str, pa.DataType]]:
    with _open(path) as stream:
        file = pq.ParquetFile(stream)
        groups = [
            file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)
        ]
        types = {f.name: f.type for f in file.schema_arrow}
    units: list[Unit] = []
    first = 0
    pending: list[int] = []
    for group in range(len(groups)):
        pending.append(group)
        size = sum(groups[g] for g in pending)
        if size >= _UNIT_ROWS or group == len(groups) - 1:
            units.append(Unit(index, path, tuple(pending), first, size))
            first += size
            pending = []
    return units, types


def _read_parquet(unit: Unit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _open(unit.path) as stream:
        file = pq.ParquetFile(stream)
        yield from file.iter_batches(
            batch_size=BATCH_ROWS,
            row_groups=list(unit.row_groups or ()),
            columns=list(columns),
            use_threads=False,
        )


def _csv_stream(path: str) -> Any:
    stream = pa.PythonFile(_open(path), mode="r")
    if path.lower().endswith(".gz"):
        return pa.CompressedInputStream(stream, "gzip")
    return stream


def _delimiter(path: str) -> str:
    return "\t" if ".tsv" in os.path.basename(path).lower() else ","


def _csv_names(path: str) -> list[str]:
    try:
        with _quiet_about_text():
            return _csv_header(path, _CSV_HEAD)
    except pa.ArrowInvalid:
        names = _csv_header(path, _CSV_BLOCK, _ANY_BYTES)
        return [name.encode(_ANY_BYTES).decode() for name in names]


def _csv_header(path: str, block: int, encoding: str = "utf8") -> list[str]:
    with _csv_stream(path) as stream:
        reader = _csv_reader(path, stream, block, lambda row: "skip", encoding=encoding)
        return [str(name) for name in reader.schema.names]


def _csv_reader(
    path: str,
    stream: Any,
    block: int,
    invalid_row: Callable[[Any], str],
    convert: pa_csv.ConvertOptions | None = None,
    encoding: str = "utf8",
) -> Any:
    return pa_csv.open_csv(
        stream,
        # Without threads the parser knows the numbers of invalid rows.
        read_options=pa_csv.ReadOptions(
            use_threads=False, block_size=block, encoding=encoding
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=_delimiter(path),
            newlines_in_values=True,
            invalid_row_handler=invalid_row,
        ),
        convert_options=convert,
    )


def _read_csv(path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch | Broken]:
    rows = lines = 0
    try:
        with _quiet_about_text():
            for item in _parse_csv(path, columns, "utf8"):
                if isinstance(item, Broken):
                    lines += len(item.rows)
                else:
                    rows += item.num_rows
                yield item
        return
    except pa.ArrowInvalid as error:
        # Arrow cannot hand over a line that is both of a wrong length and no UTF-8.
        if not re.search(r"Expected \d+ columns, got \d+", str(error)):
            raise
    for item in _parse_csv(path, columns, _ANY_BYTES):
        if isinstance(item, Broken):
            told = min(lines, len(item.rows))
            lines -= told
            if told < len(item.rows):
                texts = [t.encode(_ANY_BYTES) for t in item.lines[told:]]
                yield Broken(
                    tuple(t.decode("utf-8", "backslashreplace") for t in texts),
                    item.rows[told:],
                )
            continue
        seen = min(rows, item.num_rows)
        rows -= seen
        if seen < item.num_rows:
            yield pa.RecordBatch.from_arrays(
                [_bytes_as_written(c) for c in item.slice(seen).columns],
                names=list(columns),
            )


_ANY_BYTES = "latin-1"
"""Gives every byte a character of its own, and back."""


@contextlib.contextmanager
def _quiet_about_text() -> Iterator[None]:
    """Silences Arrow's complaint about a broken line that is no UTF-8: it is read again
    in a way that keeps the line."""
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if not isinstance(found.exc_value, UnicodeDecodeError):
            before(found)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _bytes_as_written(array: pa.Array) -> pa.Array:
    """Undoes reading bytes as if each were a character."""
    text = array.cast(pa.large_string())
    if pc.all(pc.string_is_ascii(text)).as_py() is not False:
        return array
    values = [None if t is None else t.encode(_ANY_BYTES) for t in text.to_pylist()]
    return pa.array(values, pa.large_binary())


def _parse_csv(
    path: str, columns: Sequence[str], encoding: str
) -> Iterator[pa.RecordBatch | Broken]:
    broken: list[Any] = []

    def skip(row: Any) -> str:
        broken.append(row)
        return "skip"

    def found() -> Iterator[Broken]:
        # Parsing goes on beside the consumer: more may come in at any time.
        rows = broken[:]
        del broken[: len(rows)]
        if rows:
            # The header is number 1.
            yield Broken(tuple(r.text for r in rows), tuple(r.number - 2 for r in rows))

    names = [c.encode().decode(encoding) for c in columns]
    # Bytes, so that text that is no UTF-8 rejects its row and not the file.
    convert = pa_csv.ConvertOptions(
        column_types={c: pa.large_binary() for c in names},
        include_columns=names,
        check_utf8=False,
        strings_can_be_null=False,
    )
    with _csv_stream(path) as stream:
        for batch in _csv_reader(path, stream, _CSV_BLOCK, skip, convert, encoding):
            yield from found()
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)
    yield from found()


def _avro_names(path: str) -> list[str]:
    with _open(path) as stream:
        schema: Any = fastavro.reader(stream).writer_schema
        return [field["name"] for field in schema["fields"]]


def _read_avro(path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _open(path) as stream:
        records: Iterator[Any] = iter(fastavro.reader(stream))
        while rows := list(itertools.islice(records, _AVRO_ROWS)):
            arrays = [pa.array([row[c] for row in rows]) for c in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
