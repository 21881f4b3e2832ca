"""Writes a small dataset directory from NumPy columns, without Beam."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import (
    DATASET_FILE,
    DatasetManifest,
    LabelStats,
    RecordColumn,
    RecordFile,
    RowCounts,
    SplitStats,
    content_id,
    file_digest,
    write_manifest,
)

Columns = Mapping[str, Any]
"""Record column to [N], [N, size] or a list of N lists."""


def write_records(
    directory: pathlib.Path,
    dataset: DatasetSpec,
    columns: tuple[RecordColumn, ...],
    splits: Mapping[str, Columns],
    *,
    block_rows: int = 16,
    files: int = 2,
    layout: str = "blocks",
    compression: str = "none",
) -> DatasetManifest:
    """Writes transformed columns as a dataset directory (without a transform graph).

    Args:
        directory: Receives `dataset.json` and the splits.
        dataset: The data specification.
        columns: The record columns.
        splits: Split to columns.
        block_rows: Rows of a block.
        files: Files a split.
        layout: `blocks` or `rows`.
        compression: `none` or `gzip`.
    """
    stats = {}
    for split, values in splits.items():
        rows = len(values[columns[0].name])
        written = []
        for number, part in enumerate(np.array_split(np.arange(rows), files)):
            path = f"{split}/part-{number:05d}-of-{files:05d}.tfrecord"
            (directory / split).mkdir(parents=True, exist_ok=True)
            step = block_rows if layout == "blocks" else 1
            cuts = [part[i : i + step] for i in range(0, len(part), step)]
            options = tf.io.TFRecordOptions("GZIP" if compression == "gzip" else "")
            with tf.io.TFRecordWriter(str(directory / path), options) as writer:
                for cut in cuts:
                    writer.write(_example(columns, values, cut, layout == "blocks"))
            blocks = tuple(len(c) for c in cuts) if layout == "blocks" else ()
            written.append(RecordFile(path=path, rows=len(part), blocks=blocks))
        stats[split] = _stats(dataset, values, rows, tuple(written))
    total = sum(s.rows for s in stats.values())
    manifest = DatasetManifest(
        tfmtl_version="test",
        schema_hash=dataset.fingerprint(),
        content_id=content_id(
            {
                f.path: file_digest(directory / f.path)
                for s in stats.values()
                for f in s.files
            }
        ),
        dataset=dataset,
        layout="blocks" if layout == "blocks" else "rows",
        compression="gzip" if compression == "gzip" else "none",
        block_rows=block_rows,
        columns=columns,
        splits=stats,
        counts=RowCounts(read=total, written=total),
    )
    write_manifest(manifest, directory / DATASET_FILE)
    return manifest


def _stats(
    dataset: DatasetSpec, values: Columns, rows: int, files: tuple[RecordFile, ...]
) -> SplitStats:
    names = [*dataset.scenario_values, "unknown"]
    scenario = np.asarray(values.get("scenario", np.zeros(rows, np.int64)))
    tasks, cells = {}, {}
    for task in dataset.tasks:
        label = np.asarray(values[f"label/{task.name}"], np.float64)
        tasks[task.name] = _label_stats(label, task.classes)
        cells[task.name] = {
            n: _label_stats(label[scenario == i], task.classes)
            for i, n in enumerate(names)
        }
    return SplitStats(
        rows=rows,
        files=files,
        tasks=tasks,
        cells=cells,
        scenarios={n: int((scenario == i).sum()) for i, n in enumerate(names)},
    )


def _label_stats(label: np.ndarray, classes: int | None) -> LabelStats:
    known = label[~np.isnan(label)]
    counts = None
    if classes:
        found = np.bincount(known.astype(np.int64), minlength=classes)
        counts = tuple(int(c) for c in found)
    return LabelStats(rows=len(known), total=float(known.sum()), classes=counts)


def _example(
    columns: tuple[RecordColumn, ...], values: Columns, rows: np.ndarray, block: bool
) -> bytes:
    features = {}
    for column in columns:
        cells = [values[column.name][i] for i in rows]
        if column.shape == "scalar":
            flat = cells
        else:
            flat = [v for cell in cells for v in cell]
        features[column.name] = _feature(column.dtype, flat)
        if column.shape == "ragged" and block:
            lengths = [len(c) for c in cells]
            features[f"{column.name}#lengths"] = _feature("int", lengths)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString(deterministic=True))


def _feature(dtype: str, values: list[Any]) -> Any:
    if dtype == "int":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    if dtype == "float":
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
