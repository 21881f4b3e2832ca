"""Raw record batches to canonical ones; rows that break the schema leave, with why.

Each rule is one vectorised check over a column. A row leaves with the first rule it
breaks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns, hashing, plan, sources, split
from pipeline.columns import any_in_row, list_array
from pipeline.faults import Faults, float32, guarded
from pipeline.labels import canonical_labels
from tfmtl.errors import DataError
from tfmtl.schema.dataset import DatasetSpec

TEXT_LIMIT = 1_000_000
"""Longest text of a cell, in bytes."""
_KEPT_TEXT = 65_536  # of a rejected cell: enough to see what it was

REJECTED_SCHEMA_HEAD = [
    ("reason", pa.large_string()),
    ("file", pa.large_string()),
    ("file_row", pa.int64()),
    ("line", pa.large_string()),
]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a batch comes from.

    Attributes:
        file: Position of the file in the sorted list of inputs.
        path: The file.
        rows: int64 [rows], their positions in the file.
    """

    file: int
    path: str
    rows: np.ndarray


class Validator:
    """Turns raw batches into canonical ones (`plan.canonical_schema`)."""

    def __init__(self, dataset: DatasetSpec) -> None:
        self._dataset = dataset
        self._inputs = plan.raw_inputs(dataset)
        self._schema = plan.canonical_schema(dataset)
        self.columns = plan.raw_columns(dataset)

    def __call__(
        self, batch: pa.RecordBatch, place: Place
    ) -> tuple[pa.RecordBatch, pa.Table | None]:
        """Checks a batch.

        Args:
            batch: Holds all of `columns`.
            place: Where it comes from.

        Returns:
            The canonical batch of the good rows, and the rejected rows as a table of
            reason, file, row in the file and the raw columns as text; None where there
            are none.

        Raises:
            DataError: A whole column has a type that cannot be used.
        """
        out, faults = guarded(
            batch,
            lambda part, found: self._columns(part, found, place.path),
            place.path,
        )
        self._order(out, place)
        canonical = pa.RecordBatch.from_arrays(
            [out[f.name].cast(f.type) for f in self._schema], schema=self._schema
        )
        if not faults.codes.any():
            return canonical, None
        good = pa.array(faults.codes == 0)
        raw = {c: columns.decoded(batch.column(c)) for c in self.columns}
        dead = rejected_rows(self.columns, raw, faults, place.path, place.rows)
        return canonical.filter(good), dead

    def _columns(
        self, batch: pa.RecordBatch, faults: Faults, path: str
    ) -> dict[str, pa.Array]:
        """The canonical columns of raw rows, as far as the rows alone tell."""
        raw = {c: columns.decoded(batch.column(c)) for c in self.columns}
        rows, untyped = batch.num_rows, not sources.has_types(path)
        for column, array in raw.items():
            self._check_text(column, array, faults)
        out = canonical_inputs(self._inputs, raw, faults, path)
        out |= canonical_labels(self._dataset.tasks, raw, rows, faults, untyped)
        self._keys(raw, faults, out, untyped)
        out[plan.SPLIT], bad = _as_array(
            split.by_column(self._dataset, raw, rows, untyped)
        )
        faults.add(bad, self._split_reason())
        if self._dataset.deduplicate:
            content = [raw[c] for c in self.columns]
            out[plan.ORDER] = pa.array(hashing.hash_rows(content, 1))
            out[plan.ORDER_2] = pa.array(hashing.hash_rows(content, 2))
        return out

    def broken_lines(self, broken: sources.Broken, path: str) -> pa.Table:
        """Rejected rows for CSV lines with a wrong number of fields."""
        return rejected_lines(self.columns, broken, path)

    @property
    def rejected_schema(self) -> pa.Schema:
        """Schema of the dead-letter files: why, where, and the raw columns as text."""
        return rejected_schema(self.columns)

    @staticmethod
    def _check_text(column: str, array: pa.Array, faults: Faults) -> None:
        if columns.is_text(array.type):
            long = pc.greater(pc.binary_length(array), TEXT_LIMIT)
            bad = pc.fill_null(long, False).to_numpy(zero_copy_only=False)
            faults.add(bad, f"column {column!r}: text over {TEXT_LIMIT:,} bytes")
        elif columns.is_list(array.type) and columns.is_text(array.type.value_type):
            flat, lengths = columns.lists(array, None)
            long = pc.fill_null(pc.greater(pc.binary_length(flat), TEXT_LIMIT), False)
            bad = any_in_row(long.to_numpy(zero_copy_only=False), lengths)
            faults.add(bad, f"column {column!r}: text over {TEXT_LIMIT:,} bytes")

    def _keys(
        self,
        raw: dict[str, pa.Array],
        faults: Faults,
        out: dict[str, pa.Array],
        untyped: bool,
    ) -> None:
        keys = self._dataset.keys
        for name in ("row", "user", "group"):
            column = getattr(keys, name)
            if column is not None:
                out[f"key/{name}"], bad = columns.strings(raw[column], untyped)
                faults.add(bad, f"column {column!r}: invalid UTF-8")
        if keys.timestamp is not None:
            ticks, bad = columns.times(raw[keys.timestamp], keys.timestamp_unit, "us")
            bad |= ticks == plan.MISSING_TIME
            faults.add(bad, f"column {keys.timestamp!r}: missing or not a time")
            out["key/timestamp"] = pa.array(ticks)

    def _order(self, out: dict[str, pa.Array], place: Place) -> None:
        """What rows are sharded and sorted by: their content, or where they stood."""
        if self._dataset.deduplicate:
            order = out[plan.ORDER].to_numpy()
        else:
            file = hashing.mix(np.array([place.file], np.uint64))
            order = hashing.mix(hashing.mix(place.rows.astype(np.uint64)) ^ file)
            out[plan.ORDER] = pa.array(order)
        if self._dataset.keys.group is not None:
            text = out["key/group"]
            # Rows without a group are no group: each stands alone.
            alone = pc.equal(text, "").to_numpy(zero_copy_only=False)
            group = np.where(alone, order, hashing.hash_array(text, 3))
            out[plan.GROUP] = pa.array(group)

    def _split_reason(self) -> str:
        column = getattr(self._dataset.split, "column", "")
        return f"column {column!r}: names no split"


