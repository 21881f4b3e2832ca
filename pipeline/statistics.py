"""Means, variances and quantiles from parts, in float64."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.feature import NumericFeature

SUMMARY_SIZE = 65_536
"""Order statistics kept of a shard; a shard with fewer distinct values stays exact."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of a set of numbers."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @staticmethod
    def of(values: np.ndarray) -> Moments:
        """Of float64 numbers, none of them NaN."""
        if not len(values):
            return Moments()
        mean = float(values.mean())
        return Moments(len(values), mean, float(np.square(values - mean).sum()))

    def merge(self, other: Moments) -> Moments:
        """Chan, Golub and LeVeque's update (1983), stable for any sizes."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        m2 = self.m2 + other.m2 + delta**2 * self.count * other.count / count
        return Moments(count, mean, m2)

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0


@dataclasses.dataclass(frozen=True)
class Quantiles:
    """A weighted sample that stands for a set of numbers.

    Exact up to `SUMMARY_SIZE` distinct values in a shard; beyond that the rank error is
    at most rows / SUMMARY_SIZE.

    Attributes:
        values: float64, rising.
        weights: int64, how many numbers each one stands for.
    """

    values: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(numbers: np.ndarray) -> Quantiles:
        """Of float64 numbers, none of them NaN."""
        values, counts = np.unique(numbers, return_counts=True)
        if len(values) <= SUMMARY_SIZE:
            return Quantiles(values, counts.astype(np.int64))
        ends = (np.arange(1, SUMMARY_SIZE + 1) * len(numbers)) // SUMMARY_SIZE
        return Quantiles(
            np.sort(numbers)[ends - 1], np.diff(ends, prepend=0).astype(np.int64)
        )

    @staticmethod
    def merged(parts: Iterable[Quantiles]) -> Quantiles:
        """Of all parts together."""
        chosen = list(parts)
        values = np.concatenate([p.values for p in chosen] or [np.zeros(0)])
        weights = np.concatenate([p.weights for p in chosen] or [np.zeros(0, np.int64)])
        order = np.argsort(values, kind="stable")
        return Quantiles(values[order], weights[order])

    def boundaries(self, buckets: int) -> list[float]:
        """Boundaries of buckets with about equally many numbers, rising.

        The i-th is the smallest value whose cumulated share reaches i / buckets. Ties
        merge buckets, so there may be fewer.
        """
        if not len(self.values):
            return []
        cumulated = np.cumsum(self.weights)
        wanted = np.arange(1, buckets) / buckets * cumulated[-1]
        where = np.searchsorted(cumulated, wanted - 1e-9 * cumulated[-1])
        distinct = np.unique(self.values[where])
        # Nothing lies below the smallest value: its bucket would be empty.
        return [float(b) for b in distinct if b > self.values[0]]


class Collector:
    """Statistics of the numeric features over the training rows of one shard."""

    def __init__(self, dataset: DatasetSpec) -> None:
        self._features = [
            f
            for f in dataset.features
            if isinstance(f, NumericFeature) and f.boundaries is None
        ]
        self._values: dict[str, list[np.ndarray]] = {f.name: [] for f in self._features}

    def update(self, batch: pa.RecordBatch) -> None:
        """Adds a canonical batch of the training split."""
        for feature in self._features:
            values = batch.column(feature.name).to_numpy(zero_copy_only=False)
            self._values[feature.name].append(values[~np.isnan(values)])

    def result(self) -> dict[str, Moments | Quantiles]:
        """Moments (after log1p) or quantiles of each feature."""
        found: dict[str, Moments | Quantiles] = {}
        for feature in self._features:
            parts = self._values[feature.name] or [np.zeros(0)]
            numbers = np.concatenate(parts).astype(np.float64)
            if feature.transform == "bucketize":
                found[feature.name] = Quantiles.of(numbers)
            elif feature.transform == "log1p":
                found[feature.name] = Moments.of(signed_log1p(numbers))
            else:
                found[feature.name] = Moments.of(numbers)
        return found


def signed_log1p(values: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|)."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Of all parts together, in their order."""
    return functools.reduce(Moments.merge, parts, Moments())
