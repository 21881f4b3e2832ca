"""Losses of pairs of rows, never held all at once."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.losses.sums import Sums

BLOCK = 512
"""Rows whose pairs are computed together."""


def bpr(
    scores: Any,
    labels: Any,
    weights: Any,
    members: Any,
    *,
    gap: bool = False,
    block: int = BLOCK,
) -> Sums:
    """Bayesian personalised ranking over all pairs that a batch holds.

        sum_ij w_i w_j [y_i > y_j] softplus(-(s_i - s_j)),   i, j in one group

    The paper draws triples of a user, a positive and another item; these are all of the
    batch. Sorted by group, the rows that one block of rows can meet lie side by side,
    so that time and memory grow with `block` + the largest group, not with B, for each
    row. The gradient is added up on the way, for the same reason; there is no second
    one.

    Args:
        scores: [B].
        labels: [B], any order of levels.
        weights: [B]; a row of weight 0 is in no pair.
        members: [B] int32, equal for rows of one group.
        gap: Weigh each pair by y_i - y_j, too.
        block: Rows of a block.

    Returns:
        Sums over pairs.

    References:
        S. Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback",
        UAI 2009, section 4.1.
    """
    there = tf.where(weights > 0)[:, 0]
    order = tf.gather(there, tf.argsort(tf.gather(members, there), stable=True))
    labels, weights, members = (tf.gather(v, order) for v in (labels, weights, members))

    @tf.custom_gradient
    def summed(values: Any) -> Any:
        total, count, weight, gradient = _blocks(
            values, labels, weights, members, gap, block
        )

        def grad(of_total: Any, of_count: Any, of_weight: Any) -> Any:
            return of_total * gradient

        return (total, count, weight), grad

    return Sums(*summed(tf.gather(scores, order)))


def _blocks(
    scores: Any, labels: Any, weights: Any, members: Any, gap: bool, block: int
) -> tuple[Any, Any, Any, Any]:
    """Total, count and weight of the pairs, and the total's gradient [N].

    The rows are sorted by group.
    """
    rows = tf.size(scores)
    first = tf.searchsorted(members, members, side="left")
    last = tf.searchsorted(members, members, side="right")

    def body(start: Any, total: Any, count: Any, weight: Any, gradient: Any) -> Any:
        stop = tf.minimum(start + block, rows)
        low, high = first[start], last[stop - 1]
        ours, theirs = tf.range(start, stop), tf.range(low, high)
        above = labels[start:stop, None] - labels[None, low:high]
        pair = (above > 0) & (members[start:stop, None] == members[None, low:high])
        share = weights[start:stop, None] * weights[None, low:high]
        share = tf.where(pair, share * above if gap else share, 0.0)
        ahead = scores[start:stop, None] - scores[None, low:high]
        slope = -share * tf.sigmoid(-ahead)
        gradient = _added(gradient, ours, tf.reduce_sum(slope, axis=1))
        gradient = _added(gradient, theirs, -tf.reduce_sum(slope, axis=0))
        return (
            stop,
            total + tf.reduce_sum(share * tf.nn.softplus(-ahead)),
            count + tf.reduce_sum(tf.cast(pair, tf.float32)),
            weight + tf.reduce_sum(share),
            gradient,
        )

    zero = tf.zeros([], scores.dtype)
    start = (tf.constant(0), zero, tf.zeros([]), zero, tf.zeros_like(scores))
    found = tf.while_loop(
        lambda begin, *_: begin < rows, body, start, parallel_iterations=1
    )
    return found[1], found[2], found[3], found[4]


def _added(values: Any, places: Any, more: Any) -> Any:
    return tf.tensor_scatter_nd_add(values, places[:, None], more)