def rejected_schema(names: Sequence[str]) -> pa.Schema:
    """Schema of dead letters: why, where, and the raw columns as text.

    Args:
        names: The raw columns.
    """
    text = [(_apart(c), pa.large_string()) for c in names]
    return pa.schema(REJECTED_SCHEMA_HEAD + text)


def rejected_lines(names: Sequence[str], broken: sources.Broken, path: str) -> pa.Table:
    """Dead letters of CSV lines with a wrong number of fields.

    Args:
        names: The raw columns.
        broken: The lines.
        path: The file.
    """
    lines = broken.lines
    data: dict[str, Any] = {
        "reason": ["wrong number of fields"] * len(lines),
        "file": [path] * len(lines),
        "file_row": list(broken.rows),
        "line": [line[:_KEPT_TEXT] for line in lines],
    }
    for column in names:
        data[_apart(column)] = [None] * len(lines)
    return pa.table(data, schema=rejected_schema(names))


def rejected_rows(
    names: Sequence[str],
    raw: Mapping[str, pa.Array],
    faults: Faults,
    path: str,
    rows: np.ndarray,
) -> pa.Table:
    """Dead letters of the rows that broke a rule.

    Args:
        names: The raw columns.
        raw: Column to decoded values.
        faults: The rules that the rows broke.
        path: The file.
        rows: int64 [rows], their positions in the file.
    """
    where = np.flatnonzero(faults.codes)
    reasons = pa.array(faults.reasons, pa.large_string())
    data: dict[str, Any] = {
        "reason": reasons.take(pa.array(faults.codes[where])),
        "file": pa.array([path] * len(where), pa.large_string()),
        "file_row": pa.array(rows[where]),
        "line": pa.nulls(len(where), pa.large_string()),
    }
    for column in names:
        data[_apart(column)] = _readable(raw[column].take(pa.array(where)))
    return pa.table(data).select(rejected_schema(names).names)


def canonical_inputs(
    items: Sequence[plan.RawInput],
    raw: Mapping[str, pa.Array],
    faults: Faults,
    path: str,
) -> dict[str, pa.Array]:
    """Raw columns -> the inputs of the transform graph.

    Args:
        items: The inputs.
        raw: Column to decoded values.
        faults: Learns which rows do not parse; they hold placeholders.
        path: The file: whether it has types, and for messages.

    Raises:
        DataError: A whole column has a type that cannot be used.
    """
    out: dict[str, pa.Array] = {}
    lengths: dict[str, tuple[str, np.ndarray]] = {}
    untyped = not sources.has_types(path)
    for item in items:
        try:
            out[item.name] = _canonical_input(
                item, raw[item.column], faults, lengths, untyped
            )
        except DataError as error:
            raise DataError(
                f"column {item.column!r} of {path!r} cannot be read as the input "
                f"{item.name!r}: {error}"
            ) from error
    return out


