"""Writes the rows of a shard as TFRecords: blocks of rows, or one row a record."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import plan
from pipeline.transform import Ragged, Transformer
from tfmtl.failpoints import failpoint
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import LabelStats

LENGTHS = "#lengths"
"""Suffix of the column beside a ragged one."""


@dataclasses.dataclass
class Cells:
    """Counts of one split of one shard, by task and scenario.

    Attributes:
        rows: int64 [S + 1], rows of each scenario; the last one is every other value.
        labelled: Task to int64 [S + 1], rows with a label.
        total: Task to float64 [S + 1], sum of the labels.
        classes: Multiclass task to int64 [S + 1, C], rows of each class.
        time_min: Oldest timestamp in microseconds.
        time_max: Newest.
    """

    rows: np.ndarray
    labelled: dict[str, np.ndarray]
    total: dict[str, np.ndarray]
    classes: dict[str, np.ndarray]
    time_min: int | None = None
    time_max: int | None = None

    @staticmethod
    def empty(dataset: DatasetSpec) -> Cells:
        """Counts of nothing."""
        width = len(dataset.scenario_values) + 1
        return Cells(
            np.zeros(width, np.int64),
            {t: np.zeros(width, np.int64) for t in dataset.task_names},
            {t: np.zeros(width, np.float64) for t in dataset.task_names},
            {
                t.name: np.zeros([width, t.classes], np.int64)
                for t in dataset.tasks
                if t.classes
            },
        )

    def add(self, batch: pa.RecordBatch, scenario: np.ndarray) -> None:
        """Adds a canonical batch whose rows have these scenario ids."""
        width = len(self.rows)
        self.rows += np.bincount(scenario, minlength=width)
        for task in self.labelled:
            label = batch.column(f"label/{task}").to_numpy(zero_copy_only=False)
            known = ~np.isnan(label)
            where = scenario[known]
            self.labelled[task] += np.bincount(where, minlength=width)
            self.total[task] += np.bincount(
                where, weights=label[known].astype(np.float64), minlength=width
            )
            if task in self.classes:
                np.add.at(self.classes[task], (where, label[known].astype(np.int64)), 1)
        if "key/timestamp" in batch.schema.names and batch.num_rows:
            times = batch.column("key/timestamp").to_numpy(zero_copy_only=False)
            self._stretch(int(times.min()), int(times.max()))

    def merge(self, other: Cells) -> None:
        """Adds the counts of another part."""
        self.rows += other.rows
        for task in self.labelled:
            self.labelled[task] += other.labelled[task]
            self.total[task] += other.total[task]
            if task in self.classes:
                self.classes[task] += other.classes[task]
        if other.time_min is not None and other.time_max is not None:
            self._stretch(other.time_min, other.time_max)

    def stats(self, task: str, scenario: int | None = None) -> LabelStats:
        """What a manifest says of a task, in one scenario or in all."""
        part = slice(None) if scenario is None else slice(scenario, scenario + 1)
        classes = self.classes.get(task)
        return LabelStats(
            rows=int(self.labelled[task][part].sum()),
            total=float(self.total[task][part].sum()),
            classes=None
            if classes is None
            else tuple(int(c) for c in classes[part].sum(axis=0)),
        )

    def _stretch(self, low: int, high: int) -> None:
        self.time_min = low if self.time_min is None else min(self.time_min, low)
        self.time_max = high if self.time_max is None else max(self.time_max, high)


@dataclasses.dataclass(frozen=True)
class Written:
    """One file of one split.

    Attributes:
        split: Code of the split.
        shard: Number of the shard.
        path: The file, absolute.
        rows: Rows in it.
        blocks: Rows of each record; empty for one-row records.
        size: Bytes; 0 where compressed.
        digest: Of the rows and how they are cut. Not of the bytes: the encoder writes
            the columns of a record in any order.
        cells: Counts.
    """

    split: int
    shard: int
    path: str
    rows: int
    blocks: tuple[int, ...]
    size: int
    digest: str
    cells: Cells


class BlockWriter:
    """Transforms rows and writes them to one TFRecord file per split and shard."""

    def __init__(
        self,
        dataset: DatasetSpec,
        transformer: Transformer,
        layout: str,
        compression: str,
        block_rows: int,
    ) -> None:
        from tfx_bsl.coders import example_coder

        self._dataset = dataset
        self._transformer = transformer
        self._layout = layout
        self._compression = compression
        self._block_rows = block_rows
        self._encoder = example_coder.RecordBatchToExamplesEncoder()

    def write(
        self, table: pa.Table, split: int, shard: int, path: pathlib.Path
    ) -> Written:
        """Writes the rows of one split of one shard.

        Args:
            table: Canonical rows in their order, those of a group adjacent.
            split: Code of the split.
            shard: Number of the shard.
            path: The file; it appears when it is complete.
        """
        from tfmtl._keras import tf

        cells = Cells.empty(self._dataset)
        blocks: list[int] = []
        size = 0
        digest = hashlib.blake2b(digest_size=16)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        options = "GZIP" if self._compression == "gzip" else ""
        with tf.io.TFRecordWriter(str(partial), options=options) as writer:
            for batch in self._blocks(table):
                outputs = self._transformer(batch)
                none = np.zeros(batch.num_rows, np.int64)
                scenario = outputs.get("scenario", none)
                assert isinstance(scenario, np.ndarray)
                cells.add(batch, scenario)
                columns = self._columns(outputs, batch)
                digest.update(columns.serialize())
                encoded: list[bytes] = self._encoder.encode(columns)
                for record in encoded:
                    writer.write(record)
                    size += len(record) + 16  # length, two checksums
                failpoint("beam-sink")
                blocks.append(batch.num_rows)
        os.replace(partial, path)
        return Written(
            split,
            shard,
            str(path),
            sum(blocks),
            tuple(blocks) if self._layout == "blocks" else (),
            0 if options else size,
            digest.hexdigest(),
            cells,
        )

    def _blocks(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        group = table[plan.GROUP].to_numpy() if self._dataset.keys.group else None
        cuts = block_cuts(table.num_rows, self._block_rows, group)
        for start, stop in itertools.pairwise(cuts):
            part = table.slice(start, stop - start).combine_chunks()
            yield part.to_batches()[0]

    def _columns(
        self, outputs: Mapping[str, np.ndarray | Ragged], batch: pa.RecordBatch
    ) -> pa.RecordBatch:
        """The records' columns, each row of this batch one record."""
        columns: dict[str, pa.Array | np.ndarray | Ragged] = dict(outputs)
        for name in batch.schema.names:
            if name.startswith(("label/", "weight/", "teacher/", "key/")):
                columns[name] = batch.column(name)
        if self._layout == "blocks":
            arrays = _block_arrays(columns)
        else:
            arrays = {n: _row_lists(v, batch.num_rows) for n, v in columns.items()}
        names = sorted(arrays)
        return pa.RecordBatch.from_arrays([arrays[n] for n in names], names=names)


