"""Losses of lists: padded scores and relevances in, one number a list out."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tfmtl._keras import tf
from tfmtl.losses.sums import Sums

_OUT = -1e9  # a score that no softmax sees; -inf would make 0 times inf of gradients


class Lists(NamedTuple):
    """The rows of a batch, list by list.

    Attributes:
        row: [G, L] int32, numbers of rows; 0 where there is none.
        mask: [G, L] bool, whether there is one.
    """

    row: Any
    mask: Any

    def of(self, values: Any) -> Any:
        """[B] -> [G, L]; 0 where there is no row."""
        return tf.where(self.mask, tf.gather(values, self.row), 0)


def as_lists(members: Any, there: Any) -> Lists:
    """Sorts rows into lists, in the order of the batch.

    G L <= (B + 1)^2 / 4, however the rows are spread.

    Args:
        members: [B] int32, equal for rows of one list.
        there: [B] bool, rows that are in a list.
    """
    rows = tf.cast(tf.where(there)[:, 0], tf.int32)
    lists = tf.unique(tf.gather(members, rows))
    order = tf.argsort(lists.idx, stable=True)
    numbers = tf.RaggedTensor.from_value_rowids(
        tf.gather(rows, order),
        tf.gather(lists.idx, order),
        nrows=tf.size(lists.y, out_type=lists.idx.dtype),
        validate=False,
    ).to_tensor(-1)  # [G, L]
    return Lists(tf.maximum(numbers, 0), numbers >= 0)


def has_positive(relevance: Any, mask: Any) -> Any:
    """Whether a list has a relevance above 0, [G]: else it has no shares of labels.

    Args:
        relevance: [G, L].
        mask: [G, L] bool.
    """
    return tf.reduce_any((relevance > 0) & mask, axis=1)


def has_order(relevance: Any, mask: Any) -> Any:
    """Whether a list has two distinct relevances, [G].

    Args:
        relevance: [G, L].
        mask: [G, L] bool.
    """
    highest = tf.reduce_max(tf.where(mask, relevance, -math.inf), axis=1)
    return highest > tf.reduce_min(tf.where(mask, relevance, math.inf), axis=1)


def over_lists(losses: Any, used: Any, weights: Any, mask: Any) -> Sums:
    """Sums over the lists of two rows or more that a loss has a use for.

    A list weighs the mean of its rows' weights.

    Args:
        losses: [G], finite.
        used: [G] bool.
        weights: [G, L].
        mask: [G, L] bool.
    """
    rows = tf.reduce_sum(tf.cast(mask, tf.float32), axis=1)
    counts = (rows > 1) & used
    weight = tf.reduce_sum(tf.where(mask, weights, 0.0), axis=1)
    weight = tf.where(counts, weight / tf.maximum(rows, 1.0), 0.0)
    return Sums(
        tf.reduce_sum(weight * tf.where(counts, losses, 0.0)),
        tf.reduce_sum(tf.cast(counts, tf.float32)),
        tf.reduce_sum(weight),
    )


def softmax_of_lists(scores: Any, relevance: Any, mask: Any) -> Any:
    """-sum_i (y_i / sum y) log softmax(s)_i; 0 for a list without a positive.

    Args:
        scores: [G, L].
        relevance: [G, L]; below 0 counts as 0.
        mask: [G, L] bool.

    Returns:
        [G].

    References:
        Z. Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach",
        ICML 2007: the cross-entropy of top-one probabilities, here with the labels'
        shares.
    """
    gains = tf.where(mask, tf.maximum(relevance, 0.0), 0.0)
    total = tf.reduce_sum(gains, axis=1, keepdims=True)
    return _cross_entropy(scores, gains / tf.where(total > 0, total, 1.0), mask)


def listnet(scores: Any, relevance: Any, mask: Any, temperature: float = 1.0) -> Any:
    """-sum_i softmax(y / t)_i log softmax(s)_i.

    Args:
        scores: [G, L].
        relevance: [G, L].
        mask: [G, L] bool.
        temperature: t.

    Returns:
        [G]; at least the entropy of softmax(y / t), reached at s = y / t + const.

    References:
        Z. Cao et al., as above, section 4.3 (top one).
    """
    wanted = tf.where(mask, relevance / temperature, _OUT)
    return _cross_entropy(scores, tf.nn.softmax(wanted), mask)


def listmle(scores: Any, relevance: Any, mask: Any, ties: Any) -> Any:
    """The negative log-likelihood of a list's order, falling by y, by Plackett-Luce.

        sum_i [ logsumexp(s_pi(i), ..., s_pi(n)) - s_pi(i) ]

    Args:
        scores: [G, L].
        relevance: [G, L].
        mask: [G, L] bool.
        ties: [G, L]; equal relevances stand in its order. It must know nothing of
            labels and places: the order in which a list was shown would be learnt.

    Returns:
        [G].

    References:
        F. Xia et al., "Listwise Approach to Learning to Rank", ICML 2008.
    """
    drawn = tf.argsort(ties, axis=1)
    last = tf.where(mask, -relevance, float("inf"))
    order = tf.argsort(tf.gather(last, drawn, batch_dims=1), axis=1, stable=True)
    order = tf.gather(drawn, order, batch_dims=1)
    there = tf.gather(mask, order, batch_dims=1)
    placed = tf.gather(scores, order, batch_dims=1)
    placed = tf.where(there, placed, _OUT)
    rest = tf.math.cumulative_logsumexp(placed, axis=1, reverse=True)
    return tf.reduce_sum(tf.where(there, rest - placed, 0.0), axis=1)


def drawn_ties(rows: Any) -> Any:
    """An order for ties, [B]: drawn by the place in the batch, the same every time.

    Which rows of a list come first changes with the place of the list in a batch, and
    so from epoch to epoch.
    """
    return tf.random.stateless_uniform([rows], [0x11E5, 0x71E5])


def _cross_entropy(scores: Any, shares: Any, mask: Any) -> Any:
    logs = tf.nn.log_softmax(tf.where(mask, scores, _OUT))
    return -tf.reduce_sum(tf.where(mask, shares * logs, 0.0), axis=1)
