"""Ordered classes by cumulative logits.

Three forms were to choose from. Proportional odds (McCullagh 1980) and CORAL (Cao,
Mirjalili and Raschka 2020) have one score a row and thresholds that all rows share;
CORAL's are in order only at the optimum, and both keep variables of their own outside
the model. Here the first threshold and the gaps to the next ones are the model's
outputs, so that every architecture's own heads hold them: the order holds in every row
at every step, and where the gaps do not depend on the row it is proportional odds.
"""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf

_LEAST_GAP = 1e-6  # a class between two equal thresholds would have probability 0


def cumulative_logits(outputs: Any) -> Any:
    """c_k with P(y > k) = sigmoid(c_k), falling in k.

        c_0 = a_0,   c_k = c_(k-1) - softplus(a_k)

    Args:
        outputs: a, [B, C - 1].

    Returns:
        [B, C - 1].
    """
    return outputs[:, :1] - tf.cumsum(_gaps(outputs), axis=1)


def log_probabilities(outputs: Any) -> Any:
    """log P(y = k) of the C classes, whose softmax is P(y = k).

    The difference of two neighbours, sigmoid(a) - sigmoid(b), is sigmoid(a) sigmoid(-b)
    (1 - e^(b - a)): no digits are lost where both are near 0 or 1.

    Args:
        outputs: [B, C - 1].

    Returns:
        [B, C].
    """
    c = cumulative_logits(outputs)
    reached, stopped = -tf.nn.softplus(-c), -tf.nn.softplus(c)  # log P(y > k), <= k
    between = reached[:, :-1] + stopped[:, 1:] + _log_part(_gaps(outputs)[:, 1:])
    return tf.concat([stopped[:, :1], between, reached[:, -1:]], axis=1)


def ordinal_cross_entropy(outputs: Any, labels: Any) -> Any:
    """-log P(y = label).

    Args:
        outputs: [B, C - 1].
        labels: [B], class numbers as floats.

    References:
        P. McCullagh, "Regression Models for Ordinal Data", JRSS B 42(2), 1980.
    """
    classes = tf.cast(labels, tf.int32)[:, None]
    return -tf.gather(log_probabilities(outputs), classes, axis=1, batch_dims=1)[:, 0]


def _gaps(outputs: Any) -> Any:
    """0, then what each threshold lies below the one before: [B, C - 1]."""
    steps = tf.nn.softplus(outputs[:, 1:]) + _LEAST_GAP
    return tf.concat([tf.zeros_like(outputs[:, :1]), steps], axis=1)


def _log_part(gaps: Any) -> Any:
    """log(1 - e^-g)."""
    # The branch that is not taken must have a gradient, too.
    near = tf.minimum(gaps, 0.7)
    far = tf.maximum(gaps, 0.7)
    return tf.where(
        gaps < 0.7, tf.math.log(-tf.math.expm1(-near)), tf.math.log1p(-tf.exp(-far))
    )
