"""Aligned-MTL: the gradients' principal components get one length."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from tfmtl._keras import tf
from tfmtl.balance.base import GradientWeighting, TaskInfo, TaskStats
from tfmtl.balance.config import BalancerConfig, MeanConfig


def alignment(gramian: Any, mode: str, tolerance: float) -> Any:
    """The matrix B whose rows combine the gradients to aligned ones.

        B = sqrt(l) V_R diag(lambda_R)^(-1/2) V_R'

    over the eigenpairs with lambda > T * tolerance * lambda_max; l is the smallest of
    them (`min`), the lower median, or the mean (`rmse`). All singular values of B G
    that are not 0 are sqrt(l).

    Args:
        gramian: [n, n].
        mode: `min`, `median` or `rmse`.
        tolerance: See above.

    Returns:
        [n, n]; the unit matrix where there is no gradient at all.
    """
    values, vectors = tf.linalg.eigh(gramian)  # Rising.
    count = tf.shape(gramian)[0]
    bound = tf.cast(count, tf.float64) * tolerance * tf.maximum(values[-1], 0.0)
    kept = values > bound
    rank = tf.reduce_sum(tf.cast(kept, tf.int32))
    first = tf.minimum(count - rank, count - 1)
    if mode == "min":
        size = values[first]
    elif mode == "median":
        size = values[tf.minimum(first + (rank - 1) // 2, count - 1)]
    else:
        total = tf.reduce_sum(tf.where(kept, values, tf.zeros_like(values)))
        size = total / tf.cast(tf.maximum(rank, 1), tf.float64)
    safe = tf.where(kept, values, tf.ones_like(values))
    factors = tf.where(kept, tf.sqrt(tf.maximum(size, 0.0) / safe), tf.zeros_like(safe))
    aligned = tf.matmul(vectors * factors[None, :], vectors, transpose_b=True)
    return tf.where(rank > 0, aligned, tf.eye(count, dtype=tf.float64))


class AlignedMTLConfig(MeanConfig):
    """Settings of Aligned-MTL."""

    mode: Literal["min", "median", "rmse"] = "min"
    """What length the components get: the shortest's, the median, or the root of the
    mean square."""
    preference: dict[str, PositiveFloat] = {}
    """Task to its share, > 0; tasks not named have 1. Shares are divided by their sum
    over the tasks that take part."""
    tolerance: float = Field(default=float(np.finfo("float32").eps), gt=0, lt=1)
    """A component whose squared length is below T times this share of the longest's is
    left out: in gradients of float32 it is rounding, and `min` would follow it."""


class AlignedMTL(GradientWeighting):
    """Makes the matrix of gradients perfectly conditioned before it is summed."""

    Config = AlignedMTLConfig
    citation = "Senushkin, Patakin, Kuznetsov, Konushin, CVPR 2023, arXiv 2305.19000"
    config: AlignedMTLConfig

    def __init__(self, tasks: TaskInfo, config: BalancerConfig) -> None:
        super().__init__(tasks, config)
        self._preference = self.by_task(self.config.preference, 1.0, "preference")

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        matrix = alignment(gramian, self.config.mode, self.config.tolerance)
        shares = tf.gather(tf.constant(self._preference, tf.float64), chosen)
        shares /= tf.reduce_sum(shares)
        return self.config.scale(tf.linalg.matvec(matrix, shares))
