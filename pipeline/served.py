"""Raw files -> the inputs of a served model, as dense arrays: offline scoring.

The same rules as the Beam job's: a row that does not parse keeps its place and says
why, so that predictions line up with the rows of the files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns, plan, sources
from pipeline.validate import Faults, canonical_inputs
from tfmtl.errors import DataError
from tfmtl.schema.dataset import DatasetSpec


@dataclasses.dataclass(frozen=True)
class ServedBatch:
    """Some rows of a raw file.

    Attributes:
        path: The file.
        inputs: Served input to [B], [B, L] or [B, size].
        key: The rows' `keys.row` as text, or None where the data have none.
        errors: [B] why the row does not parse, or None.
    """

    path: str
    inputs: dict[str, np.ndarray]
    key: pa.Array | None
    errors: list[str | None]


def read_served(
    dataset: DatasetSpec, patterns: Sequence[str], batch_rows: int = 8192
) -> Iterator[ServedBatch]:
    """Reads raw files as the inputs of the served model.

    Args:
        dataset: The model's data specification.
        patterns: Files or globs: Parquet, CSV or Avro. They need no label columns.
        batch_rows: Rows of a batch at most.

    Yields:
        All rows, in the order of the sorted files.

    Raises:
        ConfigError: A pattern fits no file.
        DataError: A file is damaged, lacks a column, or has a line that is no row.
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
        for batch in sources.read(unit, wanted):
            if isinstance(batch, sources.Broken):
                raise DataError(
                    f"{unit.path!r} has {len(batch.lines)} lines with a wrong number "
                    f"of fields, the first: {batch.lines[0][:200]!r}"
                )
            for start in range(0, batch.num_rows, batch_rows):
                part = batch.slice(start, batch_rows)
                yield _served(items, part, unit.path, row_key if has_key else None)


def _served(
    items: Sequence[plan.RawInput],
    batch: pa.RecordBatch,
    path: str,
    row_key: str | None,
) -> ServedBatch:
    raw = {name: columns.decoded(batch.column(name)) for name in batch.schema.names}
    faults = Faults(batch.num_rows)
    canonical = canonical_inputs(items, raw, faults, path)
    return ServedBatch(
        path=path,
        inputs={i.name: _dense(i, canonical[i.name]) for i in items},
        key=None if row_key is None else columns.strings(raw[row_key])[0],
        errors=[faults.reasons[c] or None for c in faults.codes],
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
