"""What a loss adds up over a batch, and over replicas."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfmtl._keras import tf


class Sums(NamedTuple):
    """A loss over a batch, before anything divides it.

    Attributes:
        total: Scalar, weighted sum over the rows, pairs or lists.
        count: Scalar float32, how many there are, of weight above 0.
        weight: Scalar, the sum of their weights.
    """

    total: Any
    count: Any
    weight: Any


def over_rows(rows: Any, mask: Any, weights: Any) -> Sums:
    """Sums over the rows of a population.

    Args:
        rows: [B], finite where the mask holds.
        mask: [B] bool.
        weights: [B].
    """
    # A row outside the population may hold anything: it must not reach the sum.
    share = tf.where(mask, weights, 0.0)
    # A row of weight 0 is as good as not there.
    return Sums(
        tf.reduce_sum(share * tf.where(mask, rows, 0.0)),
        tf.reduce_sum(tf.cast(share > 0, tf.float32)),
        tf.reduce_sum(share),
    )


def over_replicas(values: Any) -> tuple[Any, float]:
    """Sums over the replicas of a distribution strategy, and their number.

    A loss whose gradients are averaged over R replicas must be divided by the sum over
    all of them, over R: the mean is then that of one replica with all rows. Outside a
    strategy, or with one replica, nothing is asked of anybody.

    Args:
        values: Of this replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values, 1.0
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(values))
    return total, float(context.num_replicas_in_sync)
