"""The geometric mean of the losses."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.balance.base import LossWeighting, TaskStats
from tfmtl.balance.logs import inverse, safe_log, usable


def geometric_weights(losses: Any, present: Any) -> Any:
    """d/dL_t (prod_s L_s)^(1/n) = (1/n) GM / L_t over the n usable tasks.

    Args:
        losses: [T].
        present: [T] bool.
    """
    shared = tf.cast(usable(losses, present), losses.dtype)
    count = tf.maximum(tf.reduce_sum(shared), 1.0)
    mean = tf.exp(tf.reduce_sum(shared * safe_log(losses)) / count)
    return mean / count * inverse(losses, present)


class GeometricLoss(LossWeighting):
    """Minimises the geometric mean of the losses, (prod_t L_t)^(1/T).

    The direction of LogLoss, with a length that shrinks as the losses do. Losses must
    be positive; absent tasks, and tasks whose loss is not, are left out of the product.
    """

    citation = (
        "S. Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and "
        "Geometric Loss Strategy for Multi-Task Learning, CVPRW 2019, arXiv 1904.08492"
    )

    def weigh(self, stats: TaskStats) -> Any:
        return geometric_weights(stats.losses, stats.present)
