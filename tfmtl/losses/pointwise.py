"""Losses of single rows: logits and labels in, one number a row out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfmtl._keras import tf


def binary_cross_entropy(logits: Any, labels: Any) -> Any:
    """softplus(s) - y s: the negative log-likelihood of a 0/1 label.

    Computed as max(s, 0) - y s + log(1 + e^-|s|), which loses no digits where the
    logit is large and right.

    Args:
        logits: [B].
        labels: [B] in [0, 1].
    """
    return tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)


def squared_error(predictions: Any, labels: Any) -> Any:
    """(s - y)^2 / 2, whose gradient is the error itself."""
    return 0.5 * tf.square(predictions - labels)


def softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    """-log softmax(s)_y.

    Args:
        logits: [B, C].
        labels: [B], class numbers as floats.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.cast(labels, tf.int32), logits
    )


LOSSES: dict[str, dict[str, Callable[[Any, Any], Any]]] = {
    "binary": {"bce": binary_cross_entropy},
    "regression": {"mse": squared_error},
    "multiclass": {"softmax": softmax_cross_entropy},
}
"""Task type to the losses it may name; the first is its default."""
