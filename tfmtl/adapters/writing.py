"""Writes prepared logs: Parquet in parts, a part at a time in memory."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtl.adapters.past import Windows
from tfmtl.progress import Listener

ROWS_PER_PART = 50_000
"""Rows in one file of `logs/`: enough for Arrow, and several files for the workers."""


def write_logs(
    directory: pathlib.Path, tables: Iterable[pa.Table], listener: Listener
) -> int:
    """Writes each table as `logs/part-00000.parquet` and so on.

    Returns:
        The number of rows written.
    """
    folder = directory / "logs"
    folder.mkdir()
    rows = 0
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{number:05d}.parquet", compression="zstd")
        rows += table.num_rows
        listener.advance(table.num_rows)
    return rows


def write_side(directory: pathlib.Path, name: str, table: pa.Table) -> None:
    """Writes a table of users or items beside the logs."""
    pq.write_table(table, directory / f"{name}.parquet", compression="zstd")


def parts(rows: int, size: int = ROWS_PER_PART) -> list[tuple[int, int]]:
    """Bounds of the parts of so many rows; one empty part where there is none."""
    return [(i, min(i + size, rows)) for i in range(0, rows, size)] or [(0, 0)]


def list_columns(
    windows: Windows, first: int, last: int, columns: Mapping[str, pa.Array]
) -> dict[str, pa.Array]:
    """List columns of the past events of rows first .. last - 1.

    Args:
        windows: Each row's past.
        first: First row.
        last: The row after the last.
        columns: Name of a list column to the events' values, [events].

    Returns:
        Arrow list arrays, [last - first] each, all of one length in a row.
    """
    offsets, events = windows.flat(first, last)
    small = pa.array(offsets.astype(np.int32))
    index = pa.array(events)
    return {
        name: pa.ListArray.from_arrays(small, values.take(index))
        for name, values in columns.items()
    }


def drop_duplicates(table: pa.Table) -> tuple[pa.Table, int]:
    """Keeps the first of rows that agree in every column.

    Returns:
        The table in its order, and the number of rows dropped.
    """
    numbered = table.append_column("__row__", pa.array(np.arange(table.num_rows)))
    first = numbered.group_by(table.column_names).aggregate([("__row__", "min")])
    keep = np.sort(first["__row___min"].to_numpy())
    return table.take(keep), table.num_rows - len(keep)


def lookup(keys: pa.ChunkedArray, table: pa.Table, key: str) -> pa.Table:
    """The row of `table` of each key; nulls where it has none.

    Args:
        keys: [rows].
        table: Has each key once; of several the first counts.
        key: Its key column.
    """
    return table.take(pc.index_in(keys, table[key].combine_chunks())).drop_columns(key)


def rate(values: Sequence[bool] | pa.ChunkedArray | np.ndarray) -> float:
    """Share of positives, rounded for people; 0 where there is no row."""
    array = np.asarray(values, dtype=np.float64)
    return round(float(array.mean()), 6) if len(array) else 0.0


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Rows per value, the most frequent first."""
    found = [(str(v["values"]), v["counts"]) for v in column.value_counts().to_pylist()]
    return dict(sorted(found, key=lambda item: (-item[1], item[0])))


def schema(directory: pathlib.Path) -> pa.Schema | None:
    """The schema of the first part of `logs/`; None where there is none."""
    files = sorted((directory / "logs").glob("*.parquet"))
    return pq.read_schema(files[0]) if files else None


class Tally:
    """Counts positives and scenarios of tables that stream past."""

    def __init__(self, labels: Sequence[str], scenario: str) -> None:
        self._positives = dict.fromkeys(labels, 0.0)
        self._scenario = scenario
        self._by_scenario: dict[str, int] = {}
        self._rows = 0

    def watch(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yields the tables, counted."""
        for table in tables:
            self._rows += table.num_rows
            for label in self._positives:
                self._positives[label] += pc.sum(table[label]).as_py() or 0
            for value, number in counts(table[self._scenario]).items():
                before = self._by_scenario.get(value, 0)
                self._by_scenario[value] = before + number
            yield table

    def rates(self) -> dict[str, float]:
        """Share of positives per label."""
        rows = max(self._rows, 1)
        return {c: round(float(n) / rows, 6) for c, n in self._positives.items()}

    def scenarios(self) -> dict[str, int]:
        """Rows per scenario, the most frequent first."""
        items = self._by_scenario.items()
        return dict(sorted(items, key=lambda item: (-item[1], item[0])))
