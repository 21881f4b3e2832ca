"""Side tables: an item's vector is stored once, in the row of its vocabulary id."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import columns
from tfmtl.errors import DataError
from tfmtl.schema.dataset import DatasetSpec, vocabulary_names
from tfmtl.schema.feature import SideTable, VectorFeature
from tfmtl.schema.manifest import VocabularyStats


def check(dataset: DatasetSpec) -> None:
    """Refuses side tables that are missing or lack a column, before the job starts.

    Raises:
        DataError: Names the table, the file and the column.
    """
    for feature in _features(dataset):
        table = dataset.side_tables[str(feature.table)]
        try:
            names = pq.read_schema(table.path).names
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"side table {feature.table!r}: {table.path!r} is no readable Parquet "
                f"file ({error})"
            ) from error
        for column in (table.key, feature.source):
            if column not in names:
                raise DataError(
                    f"side table {feature.table!r}: {table.path!r} lacks the column "
                    f"{column!r}; it has: {sorted(names)}"
                )


def write(
    dataset: DatasetSpec,
    values: Mapping[str, Sequence[str]],
    stats: Mapping[str, VocabularyStats],
    directory: pathlib.Path,
) -> tuple[dict[str, str], list[str]]:
    """Writes one `.npy` of float32 [rows of the key's table, size] a feature.

    Rows without a vector (missing, unknown, or not in the table) are zeros.

    Args:
        dataset: The data specification.
        values: Learnt vocabularies.
        stats: Their sizes.
        directory: The dataset directory.

    Returns:
        Feature to file, relative; and warnings about values without a vector.

    Raises:
        DataError: A vector has the wrong size, or a key stands twice.
    """
    files: dict[str, str] = {}
    warnings: list[str] = []
    for feature in _features(dataset):
        table = dataset.side_tables[str(feature.table)]
        key = next(f for f in dataset.features if f.name == table.feature)
        name = vocabulary_names(key)[0].vocabulary
        matrix, found = _matrix(feature, table, values[name], stats[name])
        files[feature.name] = f"side/{feature.name}.npy"
        path = directory / files[feature.name]
        path.parent.mkdir(exist_ok=True)
        np.save(path, matrix)
        if found < len(values[name]):
            warnings.append(
                f"side table {feature.table!r} has no vector for "
                f"{len(values[name]) - found} of {len(values[name])} known values of "
                f"{table.feature!r}"
            )
    return files, warnings


def _features(dataset: DatasetSpec) -> list[VectorFeature]:
    return [
        f
        for f in dataset.features
        if isinstance(f, VectorFeature) and f.table is not None
    ]


def _matrix(
    feature: VectorFeature,
    table: SideTable,
    values: Sequence[str],
    stats: VocabularyStats,
) -> tuple[np.ndarray, int]:
    """The matrix, and how many known values have a vector."""
    ids = {v: 1 + stats.oov_buckets + i for i, v in enumerate(values)}
    matrix = np.zeros((stats.rows, feature.size), np.float32)
    done = np.zeros(stats.rows, bool)
    where = f"side table {feature.table!r} ({table.path!r})"
    for batch in pq.ParquetFile(table.path).iter_batches(
        columns=[table.key, feature.source]
    ):
        keys, _ = columns.strings(batch.column(table.key))
        flat, lengths = columns.lists(batch.column(feature.source), None)
        wrong = (lengths != feature.size) & (lengths != 0)
        numbers, bad = columns.numbers(flat)
        wrong |= columns.any_in_row(bad | ~np.isfinite(numbers), lengths)
        if wrong.any():
            first = keys[int(np.argmax(wrong))].as_py()
            raise DataError(
                f"{where}: {feature.source!r} must hold {feature.size} finite numbers "
                f"or null. Received: {int(lengths[np.argmax(wrong)])} values for the "
                f"key {first!r}"
            )
        there = np.flatnonzero(lengths)
        rows = np.array([ids.get(keys[int(i)].as_py(), 0) for i in there], np.int64)
        known = rows > 0
        twice = done[rows[known]].any() or len(np.unique(rows[known])) < known.sum()
        if twice:
            raise DataError(f"{where}: a value of the key {table.key!r} stands twice")
        vectors = numbers.reshape(-1, feature.size)
        matrix[rows[known]] = vectors[known]
        done[rows[known]] = True
    return matrix, int(done.sum())
