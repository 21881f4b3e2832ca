"""Reads a dataset directory back with stock TensorFlow only."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.schema.manifest import DatasetManifest

_TYPES = {"int": tf.int64, "float": tf.float32, "bytes": tf.string}


def read_blocks(
    folder: pathlib.Path, manifest: DatasetManifest, split: str
) -> list[dict[str, Any]]:
    """One dict for each row of a split of block records."""
    spec: dict[str, Any] = {}
    for column in manifest.columns:
        spec[column.name] = tf.io.VarLenFeature(_TYPES[column.dtype])
        if column.shape == "ragged":
            spec[column.name + "#lengths"] = tf.io.VarLenFeature(tf.int64)
    rows: list[dict[str, Any]] = []
    for file in manifest.splits[split].files:
        sizes = []
        for record in _records(folder / file.path, manifest):
            parsed = tf.io.parse_single_example(record, spec)
            flat = {n: v.values.numpy() for n, v in parsed.items()}
            block = _columns(flat, manifest)
            size = len(next(iter(block.values())))
            assert all(len(v) == size for v in block.values())
            sizes.append(size)
            rows += [{n: v[i] for n, v in block.items()} for i in range(size)]
        assert tuple(sizes) == file.blocks
        assert sum(sizes) == file.rows
    return rows


def read_rows(
    folder: pathlib.Path, manifest: DatasetManifest, split: str
) -> list[dict[str, Any]]:
    """One dict for each row of a split of one-row records."""
    spec = {c.name: tf.io.VarLenFeature(_TYPES[c.dtype]) for c in manifest.columns}
    rows = []
    for file in manifest.splits[split].files:
        assert file.blocks == ()
        for record in _records(folder / file.path, manifest):
            parsed = tf.io.parse_single_example(record, spec)
            row = {n: v.values.numpy() for n, v in parsed.items()}
            for column in manifest.columns:
                if column.shape == "scalar":
                    (row[column.name],) = row[column.name]
            rows.append(row)
    return rows


def frozen(rows: list[dict[str, Any]]) -> list[str]:
    """The multiset of rows, comparable."""
    return sorted(
        repr({n: np.asarray(v).tolist() for n, v in sorted(row.items())})
        for row in rows
    )


def _records(path: pathlib.Path, manifest: DatasetManifest) -> Any:
    kind = "GZIP" if manifest.compression == "gzip" else ""
    return tf.data.TFRecordDataset(str(path), compression_type=kind)


def _columns(flat: dict[str, np.ndarray], manifest: DatasetManifest) -> dict[str, Any]:
    block: dict[str, Any] = {}
    for column in manifest.columns:
        values = flat[column.name]
        if column.shape == "ragged":
            ends = np.cumsum(flat[column.name + "#lengths"])
            assert ends[-1] == len(values)
            block[column.name] = np.split(values, ends[:-1])
        elif column.shape == "vector":
            block[column.name] = list(values.reshape(-1, column.size))
        else:
            block[column.name] = values
    return block
