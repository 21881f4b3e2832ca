"""A reader whose batches also hold a context item and negatives for each row.

Skip-gram pairs depend on what a model wants, so they are not in the records: the
positive rows of the splits are read once, before the first batch, and kept sorted in
memory; each batch is then joined with rows gathered from there.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data.damage import damage_named
from tfmtl.data.events import Events, Rows, arrange
from tfmtl.data.read import Batch, Reader
from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.manifest import DatasetManifest, RecordColumn
from tfmtl.schema.samples import SampleSpec

logger = logging.getLogger(__name__)

CONTEXT = "context/"
NEGATIVE = "negative/"
MASK = "context/mask"
_ROWS_AT_A_TIME = 1 << 16


@dataclasses.dataclass(frozen=True, repr=False)
class SamplingReader(Reader):
    """Reads batches and draws other items for their rows.

    A row is an event if its label of `samples.task` is above 0. Its features get

    - `context/<column>` [B, ...]: of another event, each in the row's window alike;
    - `context/mask` [B] bool: whether there is one. Where not (no event, no user, the
      user's only event) the context is the row itself;
    - `negative/<column>` [B, Q, ...]: of Q events, drawn independently of the row. One
      may be of the row's own item.

    What is drawn is a function of (seed, epoch, batch, shard): a resumed run draws what
    a whole one does. Rows and their order are those of the plain reader.

    The events are held in memory: 28 bytes each, and 4 for each value of the columns.

    Attributes:
        samples: What to draw.
    """

    samples: SampleSpec = dataclasses.field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        keys = self.manifest.dataset.keys
        if keys.user is None or keys.timestamp is None:
            raise ConfigError(
                "`dataset.keys` must name `user` and `timestamp`: what a user did "
                "before and after decides the context items. Received: user "
                f"{keys.user!r}, timestamp {keys.timestamp!r}"
            )
        names = self.manifest.dataset.task_names
        if self.samples.task not in names:
            raise ConfigError(
                f"`samples.task` must be one of {list(names)}. Received: "
                f"{self.samples.task!r}"
            )
        known = {c.name for c in self.manifest.columns if "/" not in c.name}
        known &= set(known if self.columns is None else self.columns)
        missing = sorted({*self.samples.columns, self.samples.item} - known)
        if missing:
            raise ConfigError(
                f"`samples.columns` must be read feature columns out of "
                f"{sorted(known)}. Received: {missing}"
            )

    def epoch(self, epoch: int = 0, start: int = 0) -> tf.data.Dataset:
        """As `Reader.epoch`; the first call also reads the events."""
        draw = np.random.SeedSequence([self.seed, epoch, self.shard[0], 0x5A3B])
        seed = int(draw.generate_state(1, np.uint64)[0] >> 1)
        batches = self._keyed.epoch(epoch, start)
        tables = self._tables
        with tf.device("/cpu:0"):
            seed, start = tf.constant(seed, tf.int64), tf.constant(start, tf.int64)
            return self._joined(batches, tables, seed, start)

    @functools.cached_property
    def _joined(self) -> Any:
        """Batches from the `start`-th on, joined; traced once for all epochs."""

        def joined(batches: Any, tables: Events, seed: Any, start: Any) -> Any:
            numbered = tf.data.Dataset.zip((batches, tf.data.Dataset.counter(start)))
            return numbered.map(
                lambda batch, number: self._join(batch, tables, [seed, number]),
                num_parallel_calls=max(2, min(8, os.cpu_count() or 2)),
                deterministic=True,
            ).prefetch(4)

        return tf.function(joined, autograph=False)

    @functools.cached_property
    def _keyed(self) -> Reader:
        """The same batches, with the keys that say which row it is."""
        return self._plain(keys=True)

    def _plain(self, **changes: Any) -> Reader:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Reader)}
        return Reader(**{**fields, **changes})

    def _delivers(self, key: str) -> bool:
        return self.keys if isinstance(self.keys, bool) else key in self.keys

    @functools.cached_property
    def _item(self) -> _ItemRows:
        return _ItemRows(self.manifest, self.samples.columns)

    @functools.cached_property
    def _task(self) -> int:
        return self.manifest.dataset.task_names.index(self.samples.task)

    # === Events, once ===

    @functools.cached_property
    def _tables(self) -> Events:
        """The events as tensors on the host."""
        rows = self._read_events()
        if not len(rows.identity):
            raise DataError(
                f"the split {'+'.join(self.splits)} has no row with a positive label "
                f"of the task {self.samples.task!r}, whose rows the model samples from"
            )
        events = arrange(rows, self.samples.window, self.samples.power)
        size = sum(a.nbytes for a in events) / 2**20
        logger.info("%d events to sample from, %.0f MB", len(events.places), size)
        with tf.device("/cpu:0"):
            return Events(*(tf.constant(a) for a in events))

    def _read_events(self) -> Rows:
        # All shards': a user's events lie in any of them.
        source = self._plain(
            keys=True,
            shuffle="none",
            batch_size=_ROWS_AT_A_TIME,
            pool_blocks=8,
            shard=(0, 1),
            columns=tuple(dict.fromkeys((*self.samples.columns, self.samples.item))),
        )
        parts = []
        with tf.device("/cpu:0"), damage_named(source):
            for rows in source.epoch().map(self._events_of, num_parallel_calls=2):
                parts.append([np.asarray(v) for v in rows])
        return Rows(*(np.concatenate(p) for p in zip(*parts)))

    def _events_of(self, batch: Batch) -> Rows:
        """The positive rows of a batch."""
        chosen = tf.where(self._positive(batch))[:, 0]
        features = {k: tf.gather(v, chosen) for k, v in batch.features.items()}
        keys = {k: tf.gather(v, chosen) for k, v in batch.keys.items()}
        values = self._item.pack(features)
        return Rows(
            identity=_identity(keys, values),
            user=_user(keys),
            known=keys["user"] != "",
            time=tf.cast(keys["timestamp"], tf.int64),
            item=features[self.samples.item],
            values=values,
        )

    def _positive(self, batch: Batch) -> Any:
        task = self._task
        return tf.logical_and(batch.mask[:, task], batch.labels[:, task] > 0)

    # === Samples, in each batch ===

    def _join(self, batch: Batch, events: Events, seed: Any) -> Batch:
        own = self._item.pack(batch.features)  # [B, C]
        wanted = [tf.shape(own)[0], 1 + self.samples.negatives]
        chance = tf.random.stateless_uniform(wanted, seed, dtype=tf.float64)
        place, mask = self._context(batch, own, events, chance[:, 0])
        context = tf.where(mask[:, None], tf.gather(events.values, place), own)
        negative = tf.gather(events.values, _negatives(events, chance[:, 1:]))
        drawn = {
            **{CONTEXT + k: v for k, v in self._item.unpack(context).items()},
            **{NEGATIVE + k: v for k, v in self._item.unpack(negative).items()},
            MASK: mask,
        }
        return batch._replace(
            features={**batch.features, **drawn},
            keys={k: v for k, v in batch.keys.items() if self._delivers(k)},
        )

    def _context(self, batch: Batch, own: Any, events: Events, chance: Any) -> Any:
        """An event of each row's window, [B], and whether there is one, [B]."""
        identity = _identity(batch.keys, own)
        found = tf.searchsorted(events.identities, identity)
        found = tf.minimum(found, tf.size(events.identities) - 1)
        held = tf.gather(events.identities, found) == identity
        place = tf.gather(events.places, found)
        first = tf.gather(events.first, place)
        others = tf.gather(events.last, place) - first - 1
        step = tf.cast(chance * tf.cast(others, tf.float64), tf.int32)
        chosen = first + step
        chosen += tf.cast(chosen >= place, tf.int32)  # not the event itself
        mask = self._positive(batch) & held & (others > 0)
        return tf.where(mask, chosen, 0), mask


def _negatives(events: Events, chance: Any) -> Any:
    """Events [B, Q] by their shares, from chances [B, Q] in [0, 1)."""
    flat = tf.searchsorted(events.shares, tf.reshape(chance, [-1]), side="right")
    # The last share may be a rounding error below 1.
    flat = tf.minimum(flat, tf.size(events.shares) - 1)
    return tf.reshape(flat, tf.shape(chance))


def _user(keys: Mapping[str, Any]) -> Any:
    """[B] int64; two of a million users share one by a chance of 1 in 10 million."""
    return tf.strings.to_hash_bucket_fast(keys["user"], 2**63 - 1)


def _identity(keys: Mapping[str, Any], values: Any) -> Any:
    """[B] int64 of user, time and item: a sum of products with odd numbers.

    Rows that share all three are one to a model, too. Others share it by chance, as two
    users do.
    """
    time = tf.cast(keys["timestamp"], tf.int64)
    words = tf.concat(
        [tf.stack([_user(keys), time], axis=1), tf.cast(values, tf.int64)], axis=1
    )
    draw = np.random.default_rng(0x1DE)
    factors = draw.integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    # Unsigned, whose products and sums are defined where they overflow.
    products = tf.bitcast(words, tf.uint64) * tf.constant(factors)
    return tf.bitcast(tf.reduce_sum(products, axis=1), tf.int64)


class _ItemRows:
    """Columns of items <-> one matrix of int32: one gather for all of them.

    Args:
        manifest: Says the shapes and types.
        names: Of the columns.
    """

    def __init__(self, manifest: DatasetManifest, names: tuple[str, ...]) -> None:
        self._columns = [manifest.column(n) for n in dict.fromkeys(names)]

    def pack(self, columns: Mapping[str, Any]) -> Any:
        """Column to [N] or [N, size] -> [N, C]; floats by their bits."""
        parts = []
        for column in self._columns:
            value = columns[column.name]
            if column.dtype == "float":
                value = tf.bitcast(value, tf.int32)
            parts.append(tf.reshape(value, [-1, _width(column)]))
        return tf.concat(parts, axis=1)

    def unpack(self, values: Any) -> dict[str, Any]:
        """[..., C] -> column to [...] or [..., size]."""
        parts = tf.split(values, [_width(c) for c in self._columns], axis=-1)
        result = {}
        for column, part in zip(self._columns, parts):
            if column.dtype == "float":
                part = tf.bitcast(part, tf.float32)
            scalar = column.shape == "scalar"
            result[column.name] = tf.squeeze(part, -1) if scalar else part
        return result


def _width(column: RecordColumn) -> int:
    return 1 if column.shape == "scalar" else column.size or 1
