"""The order of one epoch: which files, hence which blocks, hence which pools."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from tfmtl.schema.manifest import DatasetManifest, RecordFile


class Source(NamedTuple):
    """Where the records of a plan start.

    Attributes:
        files: The files, in order.
        skip: Records of all shards before the first one.
    """

    files: tuple[RecordFile, ...]
    skip: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """One epoch of one shard.

    Attributes:
        manifest: Of the data set.
        files: In the order of the epoch, none of them empty.
        pool_blocks: Blocks of a pool.
        shard: (index, count).
    """

    manifest: DatasetManifest
    files: tuple[RecordFile, ...]
    pool_blocks: int
    shard: tuple[int, int]

    @property
    def blocks(self) -> np.ndarray:
        """Rows of each block of this shard, in order."""
        index, count = self.shard
        return self._all_blocks()[index::count]

    def _all_blocks(self) -> np.ndarray:
        if self.manifest.layout == "blocks":
            return np.array([b for f in self.files for b in f.blocks], np.int64)
        # One-row records are taken by the block, too.
        total, size = sum(f.rows for f in self.files), self.manifest.block_rows
        sizes = np.full(-(-total // size), size, np.int64)
        sizes[-1] = total - size * (len(sizes) - 1)
        return sizes

    def even(self, pool: int) -> np.ndarray:
        """bool [pools], from the `pool`-th on: whether all blocks have `block_rows`."""
        same = self.blocks[pool * self.pool_blocks :] == self.manifest.block_rows
        starts = np.arange(0, len(same), self.pool_blocks)
        return np.logical_and.reduceat(same, starts) if len(same) else same

    def locate(self, row: int) -> tuple[int, int]:
        """The pool of the `row`-th row, and how many of the pool's rows come before."""
        starts = np.concatenate([[0], np.cumsum(self.blocks)])[:: self.pool_blocks]
        pool = int(np.searchsorted(starts, row, side="right")) - 1
        return pool, row - int(starts[pool])

    def source(self, pool: int) -> Source:
        """The records from the `pool`-th pool on."""
        skip = pool * self.pool_blocks * self.shard[1]  # blocks of all shards before it
        if self.manifest.layout == "rows":
            skip *= self.manifest.block_rows
            sizes = [f.rows for f in self.files]
        else:
            sizes = [len(f.blocks) for f in self.files]
        first = 0
        while first < len(sizes) and skip >= sizes[first]:
            skip -= sizes[first]
            first += 1
        return Source(self.files[first:], skip)
