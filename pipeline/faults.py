"""Which rows of a batch are at fault, and why; also where Arrow itself gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.errors import DataError

MOST_BLAMED = 1_000
"""Rows of one batch that Arrow may fail on one by one; more, and the column is bad."""

_Result = TypeVar("_Result")


class Faults:
    """The first broken rule of each row."""

    def __init__(self, rows: int) -> None:
        self.codes = np.zeros(rows, np.int32)
        self.reasons = [""]

    def add(self, bad: np.ndarray, reason: str) -> None:
        """Blames rows that no earlier rule blamed."""
        if bad.any():
            self.codes[bad & (self.codes == 0)] = len(self.reasons)
            self.reasons.append(reason)


def float32(values: np.ndarray, where: str, faults: Faults) -> np.ndarray:
    """Casts to float32; what does not fit is a fault, NaN stays."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    faults.add(np.isinf(narrow), f"{where}: infinite or too large for a float")
    return narrow


def guarded(
    batch: pa.RecordBatch,
    convert: Callable[[pa.RecordBatch, Faults], _Result],
    path: str,
) -> tuple[_Result, Faults]:
    """Converts a batch; a cell that Arrow cannot convert is a fault of its row.

    Args:
        batch: Raw rows.
        convert: Turns rows into anything, and learns of faults. Where it raises an
            Arrow error, it is tried on parts of the batch, and at last on all rows,
            those at fault with a null in the column to blame.
        path: The file, for messages.

    Returns:
        What `convert` returned for all rows, and the faults.

    Raises:
        DataError: A whole column has a type that cannot be converted; names it.
    """
    blamed: list[tuple[np.ndarray, str]] = []
    while True:
        faults = Faults(batch.num_rows)
        for bad, reason in blamed:
            faults.add(bad, reason)
        try:
            return convert(batch, faults), faults
        except pa.ArrowMemoryError:
            raise
        except pa.ArrowException as error:
            column, bad = _blame(batch, convert, path, error)
            kind = batch.schema.field(column).type
            blamed.append((bad, f"column {column!r}: a {kind} that cannot be read"))
            batch = _nulled(batch, column, bad)


def _blame(
    batch: pa.RecordBatch,
    convert: Callable[[pa.RecordBatch, Faults], object],
    path: str,
    error: pa.ArrowException,
) -> tuple[str, np.ndarray]:
    """The column that Arrow fails on, and the rows: bool [rows], some but not all."""

    def fails(part: pa.RecordBatch) -> bool:
        try:
            convert(part, Faults(part.num_rows))
        except pa.ArrowException:
            return True
        return False

    column = _culprit(batch, fails)
    kind = batch.schema.field(column).type
    unreadable = DataError(
        f"column {column!r} of {path!r} holds {kind}, which cannot be read here: "
        f"{str(error).splitlines()[0][:300]}"
    )
    alone = _only(batch, column)
    if fails(alone.slice(0, 0)):
        raise unreadable from error
    bad = np.zeros(batch.num_rows, bool)
    spans = [(0, batch.num_rows)]
    while spans:
        start, rows = spans.pop()
        if not fails(alone.slice(start, rows)):
            continue
        if rows == 1:
            bad[start] = True
            if bad.sum() > MOST_BLAMED:
                raise unreadable from error
        else:
            half = rows // 2
            spans += [(start + half, rows - half), (start, half)]
    there = pc.is_valid(batch.column(column)).to_numpy(zero_copy_only=False)
    if not bad.any() or not (there & ~bad).any():
        raise unreadable from error
    return column, bad


def _culprit(batch: pa.RecordBatch, fails: Callable[[pa.RecordBatch], bool]) -> str:
    """The column without whose values the rest would convert."""
    everything = np.ones(batch.num_rows, bool)
    for column in batch.schema.names:
        batch = _nulled(batch, column, everything)
        if not fails(batch):
            return str(column)
    return str(batch.schema.names[-1])


def _only(batch: pa.RecordBatch, column: str) -> pa.RecordBatch:
    """The batch with nulls in all columns but one."""
    everything = np.ones(batch.num_rows, bool)
    for name in batch.schema.names:
        if name != column:
            batch = _nulled(batch, name, everything)
    return batch


def _nulled(batch: pa.RecordBatch, column: str, bad: np.ndarray) -> pa.RecordBatch:
    """The batch with nulls in some rows of a column; without its type, if in all."""
    index = batch.schema.get_field_index(column)
    if bad.all():
        return batch.set_column(index, column, pa.nulls(len(bad)))
    rows = pa.array(np.arange(len(bad)), mask=bad)
    return batch.set_column(index, column, batch.column(index).take(rows))