def _canonical_input(
    item: plan.RawInput,
    array: pa.Array,
    faults: Faults,
    lengths: dict[str, tuple[str, np.ndarray]],
    untyped: bool,
) -> pa.Array:
    where = f"column {item.column!r}"
    if item.kind == "string":
        values, bad = columns.strings(array, untyped, item.kept)
        faults.add(bad, f"{where}: invalid UTF-8")
        return values
    if item.kind == "float":
        numbers, bad = columns.numbers(array)
        faults.add(bad, f"{where}: not a number")
        return pa.array(float32(numbers, where, faults))
    if item.kind == "time":
        ticks, bad = columns.times(array, item.unit, item.unit)
        faults.add(bad, f"{where}: not a time")
        return pa.array(ticks)
    if item.separator is not None and columns.is_text(array.type):
        array, bad = columns.strings(array)
        faults.add(bad, f"{where}: invalid UTF-8")
    flat, counts = columns.lists(array, item.separator)
    if item.kind == "vector":
        return _vector(item, array, flat, counts, faults)
    if item.sequence is not None:
        first, expected = lengths.setdefault(item.sequence, (item.column, counts))
        faults.add(
            counts != expected,
            f"sequence {item.sequence!r}: columns {first!r} and {item.column!r} "
            "have unequal lengths",
        )
    if item.kind == "strings":
        values, bad = columns.strings(flat, untyped)
        faults.add(any_in_row(bad, counts), f"{where}: invalid UTF-8")
        return list_array(values, counts)
    numbers, bad = columns.numbers(flat)
    faults.add(any_in_row(bad, counts), f"{where}: not a number")
    faults.add(any_in_row(np.isinf(numbers), counts), f"{where}: infinite")
    return list_array(pa.array(numbers.astype(np.float32)), counts)


def _apart(column: str) -> str:
    """Name of a raw column in a dead-letter file, apart from its own columns."""
    taken = column in [name for name, _ in REJECTED_SCHEMA_HEAD]
    return f"raw_{column}" if taken else column


def _as_array(pair: tuple[np.ndarray, np.ndarray]) -> tuple[pa.Array, np.ndarray]:
    return pa.array(pair[0]), pair[1]


def _vector(
    item: plan.RawInput,
    array: pa.Array,
    flat: pa.Array,
    counts: np.ndarray,
    faults: Faults,
) -> pa.Array:
    """float32 [rows, size]; a missing vector is all NaN."""
    where = f"column {item.column!r}"
    missing = counts == 0
    wrong = ~missing & (counts != item.size)
    faults.add(wrong, f"{where}: a vector whose size is not {item.size}")
    numbers, bad = columns.numbers(flat)
    broken = bad | ~np.isfinite(numbers)
    faults.add(any_in_row(broken, counts), f"{where}: a vector with a missing element")
    matrix = np.full((len(counts), item.size), np.nan, np.float32)
    fits = np.repeat(~missing & ~wrong, counts)
    matrix[~missing & ~wrong] = numbers[fits].reshape(-1, item.size)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), item.size)


def _readable(array: pa.Array) -> pa.Array:
    """Cells of rejected rows as text that any tool can read."""
    values: list[str | None] = []
    for cell in array:
        value = _plain(cell)
        if value is None:
            values.append(None)
            continue
        if isinstance(value, bytes):
            value = value[:_KEPT_TEXT].decode("utf-8", "backslashreplace")
        elif not isinstance(value, str):
            value = json.dumps(value, default=str)
        values.append(value[:_KEPT_TEXT])
    return pa.array(values, pa.large_string())


def _plain(cell: pa.Scalar) -> Any:
    """A cell as a Python value; a time as text, since Python has not all of them."""
    if not pa.types.is_temporal(cell.type) or not cell.is_valid:
        return cell.as_py()
    for kind in (pa.large_string(), pa.int64()):
        try:
            return cell.cast(kind).as_py()
        except pa.ArrowException:
            continue
    return repr(cell)
