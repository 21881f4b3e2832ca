"""Raw files -> the inputs of a served model, as dense arrays: offline scoring.

The same rules as the Beam job's: a row that does not parse becomes a dead letter that
says why, and the good ones say where in their file they stood.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns, plan, sources
from pipeline.faults import Faults, guarded
from pipeline.validate import canonical_inputs, rejected_lines, rejected_rows
from tfmtl.schema.dataset import DatasetSpec


@dataclasses.dataclass(frozen=True)
class ServedBatch:
    """Some good rows of a raw file.

    Attributes:
        path: The file.
        inputs: Served input to [B], [B, L] or [B, size].
        key: The rows' `keys.row` as text, or None where the data have none.
        file_row: int64 [B], positions in the file, as `preprocess` counts them.
    """

    path: str
    inputs: dict[str, np.ndarray]
    key: pa.Array | None
    file_row: np.ndarray


def read_served(
    dataset: DatasetSpec, patterns: Sequence[str], batch_rows: int = 8192
) -> Iterator[ServedBatch | pa.Table]:
    """Reads raw files as the inputs of the served model.

    Args:
        dataset: The model's data specification.
        patterns: Files or globs: Parquet, CSV or Avro. They need no label columns.
        batch_rows: Rows of a batch at most.

    Yields:
        Each row of the sorted files once: in a batch of good ones, in their order, or
        in a table of dead letters (`validate.rejected_schema`).

    Raises:
        ConfigError: A pattern fits no file.
        DataError: A file is damaged or lacks a column.
    """
    items = plan.raw_inputs(dataset)
    row_key = dataset.keys.row
    needed = sorted({i.column for i in items})
    paths = sources.resolve(patterns)
    has_key = row_key is not None and all(
        row_key in sources.column_names(p) for p in paths
    )
    wanted = sorted({*needed, row_key}) if has_key and row_key else needed
    for unit in sources.inspect(paths, wanted).units:
        positions = sources.Positions(unit.first_row)
        for batch in sources.read(unit, wanted):
            if isinstance(batch, sources.Broken):
                positions.skip(batch.rows)
                yield rejected_lines(wanted, batch, unit.path)
                continue
            for start in range(0, batch.num_rows, batch_rows):
                part = batch.slice(start, batch_rows)
                key = row_key if has_key else None
                rows = positions.take(part.num_rows)
                yield from _served(items, part, unit.path, rows, key)


def _served(
    items: Sequence[plan.RawInput],
    batch: pa.RecordBatch,
    path: str,
    rows: np.ndarray,
    row_key: str | None,
) -> Iterator[ServedBatch | pa.Table]:
    """The batch's good rows, and its dead letters where it has any."""
    names = batch.schema.names

    def convert(
        part: pa.RecordBatch, faults: Faults
    ) -> tuple[dict[str, pa.Array], pa.Array | None]:
        raw = {name: columns.decoded(part.column(name)) for name in names}
        inputs = canonical_inputs(items, raw, faults, path)
        if row_key is None:
            return inputs, None
        key, bad = columns.strings(raw[row_key], not sources.has_types(path))
        faults.add(bad, f"column {row_key!r}: invalid UTF-8")
        return inputs, key

    (canonical, key), faults = guarded(batch, convert, path)
    good = faults.codes == 0
    if not good.all():
        raw = {name: columns.decoded(batch.column(name)) for name in names}
        yield rejected_rows(names, raw, faults, path, rows)
        canonical = {n: a.filter(pa.array(good)) for n, a in canonical.items()}
        key = None if key is None else key.filter(pa.array(good))
    if good.any():
        yield ServedBatch(
            path=path,
            inputs={i.name: _dense(i, canonical[i.name]) for i in items},
            key=key,
            file_row=rows[good],
        )


def _dense(item: plan.RawInput, array: pa.Array) -> np.ndarray:
    """A canonical column as the served signature takes it; lists padded at the end."""
    if item.kind == "string":
        return _objects(array)
    if item.kind in ("float", "time"):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    if item.kind == "vector":
        flat = np.asarray(array.flatten().to_numpy(zero_copy_only=False))
        return flat.reshape(-1, item.size)
    flat, lengths = columns.lists(array, None)
    missing, dtype = ("", object) if item.kind == "strings" else (np.nan, np.float32)
    longest = int(lengths.max(initial=0))
    dense = np.full((len(lengths), max(longest, 1)), missing, dtype)
    values = (
        _objects(flat)
        if item.kind == "strings"
        else flat.to_numpy(zero_copy_only=False)
    )
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    dense[rows, places] = values
    return dense


def _objects(array: pa.Array) -> np.ndarray:
    text = pc.fill_null(array.cast(pa.large_string()), "")
    return np.asarray(text.to_numpy(zero_copy_only=False), dtype=object)
