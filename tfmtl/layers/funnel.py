"""Probabilities of a funnel, in log space."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf


def log1mexp(log_p: Any) -> Any:
    """log(1 - exp(a)) for a <= 0, exact near 0 and far from it.

    Only a = 0 itself is guarded: a clip at -1e-7 would give -16.1 for the true -29.3 at
    two logits of 30, and no gradient.
    """
    a = tf.minimum(log_p, -1e-30)
    near = a > -0.6931472
    # Both branches see a safe value: the gradient of the branch not taken is not NaN.
    close = tf.math.log(-tf.math.expm1(tf.where(near, a, -1.0)))
    far = tf.math.log1p(-tf.exp(tf.where(near, -1.0, a)))
    return tf.where(near, close, far)


def joint_logit(*logits: Any) -> Any:
    """Logit of the product of probabilities, from their logits.

        log p = sum_i log sigmoid(s_i),   logit = log p - log(1 - p)

    Args:
        *logits: [B] each.

    Returns:
        [B], finite for logits up to +-60.
    """
    log_p = tf.add_n([-tf.nn.softplus(-s) for s in logits])
    return log_p - log1mexp(log_p)


def conditional_logit(joint: Any, above: Any) -> Any:
    """Logit of p / p_above, the probability of a step given the step above it.

    An architecture may estimate both freely, so that p > p_above: the ratio is then
    taken as 1 - 1e-6.

    Args:
        joint: [B], logit of p, over all rows.
        above: [B], logit of p_above, over all rows.

    Returns:
        [B].
    """
    log_ratio = tf.nn.softplus(-above) - tf.nn.softplus(-joint)
    log_ratio = tf.minimum(log_ratio, -1e-6)
    return log_ratio - log1mexp(log_ratio)


def mixture_logit(switch: Any, taken: Any, otherwise: Any) -> Any:
    """Logit of y2 y3 + (1 - y2) y4, a step that may lead through another one or not.

        log p       = logaddexp(log y2 + log y3,       log(1 - y2) + log y4)
        log (1 - p) = logaddexp(log y2 + log(1 - y3),  log(1 - y2) + log(1 - y4))

    Args:
        switch: [B], logit of y2, the step between.
        taken: [B], logit of y3, the step after it.
        otherwise: [B], logit of y4, the step without it.

    Returns:
        [B], finite for logits up to +-60.
    """
    log_y, log_n = -tf.nn.softplus(-switch), -tf.nn.softplus(switch)

    def log_sum(sign: float) -> Any:
        paths = [
            log_y - tf.nn.softplus(-sign * taken),
            log_n - tf.nn.softplus(-sign * otherwise),
        ]
        return tf.reduce_logsumexp(tf.stack(paths), axis=0)

    return log_sum(1.0) - log_sum(-1.0)


def order_violation(step: Any, above: Any) -> Any:
    """AITM's behavioural expectation calibrator of two steps, mean max(p - p_above, 0).

    Args:
        step: [B], probability of a step over all rows.
        above: [B], of the step it follows, which cannot be rarer.

    Returns:
        Scalar; its gradient is +-1/B where the order is violated, and 0 elsewhere.
    """
    # relu, not maximum: that one has a gradient at equality.
    return tf.reduce_mean(tf.nn.relu(step - above))
