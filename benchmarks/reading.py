"""Rows per second: blocks read by `tfmtl.data` against one-row records, same data.

    python -m benchmarks.reading [--rows 200000]

The rival is the usual fast layout: `TFRecordDataset -> batch -> parse_example` over one
`tf.train.Example` a row, unshuffled. Ours shuffles, which costs it something.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data.read import Reader
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import DatasetManifest, RecordColumn
from tfmtl.testing.records import write_records

INTS, FLOATS, BATCH = 20, 6, 4096


def measure(rows: int = 200_000) -> dict[str, float]:
    """Rows per second of both layouts, best of three epochs, and their ratio."""
    spec, columns = _schema()
    draw = np.random.default_rng(0)
    values: dict[str, Any] = {f"c{i}": draw.integers(1, 999, rows) for i in range(INTS)}
    values |= {f"n{i}": draw.normal(size=rows) for i in range(FLOATS)}
    values["label/click"] = draw.integers(0, 2, rows).astype(float)
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for layout in ("blocks", "rows"):
            directory = pathlib.Path(folder) / layout
            manifest = write_records(
                directory,
                spec,
                columns,
                {"train": values},
                block_rows=4096,
                files=4,
                layout=layout,
            )
            if layout == "blocks":
                reader = Reader(directory, manifest, ("train",), BATCH, shuffle="rows")
                found[layout] = _best(rows, lambda r=reader: r.epoch())
            else:
                found[layout] = _best(
                    rows, lambda d=directory, m=manifest: _usual(d, m)
                )
    return {**found, "ratio": found["blocks"] / found["rows"]}


def _schema() -> tuple[DatasetSpec, tuple[RecordColumn, ...]]:
    features: list[dict[str, Any]] = [
        {"name": f"c{i}", "kind": "categorical"} for i in range(INTS)
    ]
    features += [
        {"name": f"n{i}", "kind": "numeric", "indicator": False} for i in range(FLOATS)
    ]
    spec = DatasetSpec.model_validate(
        {
            "features": features,
            "tasks": [{"name": "click", "label": "click"}],
            "split": {"by": "hash", "column": "row"},
        }
    )
    columns = [RecordColumn(name=f"c{i}", dtype="int", rows=1000) for i in range(INTS)]
    columns += [RecordColumn(name=f"n{i}", dtype="float") for i in range(FLOATS)]
    columns.append(RecordColumn(name="label/click", dtype="float"))
    return spec, tuple(columns)


def _usual(directory: pathlib.Path, manifest: DatasetManifest) -> tf.data.Dataset:
    kinds = {"int": tf.int64, "float": tf.float32}
    features = {
        c.name: tf.io.FixedLenFeature([], kinds[c.dtype]) for c in manifest.columns
    }
    files = [str(directory / f.path) for f in manifest.splits["train"].files]
    return (
        tf.data.TFRecordDataset(files, buffer_size=1 << 22)
        .batch(BATCH)
        .map(lambda s: tf.io.parse_example(s, features), num_parallel_calls=2)
        .prefetch(2)
    )


def _best(rows: int, epoch: Any) -> float:
    """Rows/s of the best of three epochs, drawn inside a graph as training does."""
    seconds = []
    for _ in range(3):
        batches = epoch()
        began = time.perf_counter()
        batches.reduce(np.int64(0), lambda count, _: count + 1)
        seconds.append(time.perf_counter() - began)
    return rows / min(seconds)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    found = measure(parser.parse_args().rows)
    print(f"blocks, shuffled    {found['blocks']:>12,.0f} rows/s")
    print(f"rows, parse_example {found['rows']:>12,.0f} rows/s")
    print(f"ratio               {found['ratio']:>12.1f}  (target: at least 10)")


if __name__ == "__main__":
    main()
