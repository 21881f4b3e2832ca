"""Dataset directory -> `tf.data` batches, in an order that can be resumed exactly.

Records hold blocks of rows, column by column, so nothing here is done row by row: files
are permuted, blocks stream into pools, one permutation and one gather a column shuffles
a pool, and `rebatch` cuts batches of the exact size. The order is a pure function of
(seed, epoch, pool): a position in it is two numbers, and nothing else is ever saved.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl._keras import tf
from tfmtl.data import parse
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
    """

    features: dict[str, Any]
    labels: Any
    mask: Any
    weights: Any
    keys: dict[str, Any]


class Position(NamedTuple):
    """Where the next batch starts: `batch` batches of `epoch` are done."""

    epoch: int = 0
    batch: int = 0


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads splits of a dataset directory as batches.

    Attributes:
        directory: The dataset directory.
        manifest: Its `dataset.json`.
        splits: Splits to read as one, such as `("train",)`.
        batch_size: Rows of a batch; the last one of an epoch may have fewer.
        shuffle: `rows`, `groups` (rows of one `key/group` stay neighbours) or `none`.
        seed: Of the order.
        pool_blocks: Blocks of a pool, within which rows mix.
        shard: (index, count): this worker's part of the blocks.
        keys: Also deliver the keys (user, row, group, timestamp).
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
    keys: bool = False
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
        blocks = np.sort(_Plan(self, 0, (0, 1)).blocks)
        if count > 1:
            # The order of the files, hence who gets a short block, differs by epoch:
            # what the poorest shard of any epoch has.
            blocks = blocks[: len(blocks) // count]
        return -(-int(blocks.sum()) // self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> tf.data.Dataset:
        """The batches of one epoch from the `start`-th on, as a finite data set."""
        plan = _Plan(self, epoch, self.shard)
        pool, skipped = plan.locate(start * self.batch_size)
        dataset = self._pools(plan, pool, skipped, epoch).rebatch(self.batch_size)
        if self.shard[1] > 1:
            dataset = dataset.take(self.batches_per_epoch - start)
        return dataset.prefetch(4)

    def stream(self, position: Position, epochs: int) -> tf.data.Dataset:
        """All batches from a position to the end of the `epochs`-th epoch.

        A batch never spans two epochs.
        """
        dataset = self.epoch(position.epoch, position.batch)
        for epoch in range(position.epoch + 1, epochs):
            dataset = dataset.concatenate(self.epoch(epoch))
        return dataset

    def _pools(
        self, plan: _Plan, pool: int, skipped: int, epoch: int
    ) -> tf.data.Dataset:
        """Pools of whole blocks as `Batch`es, from the `pool`-th on."""
        records = plan.records(first_block=pool * self.pool_blocks)
        pools = records.batch(self._records_per_pool())
        order_seed = _fold(self.seed, epoch)
        skips = tf.data.Dataset.from_tensors(
            tf.constant(skipped, tf.int64)
        ).concatenate(tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).repeat())
        numbered = tf.data.Dataset.zip((pools, tf.data.Dataset.counter(pool), skips))
        columns = parse.wanted_columns(self.manifest, self.columns, self.keys)
        if self.shuffle == "groups":
            columns = (*columns, "key/group")

        def read(serialized: Any, number: Any, skip: Any) -> Batch:
            parsed = parse.parse_pool(serialized, self.manifest, columns)
            rows = parsed.pop("#rows")
            if self.shuffle != "none":
                seed = tf.stack([tf.constant(order_seed, tf.int64), number])
                order = _permutation(rows, seed, parsed, self.shuffle)
                parsed = {k: tf.gather(v, order) for k, v in parsed.items()}
            parsed = {k: v[skip:] for k, v in parsed.items()}
            return to_batch(parsed, self.manifest, self.keys)

        return numbered.map(read, num_parallel_calls=2, deterministic=True).prefetch(1)

    def _records_per_pool(self) -> int:
        if self.manifest.layout == "rows":
            return self.pool_blocks * self.manifest.block_rows
        return self.pool_blocks


class _Plan:
    """The order of one epoch: which files, hence which blocks, hence which rows."""

    def __init__(self, reader: Reader, epoch: int, shard: tuple[int, int]) -> None:
        self._reader = reader
        self._shard = shard
        files = list(reader.files)
        if reader.shuffle != "none":
            order = np.random.default_rng([reader.seed, epoch, 0xF11E])
            files = [files[i] for i in order.permutation(len(files))]
        self._files = [f for f in files if f.rows]
        index, count = shard
        self.blocks = self._block_rows(self._files)[index::count]

    def _block_rows(self, files: Sequence[RecordFile]) -> np.ndarray:
        """Rows of each block in stream order."""
        if self._reader.manifest.layout == "blocks":
            return np.array([b for f in files for b in f.blocks], np.int64)
        total, size = sum(f.rows for f in files), self._reader.manifest.block_rows
        sizes = np.full(-(-total // size), size, np.int64)
        sizes[-1] = total - size * (len(sizes) - 1)
        return sizes

    @property
    def rows(self) -> int:
        return int(self.blocks.sum())

    def locate(self, row: int) -> tuple[int, int]:
        """The pool of the `row`-th row, and how many of the pool's rows come before."""
        size = self._reader.pool_blocks
        starts = np.concatenate([[0], np.cumsum(self.blocks)])[::size]
        pool = int(np.searchsorted(starts, row, side="right")) - 1
        return pool, row - int(starts[pool])

    def records(self, first_block: int) -> tf.data.Dataset:
        """Serialized records of this shard's blocks from `first_block` on."""
        reader = self._reader
        index, count = self._shard
        skip = first_block * count  # blocks of all shards before it
        if reader.manifest.layout == "rows":
            if count > 1:
                raise ConfigError(
                    "`shard` needs a data set of `layout: blocks`. Received: rows"
                )
            skip *= reader.manifest.block_rows
            sizes = [f.rows for f in self._files]
        else:
            sizes = [len(f.blocks) for f in self._files]
        first = 0
        while first < len(sizes) and skip >= sizes[first]:
            skip -= sizes[first]
            first += 1
        paths = [str(reader.directory / f.path) for f in self._files[first:]]
        compression = "GZIP" if reader.manifest.compression == "gzip" else ""
        records = tf.data.TFRecordDataset(
            tf.constant(paths, tf.string), compression, buffer_size=1 << 22
        ).skip(skip)
        return records.shard(count, index) if count > 1 else records


def _permutation(rows: Any, seed: Any, columns: dict[str, Any], shuffle: str) -> Any:
    """A random order of the pool's rows, or of its groups with rows left in place."""
    if shuffle == "rows":
        # One op, 10 to 20 times faster than sorting random numbers.
        return tf.random.experimental.stateless_shuffle(tf.range(rows), seed)
    group = columns["key/group"]
    begins = tf.concat([[0], tf.cast(group[1:] != group[:-1], tf.int32)], axis=0)
    number = tf.cumsum(begins)
    chance = tf.random.stateless_uniform([number[-1] + 1], seed)
    return tf.argsort(tf.gather(chance, number), stable=True)


def to_batch(columns: dict[str, Any], manifest: DatasetManifest, keys: bool) -> Batch:
    """Sorts parsed columns into features, labels, weights and keys."""
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
        keys={
            k.removeprefix("key/"): v
            for k, v in columns.items()
            if keys and k.startswith("key/")
        },
    )


def _fold(seed: int, epoch: int) -> int:
    """One 63-bit seed of two numbers."""
    state = np.random.SeedSequence([seed, epoch, 0x5EED]).generate_state(1, np.uint64)
    return int(state[0] >> 1)
