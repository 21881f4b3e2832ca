"""Publishers' raw text files as Arrow tables, malformed lines set aside with reasons.

Files are read in blocks of whole lines, so that a log of any size passes through,
plain or gzipped. A line whose number of fields is wrong, or with a value that does not
fit its column, goes to `Rejects`; nothing is dropped without a trace.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from tfmtl.errors import DataError

_BLOCK = 16 << 20
_PATTERNS = {
    "int": r"^\s*[-+]?\d{1,18}\s*$",
    "float": r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*$",
}
_REPLACEMENT = "\ufffd"


@dataclasses.dataclass(frozen=True)
class Column:
    """What a raw column must hold.

    Attributes:
        kind: Type of the values.
        optional: An empty field is null, not an error.
        minimum: Smallest legal number.
        maximum: Greatest legal number.
    """

    kind: Literal["int", "float", "string"]
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None


INT = Column("int")
FLAG = Column("int", minimum=0, maximum=1)
STRING = Column("string")
OPTIONAL_INT = Column("int", optional=True)
OPTIONAL_FLOAT = Column("float", optional=True)
OPTIONAL_STRING = Column("string", optional=True)


class Rejects:
    """Collects malformed lines: file, the line's text, the reason."""

    schema = pa.schema(
        [("file", pa.string()), ("line", pa.string()), ("reason", pa.string())]
    )

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []

    def __len__(self) -> int:
        return sum(t.num_rows for t in self._tables)

    def add(self, file: str, lines: Sequence[str], reasons: Sequence[str]) -> None:
        """Adds lines of one file, each with its reason."""
        if lines:
            columns = [[file] * len(lines), list(lines), list(reasons)]
            self._tables.append(pa.table(columns, schema=self.schema))

    def write(self, directory: pathlib.Path) -> None:
        """Writes `rejected.parquet`, also where it has no row."""
        table = pa.concat_tables([self.schema.empty_table(), *self._tables])
        pq.write_table(table, directory / "rejected.parquet")


def read_table(
    path: pathlib.Path,
    columns: Mapping[str, Column],
    rejects: Rejects,
    *,
    names: Sequence[str] | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8",
    quoted: bool = True,
    comment: str | None = None,
) -> pa.Table:
    """All of a file; see `read_blocks`."""
    blocks = read_blocks(
        path,
        columns,
        rejects,
        names=names,
        delimiter=delimiter,
        encoding=encoding,
        quoted=quoted,
        comment=comment,
    )
    tables = list(blocks)
    return pa.concat_tables([_arrow_schema(columns).empty_table(), *tables])


def read_blocks(
    path: pathlib.Path,
    columns: Mapping[str, Column],
    rejects: Rejects,
    *,
    names: Sequence[str] | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8",
    quoted: bool = True,
    comment: str | None = None,
) -> Iterator[pa.Table]:
    """Reads a delimited file in blocks of whole lines.

    Args:
        path: Plain, or gzipped where its name ends in .gz.
        columns: The columns wanted, by name; others are ignored.
        rejects: Receives malformed lines.
        names: Names of all fields, where the file has no header.
        delimiter: One or more characters.
        encoding: Of the file; bytes outside it make a line malformed.
        quoted: Double quotes may enclose a field.
        comment: Lines that start with it are skipped.

    Raises:
        DataError: No such columns, or the file cannot be read at all.
    """
    bad: list[str] = []

    def on_bad_row(row: pacsv.InvalidRow) -> str:
        bad.append(row.text if row.text is not None else "")
        reasons.append(f"{row.actual_columns} fields instead of {row.expected_columns}")
        return "skip"

    reasons: list[str] = []
    separator = delimiter if len(delimiter) == 1 else "\x1f"
    with open_plain(path) as file:
        lines = io.BufferedReader(
            _Lines(file, encoding, delimiter, separator, comment), buffer_size=1 << 20
        )
        try:
            header = list(names) if names else _header(path, lines, separator, columns)
            if not lines.peek(1):
                return
            reader = pacsv.open_csv(
                lines,
                pacsv.ReadOptions(
                    column_names=header, block_size=_BLOCK, use_threads=False
                ),
                pacsv.ParseOptions(
                    delimiter=separator,
                    quote_char='"' if quoted else False,
                    invalid_row_handler=on_bad_row,
                ),
                pacsv.ConvertOptions(
                    column_types={c: pa.string() for c in header},
                    include_columns=list(columns),
                    strings_can_be_null=False,
                    check_utf8=False,
                ),
            )
            for batch in reader:
                rejects.add(path.name, bad, reasons)
                bad.clear()
                reasons.clear()
                yield _typed(pa.table(batch), columns, rejects, path.name)
            rejects.add(path.name, bad, reasons)
        except (pa.ArrowInvalid, EOFError, gzip.BadGzipFile) as error:
            raise DataError(
                f"{str(path)!r} cannot be read as delimited text: {error}"
            ) from error


