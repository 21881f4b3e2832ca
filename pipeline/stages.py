"""The steps of the job as Beam sees them; elements are Arrow batches, never rows.

Counts travel as elements of their own, not as runner metrics: each step says how many
rows it got and where they went, and the driver adds up.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import (
    leakage,
    plan,
    sampling,
    sources,
    statistics,
    vocabulary,
    workspace,
)
from pipeline.sinks import BlockWriter, Written
from pipeline.split import TimeRule
from pipeline.transform import Transformer
from pipeline.validate import Place, Validator
from tfmtl.errors import DataError
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.split import SPLITS

REPORT, REJECTED, VOCABULARY = "report", "rejected", "vocabulary"


@dataclasses.dataclass(frozen=True)
class UnitReport:
    """What became of one unit of input."""

    file: int
    first_row: int
    read: int
    kept: int
    rejected: dict[str, int]
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """One shard of canonical rows on disk."""

    shard: int
    path: str
    received: int
    duplicates: int
    rows: int
    times: np.ndarray
    """Distinct timestamps, where the split goes by time."""
    counts: np.ndarray


@dataclasses.dataclass(frozen=True)
class AnalysisReport:
    """What the training rows of one shard say."""

    shard: int
    splits: tuple[int, ...]
    """Rows by code of split: train, validation, test, dropped, ..., sampled out."""
    numeric: dict[str, statistics.Moments | statistics.Quantiles]
    sample: bytes
    sampled: sampling.Sampled | None


@dataclasses.dataclass(frozen=True)
class WriteReport:
    """The files one shard became."""

    shard: int
    dropped: int
    sampled_out: int
    files: tuple[Written, ...]


class Ingest(beam.DoFn):
    """Reads a unit, validates it and cuts it into shards.

    Yields (shard, Arrow IPC bytes); tagged `rejected`: the same for rejected rows;
    tagged `report`: one `UnitReport`.
    """

    def __init__(self, dataset: DatasetSpec, shards: int) -> None:
        self._dataset = dataset
        self._shards = shards

    def setup(self) -> None:
        self._validator = Validator(self._dataset)

    def process(self, unit: sources.Unit) -> Iterator[Any]:
        read = kept = 0
        reasons: dict[str, int] = {}
        error = None
        positions = sources.Positions(unit.first_row)
        try:
            for batch in sources.read(unit, self._validator.columns):
                if isinstance(batch, sources.Broken):
                    read += len(batch.lines)
                    positions.skip(batch.rows)
                    bad = self._validator.broken_lines(batch, unit.path)
                    yield self._reject(unit, bad, reasons)
                    continue
                rows = positions.take(batch.num_rows)
                place = Place(unit.file, unit.path, rows)
                good, rejected = self._validator(batch, place)
                read += batch.num_rows
                kept += good.num_rows
                if rejected is not None:
                    yield self._reject(unit, rejected, reasons)
                yield from self._cut(good)
        except DataError as problem:
            # A report, not an exception: runners differ in what they make of those.
            error = str(problem)
        report = UnitReport(unit.file, unit.first_row, read, kept, reasons, error)
        yield beam.pvalue.TaggedOutput(REPORT, report)

    def _reject(
        self, unit: sources.Unit, rows: pa.Table, reasons: dict[str, int]
    ) -> beam.pvalue.TaggedOutput:
        for item in pc.value_counts(rows["reason"]).to_pylist():
            reasons[item["values"]] = reasons.get(item["values"], 0) + item["counts"]
        element = (unit.file % self._shards, vocabulary.to_bytes(rows))
        return beam.pvalue.TaggedOutput(REJECTED, element)

    def _cut(self, batch: pa.RecordBatch) -> Iterator[tuple[int, bytes]]:
        by = plan.GROUP if self._dataset.keys.group else plan.ORDER
        shard = batch.column(by).to_numpy() % np.uint64(self._shards)
        order = np.argsort(shard, kind="stable")
        table = pa.Table.from_batches([batch]).take(pa.array(order))
        edges = np.searchsorted(shard[order], np.arange(self._shards + 1))
        for number in range(self._shards):
            start, stop = int(edges[number]), int(edges[number + 1])
            if stop > start:
                part = table.slice(start, stop - start)
                yield number, vocabulary.to_bytes(part)


class WriteRejected(beam.DoFn):
    """Writes the rejected rows of some files to one dead-letter Parquet file."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        shard, parts = element
        table = pa.concat_tables([vocabulary.from_bytes(p) for p in parts])
        table = table.sort_by([("file", "ascending"), ("file_row", "ascending")])
        path = pathlib.Path(self._folder) / f"part-{shard:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table, partial)
        os.replace(partial, path)
        yield table.num_rows


