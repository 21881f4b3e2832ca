"""Values: often 0, else far from normal; and the way back from a mean of logs."""

from __future__ import annotations

import math
from typing import Any

from tfmtl._keras import tf

_LEAST_SIGMA = math.sqrt(1e-7)  # as the authors' code has it: sqrt(Keras' epsilon)
_LARGEST_LOG = 80.0  # e^80 is a float32


def _parts(outputs: Any) -> tuple[Any, Any, Any]:
    """Logit of a value above 0, mean and standard deviation of its logarithm."""
    sigma = tf.maximum(tf.nn.softplus(outputs[:, 2]), _LEAST_SIGMA)
    return outputs[:, 0], outputs[:, 1], sigma


def zero_inflated_lognormal(outputs: Any, labels: Any) -> Any:
    """-log of the likelihood of y: not above 0, or above 0 and log-normal.

        y <= 0:  -log(1 - p)
        y > 0:   -log p + log(y sigma sqrt(2 pi)) + (log y - mu)^2 / (2 sigma^2)

    Args:
        outputs: [B, 3]: logit of p, mu, softplus^-1 of sigma.
        labels: [B].

    References:
        X. Wang, T. Liu and J. Miao, "A Deep Probabilistic Model for Customer Lifetime
        Value Prediction", arXiv 1912.07753, section 3.
    """
    logit, mu, sigma = _parts(outputs)
    positive = labels > 0
    rows = tf.nn.sigmoid_cross_entropy_with_logits(
        tf.cast(positive, logit.dtype), logit
    )
    log_y = tf.math.log(tf.where(positive, labels, 1.0))
    density = (
        log_y
        + tf.math.log(sigma)
        + 0.5 * math.log(2 * math.pi)
        + 0.5 * tf.square((log_y - mu) / sigma)
    )
    return rows + tf.where(positive, density, 0.0)


def zero_inflated_mean(outputs: Any) -> Any:
    """p e^(mu + sigma^2 / 2): [B, 3] -> [B], the expectation."""
    logit, mu, sigma = _parts(outputs)
    log_mean = mu + 0.5 * tf.square(sigma) - tf.nn.softplus(-logit)
    return tf.exp(tf.minimum(log_mean, _LARGEST_LOG))


def odds(logits: Any) -> Any:
    """e^s: what a weighted logistic loss makes of watch time."""
    return tf.exp(tf.minimum(logits, _LARGEST_LOG))


def from_log1p(fitted: Any, factor: Any = None) -> Any:
    """Back from a mean of log(1 + y).

    e^s - 1 is the geometric mean of 1 + y, less 1: below its mean. With Duan's factor,
    the mean of e^r over residuals r, it is the mean: E[1 + y] = e^s E[e^r] where the
    residuals do not depend on the row.

    Args:
        fitted: [B].
        factor: Scalar.

    References:
        N. Duan, "Smearing Estimate: A Nonparametric Retransformation Method", JASA
        78(383), 1983.
    """
    capped = tf.minimum(fitted, _LARGEST_LOG)
    return tf.math.expm1(capped) if factor is None else factor * tf.exp(capped) - 1


def smearing_sums(fitted: Any, labels: Any, weights: Any) -> Any:
    """What Duan's factor is the quotient of.

    Args:
        fitted: [B], means of log(1 + y).
        labels: [B], in their own unit.
        weights: [B], 0 where a row does not count.

    Returns:
        [2] float64: sum of w e^(log(1 + y) - s), sum of w.
    """
    residual = tf.math.log1p(tf.maximum(labels, 0.0)) - fitted
    weights = tf.cast(weights, tf.float64)
    # A row that does not count may hold anything.
    residual = tf.where(weights > 0, tf.cast(residual, tf.float64), 0.0)
    ratio = tf.exp(tf.minimum(residual, _LARGEST_LOG))
    return tf.stack([tf.reduce_sum(weights * ratio), tf.reduce_sum(weights)])
