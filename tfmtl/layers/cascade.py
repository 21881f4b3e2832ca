"""Scores of behaviours that build on one another."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import tf


def cascade(own: Any, bias: Any, form: str) -> Any:
    """Adds to each behaviour's score that of the behaviour before it.

        s^1 = f^1 + b^1
        s^r = f^r + s^{r-1} + b^r            `sum`
        s^r = (f^r + s^{r-1}) / 2 + b^r      `mean`

    Both are one product with a constant triangular matrix.

    Args:
        own: f, [B, R].
        bias: b, [B, R], or [B, 1] for all behaviours alike.
        form: `sum` or `mean`.

    Returns:
        s, [B, R].
    """
    if form == "sum":
        return tf.cumsum(own + bias, axis=1)
    count = own.shape[1]
    later, earlier = np.indices((count, count))
    halvings = np.where(earlier <= later, 0.5 ** np.abs(later - earlier), 0.0)
    # Every score but the first is halved once more, as it enters.
    entering = halvings * np.where(np.arange(count) > 0, 0.5, 1.0)
    through = tf.constant(entering.T, own.dtype)
    return tf.matmul(own, through) + tf.matmul(
        bias + tf.zeros_like(own), tf.constant(halvings.T, own.dtype)
    )
