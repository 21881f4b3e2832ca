"""Learns vocabularies: exact counts over the training split, a deterministic order."""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns, hashing, plan
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.feature import SequenceFeature, Vocabulary
from tfmtl.schema.manifest import VocabularyStats

PARTS = 8
"""Counts of a vocabulary are combined in so many parts, by hash of the value."""

_SCHEMA = pa.schema([("value", pa.large_string()), ("count", pa.int64())])
# Lines of a vocabulary file cannot hold these.
_NO_LINE = "[\n\r]"


@dataclasses.dataclass(frozen=True)
class Learnt:
    """A learnt vocabulary.

    Attributes:
        values: By falling frequency, ties by value.
        stats: Sizes, as the manifest has them.
        unwritable: Values left out since a line cannot hold them.
    """

    values: tuple[str, ...]
    stats: VocabularyStats
    unwritable: int = 0


class Counter:
    """Counts the values of one shard, batch by batch.

    It counts what the transform graph keeps: the newest events of a sequence, the first
    values of a set, and no missing value.
    """

    def __init__(self, dataset: DatasetSpec) -> None:
        self._learnt = plan.learnt_vocabularies(dataset)
        self._inputs = {i.name: i for i in plan.raw_inputs(dataset)}
        self._first = {
            f"{f.name}_{c.name}": f"{f.name}_{f.columns[0].name}"
            for f in dataset.features
            if isinstance(f, SequenceFeature)
            for c in f.columns
        }
        self._tables: dict[str, list[pa.Table]] = {n: [] for n in self._learnt}

    def update(self, batch: pa.RecordBatch) -> None:
        """Adds a canonical batch of the training split."""
        for name, inputs in self._learnt.items():
            for item in inputs:
                counts = pc.value_counts(self._values(batch, item))
                if len(counts):
                    parts = [counts.field("values"), counts.field("counts")]
                    self._tables[name].append(pa.table(parts, schema=_SCHEMA))

    def partials(self) -> Iterator[tuple[tuple[str, int], bytes]]:
        """Yields ((vocabulary, part), Arrow IPC bytes of values and counts)."""
        for name, tables in self._tables.items():
            if not tables:
                continue
            table = _summed(tables)
            part = hashing.hash_array(table["value"].combine_chunks(), 5) % PARTS
            for number in range(PARTS):
                chosen = table.filter(pa.array(part == number))
                if chosen.num_rows:
                    yield (name, number), to_bytes(chosen)

    def _values(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """The present values that the graph keeps, flat."""
        item = self._inputs[name]
        array = batch.column(name)
        if item.kind == "string":
            return array.filter(pc.not_equal(array, ""))
        flat, lengths = columns.lists(array, None)
        leader = self._first.get(name, name)
        first, _ = columns.lists(batch.column(leader), None)
        kept = columns.kept_positions(
            _present(first), lengths, item.max_length, item.newest
        )
        kept &= _present(flat)
        return flat.filter(pa.array(kept))


def combine(parts: Iterable[bytes], spec: Vocabulary) -> tuple[bytes, int, int]:
    """Adds up partial counts of one part of a vocabulary.

    Args:
        parts: From `Counter.partials`, of one key.
        spec: The vocabulary, for `min_count`.

    Returns:
        Arrow IPC bytes of what is frequent enough, the values left out because they are
        too rare, and those left out because a line cannot hold them.
    """
    table = _summed([from_bytes(p) for p in parts])
    frequent = table.filter(pc.greater_equal(table["count"], spec.min_count))
    lines = pc.invert(pc.match_substring_regex(frequent["value"], _NO_LINE))
    written = frequent.filter(lines)
    return (
        to_bytes(written),
        table.num_rows - frequent.num_rows,
        frequent.num_rows - written.num_rows,
    )


def finish(
    spec: Vocabulary, parts: Iterable[bytes], rare: int, unwritable: int
) -> Learnt:
    """Orders a vocabulary and cuts it to its size.

    Args:
        spec: The vocabulary.
        parts: From `combine`, all of them.
        rare: Values left out so far.
        unwritable: Values with a line break.
    """
    tables = [from_bytes(p) for p in parts]
    table = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
    order = [("count", "descending"), ("value", "ascending")]
    table = table.take(pc.sort_indices(table, sort_keys=order))
    kept = table.slice(0, spec.max_size)
    dropped = rare + unwritable + table.num_rows - kept.num_rows
    stats = VocabularyStats(
        size=kept.num_rows,
        rows=1 + spec.oov_buckets + kept.num_rows,
        dropped=dropped,
        oov_buckets=spec.oov_buckets,
    )
    return Learnt(tuple(kept["value"].to_pylist()), stats, unwritable)


def hashed_stats(spec: Vocabulary) -> VocabularyStats:
    """Sizes of a hashed vocabulary: all its rows are for unknown values."""
    buckets = spec.hash_buckets or 0
    return VocabularyStats(size=0, rows=1 + buckets, oov_buckets=buckets)


def file_name(name: str) -> str:
    """File of a vocabulary; a name may hold any character, a file name may not."""
    return urllib.parse.quote(name, safe="") + ".txt"


def to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream, compressed."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def from_bytes(data: bytes) -> pa.Table:
    """The inverse of `to_bytes`."""
    return pa.ipc.open_stream(data).read_all()


def _present(flat: pa.Array) -> np.ndarray:
    if columns.is_text(flat.type):
        there = pc.not_equal(flat, "").to_numpy(zero_copy_only=False)
        return np.asarray(there, bool)
    return np.asarray(~np.isnan(flat.to_numpy(zero_copy_only=False)), bool)


def _summed(tables: list[pa.Table]) -> pa.Table:
    grouped = pa.concat_tables(tables).group_by("value", use_threads=False)
    summed = grouped.aggregate([("count", "sum")])
    return summed.rename_columns({"count_sum": "count"}).select(_SCHEMA.names)
