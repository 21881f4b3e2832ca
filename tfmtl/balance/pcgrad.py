"""PCGrad: what conflicts with another task is projected away."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.balance.base import GradientWeighting, TaskStats


def random_orders(seed: int, step: Any, group: int, count: int, chosen: Any) -> Any:
    """For each task, the others in an order drawn from seed, step and group alone.

    Args:
        seed: Of the experiment.
        step: Scalar int64.
        group: Of variables.
        count: T.
        chosen: [n] int32.

    Returns:
        [n, n] int32 places among the chosen; a task is in its own order too.
    """
    start = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    drawn = tf.random.stateless_uniform([count, count], tf.random.fold_in(start, group))
    drawn = tf.gather(tf.gather(drawn, chosen), chosen, axis=1)
    return tf.argsort(drawn, axis=1)


def pcgrad_weights(gramian: Any, order: Any) -> Any:
    """sum_t g'_t in coefficients of the gradients (Yu et al., algorithm 1).

        g'_t <- g'_t - (g'_t . g_s / ||g_s||^2) g_s   where g'_t . g_s < 0

    for the tasks s in t's order; g_s are the original gradients. Row t of C holds the
    coefficients of g'_t, so that g'_t . g_s = (C M)_ts. Rows do not see each other: all
    tasks take a step together.

    Args:
        gramian: [n, n].
        order: [n, n], the order of each task.

    Returns:
        [n].
    """
    count = tf.shape(gramian)[0]
    squares = tf.linalg.diag_part(gramian)
    own = tf.range(count)

    def project(k: Any, coefficients: Any) -> tuple[Any, Any]:
        other = order[:, k]
        inner = tf.reduce_sum(coefficients * tf.gather(gramian, other), axis=1)
        conflict = (inner < 0.0) & (other != own)
        share = tf.where(conflict, inner / tf.gather(squares, other), 0.0)
        removed = share[:, None] * tf.one_hot(other, count, dtype=tf.float64)
        return k + 1, coefficients - removed

    found: Any = tf.while_loop(
        lambda k, coefficients: k < count,
        project,
        (tf.constant(0), tf.eye(count, dtype=tf.float64)),
    )
    return tf.reduce_sum(found[1], axis=0)


class PCGrad(GradientWeighting):
    """Projects each gradient off those it conflicts with, in random order."""

    citation = "Yu et al., NeurIPS 2020, arXiv 2001.06782"

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        order = random_orders(self.tasks.seed, stats.step, group, self.count, chosen)
        return pcgrad_weights(gramian, order)
