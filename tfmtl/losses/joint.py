"""Ranking and calibration by one pair of logits."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf


def jrc(outputs: Any, labels: Any, members: Any, there: Any, alpha: float) -> Any:
    """JRC: two logits a row, f_0 for label 0 and f_1 for label 1.

        alpha:      -log softmax(f_0(x), f_1(x))_y             over the row's labels
        1 - alpha:  -log e^f_y(x) / sum_z e^f_y(z)             over its group's rows z

    The first fits p(y | x) = sigmoid(f_1 - f_0), which is the probability; the second,
    over all rows of the group whatever their labels, orders them. The mean over rows of
    both is the paper's loss.

    The formulas are those of the paper's listing as a library of the authors' company
    (EasyRec) has it, where a group is a session; no result of the paper was repeated.
    The sums over groups are taken by segments instead of a [B, B] mask.

    Args:
        outputs: [B, 2].
        labels: [B], 0 or 1.
        members: [B] int32 in 0 .. B - 1, equal for rows of one group.
        there: [B] bool, rows with a label: the others are in no group.
        alpha: Weight of the calibrating part.

    Returns:
        [B], 0 where `there` is not.

    References:
        X.-R. Sheng et al., "Joint Optimization of Ranking and Calibration with
        Contextualized Hybrid Model", KDD 2023, arXiv 2208.06164.
    """
    outputs = tf.where(there[:, None], outputs, 0.0)
    positive = labels > 0.5
    own = tf.where(positive, outputs[:, 1], outputs[:, 0])
    other = tf.where(positive, outputs[:, 0], outputs[:, 1])
    calibrating = tf.nn.softplus(other - own)
    log_sums = _log_sums(outputs, members, there)  # [B, 2]
    ranking = tf.where(positive, log_sums[:, 1], log_sums[:, 0]) - own
    return tf.where(there, alpha * calibrating + (1 - alpha) * ranking, 0.0)


def _log_sums(outputs: Any, members: Any, there: Any) -> Any:
    """log of the sum of e^f over the rows of each row's group, [B, 2]."""
    count = tf.shape(outputs)[0]
    largest = tf.math.unsorted_segment_max(
        tf.where(there[:, None], outputs, outputs.dtype.min), members, count
    )
    largest = tf.stop_gradient(tf.gather(largest, members))
    # A row outside may have a group of its own, whose largest is the least float.
    shifted = tf.where(there[:, None], outputs - largest, 0.0)
    powers = tf.where(there[:, None], tf.exp(shifted), 0.0)
    sums = tf.gather(tf.math.unsorted_segment_sum(powers, members, count), members)
    return largest + tf.math.log(tf.maximum(sums, 1e-30))