class WriteShard(beam.DoFn):
    """Puts the rows of one shard in order, drops duplicates, writes an Arrow file."""

    def __init__(self, dataset: DatasetSpec, folder: str, histogram: bool) -> None:
        self._dataset = dataset
        self._folder = folder
        self._histogram = histogram

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[ShardReport]:
        shard, parts = element
        table = pa.concat_tables([vocabulary.from_bytes(p) for p in parts])
        received = table.num_rows
        order, duplicates = self._order(table)
        table = table.take(pa.array(order))
        path = pathlib.Path(self._folder) / f"{shard:05d}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with (
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table, max_chunksize=sources.BATCH_ROWS)
        os.replace(partial, path)
        times = counts = np.zeros(0, np.int64)
        if self._histogram:
            stamps = table["key/timestamp"].to_numpy()
            times, counts = np.unique(stamps, return_counts=True)
        yield ShardReport(
            shard, str(path), received, duplicates, table.num_rows, times, counts
        )

    def _order(self, table: pa.Table) -> tuple[np.ndarray, int]:
        """Positions by rising hash, groups adjacent, without duplicates."""
        names = [plan.GROUP] if self._dataset.keys.group else []
        names.append(plan.ORDER)
        if self._dataset.deduplicate:
            names.append(plan.ORDER_2)
        keys = [table[n].to_numpy() for n in names]
        order = np.lexsort(keys[::-1])
        if not self._dataset.deduplicate or not len(order):
            return order, 0
        # 128 bits of hash over all raw columns: equal only for equal rows.
        same = np.ones(len(order) - 1, bool)
        for key in keys:
            same &= key[order][1:] == key[order][:-1]
        keep = np.concatenate([[True], ~same])
        return order[keep], int(same.sum())


def shard_splits(
    dataset: DatasetSpec, table: pa.Table, rule: TimeRule | None
) -> np.ndarray:
    """Codes of the splits of a shard's rows: int8 [rows]."""
    if rule is not None:
        codes = rule.assign(table["key/timestamp"].to_numpy())
    else:
        codes = np.asarray(table[plan.SPLIT].to_numpy())
    return sampling.without_sampled_out(dataset, table, codes)


def read_shard(path: str) -> pa.Table:
    """The canonical rows of a shard, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(path)).read_all()


class Analyse(beam.DoFn):
    """Learns from the training rows of a shard.

    Yields one `AnalysisReport`; tagged `vocabulary`: ((vocabulary, part), counts).
    """

    def __init__(
        self, dataset: DatasetSpec, rule: TimeRule | None, sample: int
    ) -> None:
        self._dataset = dataset
        self._rule = rule
        self._sample = sample

    def process(self, shard: ShardReport) -> Iterator[Any]:
        table = read_shard(shard.path)
        codes = shard_splits(self._dataset, table, self._rule)
        train = table.filter(pa.array(codes == plan.TRAIN))
        counter = vocabulary.Counter(self._dataset)
        collector = statistics.Collector(self._dataset)
        for batch in train.to_batches():
            counter.update(batch)
            collector.update(batch)
        for element in counter.partials():
            yield beam.pvalue.TaggedOutput(VOCABULARY, element)
        sample = train.slice(0, self._sample).select(
            leakage.sample_columns(self._dataset)
        )
        splits = np.bincount(codes, minlength=plan.SAMPLED_OUT + 1)
        sampled = None
        if self._dataset.sampling is not None:
            sampled = sampling.count(self._dataset, table, codes)
        yield AnalysisReport(
            shard.shard,
            tuple(int(n) for n in splits),
            collector.result(),
            vocabulary.to_bytes(sample),
            sampled,
        )


class CombineVocabulary(beam.DoFn):
    """Adds up the counts of one part of a vocabulary."""

    def __init__(self, dataset: DatasetSpec) -> None:
        self._dataset = dataset

    def process(
        self, element: tuple[tuple[str, int], Iterable[bytes]]
    ) -> Iterator[tuple[str, bytes, int, int]]:
        (name, _), parts = element
        counted = vocabulary.combine(parts, self._dataset.vocabulary(name))
        yield (name, *counted)


class WriteRecords(beam.DoFn):
    """Transforms the rows of a shard and writes one file for each split."""

    def __init__(
        self,
        dataset: DatasetSpec,
        rule: TimeRule | None,
        folder: str,
        layout: str,
        compression: str,
        block_rows: int,
    ) -> None:
        self._dataset = dataset
        self._rule = rule
        self._folder = pathlib.Path(folder)
        self._format = (layout, compression, block_rows)

    def setup(self) -> None:
        transformer = Transformer(self._dataset, self._folder / "transform")
        self._writer = BlockWriter(self._dataset, transformer, *self._format)

    def process(self, shard: ShardReport) -> Iterator[WriteReport]:
        table = read_shard(shard.path)
        codes = shard_splits(self._dataset, table, self._rule)
        files = []
        for code, name in enumerate(SPLITS):
            rows = table.filter(pa.array(codes == code))
            if rows.num_rows:
                path = self._folder / name / f"shard-{shard.shard:05d}"
                files.append(self._writer.write(rows, code, shard.shard, path))
        dropped = int((codes == plan.DROPPED).sum())
        sampled_out = int((codes == plan.SAMPLED_OUT).sum())
        yield WriteReport(shard.shard, dropped, sampled_out, tuple(files))


class _Save(beam.DoFn):
    def __init__(self, path: str) -> None:
        self._path = path

    def process(self, element: tuple[int, Iterable[Any]]) -> None:
        workspace.save(pathlib.Path(self._path), list(element[1]))


def save(reports: beam.PCollection, name: str, work: pathlib.Path) -> None:
    """Brings the elements of a collection back to the driver, as one file."""
    keyed = reports | f"{name}/key" >> beam.Map(_at_zero)
    _ = (
        keyed
        | f"{name}/group" >> beam.GroupByKey()
        | f"{name}/save" >> beam.ParDo(_Save(str(work / f"{name}.pickle")))
    )


def _at_zero(element: Any) -> tuple[int, Any]:
    return 0, element
