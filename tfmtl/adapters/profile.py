"""What raw columns hold: the figures one needs to write an experiment file."""

from __future__ import annotations

import collections
import dataclasses
import math
import pathlib

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import csv

from tfmtl.errors import DataError

_MOST_DISTINCT = 100_000
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}


@dataclasses.dataclass(frozen=True)
class ColumnProfile:
    """One column.

    Attributes:
        name, type: As the file says.
        rows, nulls: Rows in all, and those without a value.
        distinct: Different values, of list columns those inside the lists.
        counted_all: False where counting stopped at 100,000 distinct values.
        top: The most frequent values among those counted, with their counts.
        least, most, mean: Of numbers; of list columns the length. None elsewhere.
    """

    name: str
    type: str
    rows: int
    nulls: int
    distinct: int
    counted_all: bool
    top: tuple[tuple[str, int], ...]
    least: float | None
    most: float | None
    mean: float | None


def profile(path: pathlib.Path, *, top: int = 3) -> list[ColumnProfile]:
    """Reads a file, or all files of one format below a folder, column by column.

    Args:
        path: A Parquet or CSV file, or a folder of such files.
        top: How many frequent values to keep of each column.

    Returns:
        A profile per column, in the order of the file.

    Raises:
        DataError: Nothing readable is there.
    """
    source = _open(path)
    try:
        return [_column(source, field, top) for field in source.schema]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}") from error


def _open(path: pathlib.Path) -> ds.Dataset:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*.*"))
    files = [f for f in files if f.suffix.lower() in _FORMATS and f.is_file()]
    if not files:
        raise DataError(
            "`path` must be a Parquet or CSV file, a folder of them, or a dataset "
            f"directory. Received: {str(path)!r}, with no file that ends in one of "
            f"{sorted(_FORMATS)}"
        )
    # Files beside the log (users, items) have other columns: the first folder decides.
    files = [f for f in files if f.parent == files[0].parent]
    files = [f for f in files if f.suffix == files[0].suffix]
    suffix = files[0].suffix.lower()
    form: str | ds.CsvFileFormat = _FORMATS[suffix]
    if suffix == ".tsv":
        form = ds.CsvFileFormat(csv.ParseOptions(delimiter="\t"))
    try:
        return ds.dataset([str(f) for f in files], format=form)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(files[0])!r} cannot be read: {error}") from error


def _column(source: ds.Dataset, field: pa.Field, top: int) -> ColumnProfile:
    counts: collections.Counter[object] = collections.Counter()
    counted_all = True
    rows = nulls = measured = 0
    least, most, total = math.inf, -math.inf, 0.0
    is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    for batch in source.to_batches(columns=[field.name]):
        column = batch.column(0)
        rows += len(column)
        nulls += column.null_count
        if is_list or is_number:
            numbers = pc.list_value_length(column) if is_list else column
            numbers = pc.drop_null(pc.cast(numbers, pa.float64(), safe=False))
            if pa.types.is_floating(field.type):
                numbers = numbers.filter(pc.is_finite(numbers))
            if len(numbers):
                ends = pc.min_max(numbers).as_py()
                least, most = min(least, ends["min"]), max(most, ends["max"])
                total += pc.sum(numbers).as_py()
                measured += len(numbers)
        if counted_all:
            values = pc.list_flatten(column) if is_list else column
            counted_all = _count(values, counts)
    return ColumnProfile(
        name=field.name,
        type=str(field.type),
        rows=rows,
        nulls=nulls,
        distinct=len(counts),
        counted_all=counted_all,
        top=tuple((str(value), n) for value, n in counts.most_common(top)),
        least=least if measured else None,
        most=most if measured else None,
        mean=total / measured if measured else None,
    )


def _count(values: pa.Array, counts: collections.Counter[object]) -> bool:
    """Adds the values of a batch; False once there are too many to count."""
    if pa.types.is_nested(values.type):
        return False
    for item in pc.value_counts(values.drop_null()):
        counts[item["values"].as_py()] += item["counts"].as_py()
    return len(counts) < _MOST_DISTINCT