def block_cuts(rows: int, block_rows: int, group: np.ndarray | None) -> list[int]:
    """Where blocks begin and end: 0, ..., rows.

    Args:
        rows: In the shard.
        block_rows: Rows wanted in a block.
        group: Group of each row, those of a group adjacent; blocks then end at the end
            of the group that is nearest, and hold more rows where one group does.
    """
    marks = np.arange(block_rows, rows, block_rows)
    if group is not None and rows:
        ends = np.append(np.flatnonzero(group[1:] != group[:-1]) + 1, rows)
        after = np.minimum(np.searchsorted(ends, marks), len(ends) - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.abs(ends[before] - marks) <= np.abs(ends[after] - marks)
        marks = np.where(nearer, ends[before], ends[after])
    inner = {int(m) for m in marks if 0 < m < rows}
    return [0, *sorted(inner), rows] if rows else [0]


def _values(value: Any) -> pa.Array:
    """Values as the encoder takes them: int64, float32 or bytes, flat."""
    if isinstance(value, np.ndarray):
        kind = np.int64 if value.dtype.kind in "iub" else np.float32
        return pa.array(value.reshape(-1).astype(kind, copy=False))
    text = pa.types.is_large_string(value.type)
    return value.cast(pa.large_binary()) if text else value


def _block_arrays(columns: Mapping[str, Any]) -> dict[str, pa.Array]:
    """One record for all rows: each column is one list."""
    flat: dict[str, pa.Array] = {}
    for name, value in columns.items():
        if isinstance(value, tuple):
            flat[name] = _values(value[0])
            flat[name + LENGTHS] = _values(value[1])
        else:
            flat[name] = _values(value)
    return {
        n: pa.LargeListArray.from_arrays(pa.array([0, len(v)], pa.int64()), v)
        for n, v in flat.items()
    }


def _row_lists(value: Any, rows: int) -> pa.Array:
    """One record a row: each column is a list of this row's values."""
    if isinstance(value, tuple):
        flat, lengths = _values(value[0]), value[1]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
    else:
        flat = _values(value)
        offsets = np.arange(rows + 1) * (len(flat) // rows)
    return pa.LargeListArray.from_arrays(pa.array(offsets.astype(np.int64)), flat)