def _header(
    path: pathlib.Path,
    lines: IO[bytes],
    separator: str,
    columns: Mapping[str, Column],
) -> list[str]:
    header = lines.readline().decode().lstrip("\ufeff").rstrip("\r\n")
    found = [name.strip().strip('"') for name in header.split(separator)]
    missing = [name for name in columns if name not in found]
    if missing:
        raise DataError(
            f"{str(path)!r} lacks the columns {missing}; its first line has "
            f"{found[:60]}. Is it the publisher's file?"
        )
    return found


def _typed(
    table: pa.Table, columns: Mapping[str, Column], rejects: Rejects, file: str
) -> pa.Table:
    """Casts texts to the columns' types; rows with a bad value go to the rejects."""
    reason = pa.nulls(table.num_rows, pa.string())
    for name, column in columns.items():
        wrong = _wrong(table[name], column)
        if pc.any(wrong).as_py():
            text = pc.binary_join_element_wise(
                f"{name}: ", pc.utf8_slice_codeunits(table[name], 0, 40), ""
            )
            text = pc.binary_join_element_wise(text, f" is no {_rule(column)}", "")
            reason = pc.coalesce(
                reason, pc.if_else(wrong, text, pa.scalar(None, pa.string()))
            )
    good = pc.is_null(reason)
    if not pc.all(good).as_py():
        rows = table.filter(pc.invert(good)).to_pylist()
        texts = [",".join(str(v) for v in row.values()) for row in rows]
        rejects.add(file, texts, reason.drop_null().to_pylist())
        table = table.filter(good)
    arrays = [_cast(table[name], column) for name, column in columns.items()]
    return pa.table(arrays, schema=_arrow_schema(columns))


def _wrong(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """True where a text does not fit its column."""
    empty = pc.equal(pc.utf8_trim_whitespace(values), "")
    if column.kind == "string":
        wrong = pc.match_substring(values, _REPLACEMENT)
    else:
        fits = pc.match_substring_regex(values, _PATTERNS[column.kind])
        wrong = pc.and_(pc.invert(fits), pc.invert(empty))
        bounds = (column.minimum, column.maximum)
        if any(bound is not None for bound in bounds):
            usable = pc.if_else(fits, values, pa.scalar(None, pa.string()))
            number = pc.cast(pc.utf8_trim_whitespace(usable), pa.float64())
            for bound, compare in zip(bounds, (pc.less, pc.greater)):
                if bound is not None:
                    outside = pc.fill_null(compare(number, bound), False)
                    wrong = pc.or_(wrong, outside)
    return wrong if column.optional else pc.or_(wrong, empty)


def _rule(column: Column) -> str:
    rule = {"int": "whole number", "float": "number", "string": "text in UTF-8"}
    text = rule[column.kind]
    if column.minimum is not None and column.maximum is not None:
        text += f" from {column.minimum:g} to {column.maximum:g}"
    return text


def _cast(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    if column.kind != "string" or column.optional:
        trimmed = pc.utf8_trim_whitespace(values)
        null = pa.scalar(None, pa.string())
        values = pc.if_else(pc.equal(trimmed, ""), null, trimmed)
    return pc.cast(values, _TYPES[column.kind])


_TYPES = {"int": pa.int64(), "float": pa.float64(), "string": pa.string()}


def _arrow_schema(columns: Mapping[str, Column]) -> pa.Schema:
    return pa.schema([(name, _TYPES[c.kind]) for name, c in columns.items()])


def open_plain(path: pathlib.Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in .gz."""
    if path.name.endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


class _Lines(io.RawIOBase):
    """Whole lines of a file as UTF-8, with a delimiter of one character."""

    def __init__(
        self,
        file: IO[bytes],
        encoding: str,
        delimiter: str,
        separator: str,
        comment: str | None,
    ) -> None:
        self._file = file
        self._encoding = encoding
        self._delimiter, self._separator = delimiter, separator
        self._comment = comment
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            block = self._file.read(1 << 20)
            if not block:
                return 0
            self._rest = self._convert(block + self._file.readline())
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _convert(self, block: bytes) -> bytes:
        text = block.decode(self._encoding, errors="replace")
        if self._delimiter != self._separator:
            text = text.replace(self._delimiter, self._separator)
        if self._comment is not None:
            kept = [
                line
                for line in text.splitlines(keepends=True)
                if not line.startswith(self._comment)
            ]
            text = "".join(kept)
        return text.encode()
