"""Random orders of the rows of a pool, pure functions of a seed."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf


def of_rows(rows: Any, seed: Any) -> Any:
    """A random order of rows.

    Args:
        rows: Scalar int32, how many.
        seed: [2] int64.

    Returns:
        [N] int32, every order equally likely.
    """
    # One op, 10 to 20 times faster than sorting random numbers.
    return tf.random.experimental.stateless_shuffle(tf.range(rows), seed)


def of_groups(group: Any, seed: Any) -> Any:
    """A random order of groups, with the rows of each left in place.

    Neighbours with the same group are a group; a row without one (an empty text) is a
    group of its own.

    Args:
        group: [N] text.
        seed: [2] int64.

    Returns:
        [N] int32.
    """
    rows = tf.size(group)
    begins = tf.logical_or(group[1:] != group[:-1], group[1:] == "")
    # The first row begins a group, where there is a first row.
    begins = tf.concat([tf.ones([tf.minimum(rows, 1)], tf.bool), begins], axis=0)
    first = tf.cast(tf.where(begins)[:, 0], tf.int32)  # [G]
    end = tf.concat([first[1:], [rows]], axis=0)[: tf.size(first)]
    order = of_rows(tf.size(first), seed)
    return tf.ragged.range(
        tf.gather(first, order), tf.gather(end, order)
    ).flat_values  # [N]
