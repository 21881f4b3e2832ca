"""Dataset directory -> `tf.data` batches, in an order that can be resumed exactly.

Records hold blocks of rows, column by column, so nothing here is done row by row: files
are permuted, blocks stream into pools, one permutation and one gather shuffle a pool,
and `rebatch` cuts batches of the exact size. The order is a pure function of (seed,
epoch, pool): a position in it is two numbers, and nothing else is ever saved.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tfmtl._keras import tf
from tfmtl.data import order, parse
from tfmtl.data.pack import Packing
from tfmtl.data.plan import Plan
from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.manifest import DatasetManifest, RecordFile


class Batch(NamedTuple):
    """One batch. B rows, T tasks in the order of the experiment file.

    Attributes:
        features: Column to [B] ids or floats, [B, L] padded ids, [B, size] vectors;
            `scenario` [B] among them.
        labels: [B, T] float32; 0 where there is none.
        mask: [B, T] bool; whether the label is there.
        weights: [B, T] float32.
        keys: Key to [B]; empty unless asked for.
        teachers: Task to [B] float32, what its teacher says, NaN where it says nothing;
            for tasks that have one.
    """

    features: dict[str, Any]
    labels: Any
    mask: Any
    weights: Any
    keys: dict[str, Any]
    teachers: dict[str, Any] = {}


class Position(NamedTuple):
    """Where the next batch starts: `batch` batches of `epoch` are done."""

    epoch: int = 0
    batch: int = 0


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads splits of a dataset directory as batches.

    `shuffle="groups"` keeps together what the records keep together: rows of one
    `key/group` that lie side by side in one block, as `tfmtl preprocess` writes them,
    stay neighbours in their order. Rows of it in two blocks stay neighbours only where
    these follow each other in one pool; rows in two splits, hence in two files, do not.
    A row whose group is empty is a group of its own. A batch may end inside a group.

    Attributes:
        directory: The dataset directory.
        manifest: Its `dataset.json`.
        splits: Splits to read as one, such as `("train",)`.
        batch_size: Rows of a batch; the last one of an epoch may have fewer.
        shuffle: `rows`, `groups` (rows of one `key/group` stay neighbours) or `none`.
        seed: Of the order.
        pool_blocks: Blocks of a pool, within which rows mix.
        shard: (index, count): this worker's part of the blocks.
        keys: Also deliver the keys (user, row, group, timestamp): all, or the named.
        columns: Feature columns to deliver; all where None.
    """

    directory: pathlib.Path
    manifest: DatasetManifest
    splits: tuple[str, ...]
    batch_size: int
    shuffle: str = "none"
    seed: int = 0
    pool_blocks: int = 8
    shard: tuple[int, int] = (0, 1)
    keys: bool | tuple[str, ...] = False
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for split in self.splits:
            if split not in self.manifest.splits:
                raise ConfigError(
                    f"`split` must be one of {sorted(self.manifest.splits)}. "
                    f"Received: {split!r}"
                )
        index, count = self.shard
        if not 0 <= index < count:
            raise ConfigError(
                f"`shard` must be (index, count) with 0 <= index < count. Received: "
                f"{self.shard}"
            )
        if self.shuffle not in ("rows", "groups", "none"):
            raise ConfigError(
                "`shuffle` must be 'rows', 'groups' or 'none'. Received: "
                f"{self.shuffle!r}"
            )
        names = [c.name for c in self.manifest.columns]
        if self.shuffle == "groups" and "key/group" not in names:
            raise ConfigError("`shuffle: groups` needs records with a `key/group`")
        if self.shuffle == "groups" and self.manifest.layout == "rows":
            raise ConfigError(
                "`shuffle: groups` needs a data set of `layout: blocks`, which keeps "
                "the rows of a group in one record. Received: layout 'rows'"
            )
        if self.rows == 0:
            raise DataError(f"the split {'+'.join(self.splits)} has no rows")
        blocks = sum(len(f.blocks) for f in self.files)
        if self.manifest.layout == "blocks" and count > blocks:
            raise DataError(
                "`shard` must have no more shards than the split "
                f"{'+'.join(self.splits)} has blocks: a worker reads whole blocks. "
                f"Received: {count} shards, {blocks} blocks"
            )

    def __repr__(self) -> str:
        """What is read, without the manifest: TensorFlow shows it in its messages."""
        what = [f"{'+'.join(self.splits)} of {str(self.directory)!r}"]
        for name in ("batch_size", "shuffle", "seed", "shard"):
            what.append(f"{name}={getattr(self, name)!r}")
        return f"{type(self).__name__}({', '.join(what)})"

    @property
    def files(self) -> tuple[RecordFile, ...]:
        """The files of the splits, in the order of the manifest."""
        return tuple(f for s in self.splits for f in self.manifest.splits[s].files)

    @property
    def rows(self) -> int:
        """Rows of one epoch, over all shards."""
        return sum(f.rows for f in self.files)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch: the same number for every shard."""
        count = self.shard[1]
        blocks = np.sort(self._plan(0, (0, 1)).blocks)
        if count > 1:
            # The order of the files, hence who gets a short block, differs by epoch:
            # what the poorest shard of any epoch has.
            blocks = blocks[: len(blocks) // count]
        return -(-int(blocks.sum()) // self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> tf.data.Dataset:
        """The batches of one epoch from the `start`-th on, as a finite data set.

        The first call builds the graph; later ones only run it.
        """
        if self.manifest.layout == "rows" and self.shard[1] > 1:
            raise ConfigError(
                "`shard` needs a data set of `layout: blocks`. Received: rows"
            )
        plan = self._plan(epoch, self.shard)
        pool, skipped = plan.locate(start * self.batch_size)
        source = plan.source(pool)
        paths = [str(self.directory / f.path) for f in source.files]
        count = self.batches_per_epoch - start if self.shard[1] > 1 else -1
        with tf.device("/cpu:0"):
            return self._dataset(
                paths=tf.constant(paths, tf.string),
                skip=tf.constant(source.skip, tf.int64),
                even=tf.constant(plan.even(pool), tf.bool),
                pool=tf.constant(pool, tf.int64),
                skipped=tf.constant(skipped, tf.int64),
                seed=tf.constant(_fold(self.seed, epoch), tf.int64),
                count=tf.constant(count, tf.int64),
            )

    def stream(self, position: Position, epochs: int) -> tf.data.Dataset:
        """All batches from a position to the end of the `epochs`-th epoch.

        A batch never spans two epochs.
        """
        dataset = self.epoch(position.epoch, position.batch)
        for epoch in range(position.epoch + 1, epochs):
            dataset = dataset.concatenate(self.epoch(epoch))
        return dataset

    def _plan(self, epoch: int, shard: tuple[int, int]) -> Plan:
        files = list(self.files)
        if self.shuffle != "none":
            draw = np.random.default_rng([self.seed, epoch, 0xF11E])
            files = [files[i] for i in draw.permutation(len(files))]
        filled = tuple(f for f in files if f.rows)
        return Plan(self.manifest, filled, self.pool_blocks, shard)

    @functools.cached_property
    def _dataset(self) -> Any:
        """`_batches` as a graph, traced once for all epochs and positions."""
        number = tf.TensorSpec([], tf.int64)
        return tf.function(
            self._batches,
            autograph=False,
            input_signature=[
                tf.TensorSpec([None], tf.string),
                number,
                tf.TensorSpec([None], tf.bool),
                *[number] * 4,
            ],
        )

    def _batches(
        self,
        paths: Any,
        skip: Any,
        even: Any,
        pool: Any,
        skipped: Any,
        seed: Any,
        count: Any,
    ) -> tf.data.Dataset:
        """Batches from a position on.

        Args:
            paths: [F] files.
            skip: Records of all shards to leave out.
            even: [pools] whether each pool has blocks of `block_rows` only.
            pool: Number of the first pool.
            skipped: Rows of it, in its final order, to leave out.
            seed: Of the epoch.
            count: Batches; all where -1.
        """
        columns = parse.wanted_columns(self.manifest, self.columns, self.keys)
        delivered = frozenset(columns)
        # Without a shuffle the matrix would cost more than it saves.
        packing = Packing(self.manifest, columns if self.shuffle != "none" else ())
        if self.shuffle == "groups":
            columns = (*columns, "key/group")

        def read(serialized: Any, same: Any, number: Any) -> dict[str, Any]:
            parsed = parse.parse_pool(serialized, self.manifest, columns, same)
            left_out = tf.where(number == pool, skipped, tf.zeros_like(skipped))
            if self.shuffle == "none":
                return {k: v[left_out:] for k, v in parsed.items()}
            rows = self._order(parsed, tf.stack([seed, number]))[left_out:]
            if "key/group" not in delivered:
                parsed.pop("key/group", None)
            return {k: tf.gather(v, rows) for k, v in packing.pack(parsed).items()}

        def batch(cut: dict[str, Any]) -> Batch:
            return to_batch(packing.unpack(cut), self.manifest)

        # More pools than the manifest has are read all the same: a wrong number of rows
        # is for the caller to see.
        known = tf.data.Dataset.from_tensor_slices(even)
        unknown = tf.data.Dataset.from_tensors(tf.constant(False)).repeat()
        pools = tf.data.Dataset.zip(
            (
                self._records(paths, skip).batch(self._records_per_pool()),
                known.concatenate(unknown),
                tf.data.Dataset.counter(pool),
            )
        )
        calls = _parallel_calls()
        batches = (
            pools.map(read, num_parallel_calls=calls, deterministic=True)
            .rebatch(self.batch_size)
            .map(batch, num_parallel_calls=calls, deterministic=True)
            .take(count)
            .prefetch(4)
        )
        options = tf.data.Options()
        # Nothing here is left to tf.data's tuning: its graph optimizations cost a third
        # of an epoch's start, its thread holds up the end of an iterator for seconds.
        options.experimental_optimization.apply_default_optimizations = False
        options.autotune.enabled = False
        return batches.with_options(options)

    def _records(self, paths: Any, skip: Any) -> tf.data.Dataset:
        compression = "GZIP" if self.manifest.compression == "gzip" else ""
        records = tf.data.TFRecordDataset(paths, compression, buffer_size=1 << 20)
        records = records.skip(skip)
        index, count = self.shard
        return records.shard(count, index) if count > 1 else records

    def _records_per_pool(self) -> int:
        if self.manifest.layout == "rows":
            return self.pool_blocks * self.manifest.block_rows
        return self.pool_blocks

    def _order(self, columns: dict[str, Any], seed: Any) -> Any:
        if self.shuffle == "groups":
            return order.of_groups(columns["key/group"], seed)
        rows = tf.shape(next(iter(columns.values())))[0]
        return order.of_rows(rows, seed)


def to_batch(columns: dict[str, Any], manifest: DatasetManifest) -> Batch:
    """Sorts parsed columns into features, labels, weights, keys and teachers."""
    tasks = manifest.dataset.tasks
    labels = tf.stack([columns[f"label/{t.name}"] for t in tasks], axis=1)  # [B, T]
    ones = tf.ones_like(labels[:, 0])
    weights = tf.stack([columns.get(f"weight/{t.name}", ones) for t in tasks], axis=1)
    mask = tf.logical_not(tf.math.is_nan(labels))
    return Batch(
        features={k: v for k, v in columns.items() if "/" not in k},
        labels=tf.where(mask, labels, 0.0),
        mask=mask,
        weights=weights,
        keys=_under("key/", columns),
        teachers=_under("teacher/", columns),
    )


def _under(prefix: str, columns: dict[str, Any]) -> dict[str, Any]:
    """The columns whose names begin so, without that."""
    return {
        name.removeprefix(prefix): value
        for name, value in columns.items()
        if name.startswith(prefix)
    }


def _parallel_calls() -> int:
    """Pools parsed at once: one a core, within reason for the memory they hold."""
    return max(2, min(8, os.cpu_count() or 2))


def _fold(seed: int, epoch: int) -> int:
    """One 63-bit seed of two numbers."""
    state = np.random.SeedSequence([seed, epoch, 0x5EED]).generate_state(1, np.uint64)
    return int(state[0] >> 1)
