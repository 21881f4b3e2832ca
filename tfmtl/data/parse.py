"""Serialized records -> dense columns, a pool of blocks at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl.schema.manifest import DatasetManifest, RecordColumn

_DTYPES = {"int": "int64", "float": "float32", "bytes": "string"}


def wanted_columns(
    manifest: DatasetManifest, features: Sequence[str] | None, keys: bool
) -> tuple[str, ...]:
    """Names of the record columns to parse; what nobody reads is not even decoded."""
    names = []
    for column in manifest.columns:
        kind = column.name.partition("/")[0] if "/" in column.name else "feature"
        if kind == "feature":
            wanted = features is None or column.name in features
        else:
            wanted = keys or kind != "key"
        if wanted:
            names.append(column.name)
    return tuple(names)


def parse_pool(
    serialized: Any, manifest: DatasetManifest, columns: Sequence[str]
) -> dict[str, Any]:
    """Parses the records of one pool.

    Args:
        serialized: [R] serialized `tf.train.Example`s: blocks, or rows.
        manifest: Says the layout and the columns.
        columns: Names of the columns to parse.

    Returns:
        Column to [N], [N, L] (ragged, padded with 0) or [N, size]; ids are int32. And
        `#rows`, N.
    """
    specs = [manifest.column(name) for name in dict.fromkeys(columns)]
    features: dict[str, Any] = {}
    for column in specs:
        dtype = tf.dtypes.as_dtype(_DTYPES[column.dtype])
        features[column.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        if column.shape == "ragged" and manifest.layout == "blocks":
            features[f"{column.name}#lengths"] = tf.io.RaggedFeature(
                tf.int64, row_splits_dtype=tf.int64
            )
    parsed = tf.io.parse_example(serialized, features)
    result = {c.name: _dense(c, parsed, manifest.layout) for c in specs}
    result["#rows"] = tf.shape(result[specs[0].name])[0]
    return result


def _dense(column: RecordColumn, parsed: dict[str, Any], layout: str) -> Any:
    ragged = parsed[column.name]
    values = ragged.flat_values
    if column.dtype == "int" and column.name != "key/timestamp":
        values = tf.cast(values, tf.int32)
    if column.shape == "scalar":
        return values
    if column.shape == "vector":
        return tf.reshape(values, [-1, column.size])
    if layout == "blocks":
        lengths = parsed[f"{column.name}#lengths"].flat_values
        rows = tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)
    else:
        rows = ragged.with_flat_values(values)
    # Padded before any permutation: a gather of dense rows is ten times faster.
    return rows.to_tensor(shape=[None, column.size])
