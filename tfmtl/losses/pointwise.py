"""Losses of single rows: outputs and labels in, one number a row out."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf


def binary_cross_entropy(logits: Any, labels: Any, smoothing: float = 0.0) -> Any:
    """softplus(s) - y s: the negative log-likelihood of a 0/1 label.

    Computed as max(s, 0) - y s + log(1 + e^-|s|), which loses no digits where the
    logit is large and right.

    Args:
        logits: [B].
        labels: [B] in [0, 1].
        smoothing: Share of each label that is replaced by 1/2.
    """
    if smoothing:
        labels = (1 - smoothing) * labels + smoothing / 2
    return tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)


def focal(logits: Any, labels: Any, gamma: float, alpha: float | None) -> Any:
    """-alpha_t (1 - p_t)^gamma log p_t, with p_t the probability of the true label.

    1 - p_t = e^-softplus(z) with z = s for a positive and -s for a negative: no power
    of a rounded difference, and a gradient at any logit. A label between 0 and 1 mixes
    the two.

    Args:
        logits: [B].
        labels: [B] in [0, 1].
        gamma: 0 is the cross-entropy.
        alpha: Weight of positives, that of negatives is 1 - alpha; both 1 where None.

    References:
        T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 5.
    """

    def of(z: Any) -> Any:
        return tf.exp(-gamma * tf.nn.softplus(z)) * tf.nn.softplus(-z)

    positive = 1.0 if alpha is None else alpha
    negative = 1.0 if alpha is None else 1 - alpha
    return positive * labels * of(logits) + negative * (1 - labels) * of(-logits)


def signed_logistic(logits: Any, labels: Any) -> Any:
    """log(1 + e^(-y s)) with y = 2 label - 1: the cross-entropy, written as DUPN does.

    Args:
        logits: [B].
        labels: [B], 0 or 1.

    References:
        Y. Ni et al., "Perceive Your Users in Depth", KDD 2018, section 3.5 (L2R).
    """
    return tf.nn.softplus(-(2 * labels - 1) * logits)


def distillation(
    logits: Any, labels: Any, teacher: Any, temperature: float, mix: float
) -> Any:
    """(1 - mix) H(y, p(s)) + mix t^2 H(p(r / t), p(s / t)), with r the teacher's logit.

    t^2 keeps the size of the second gradient when t changes. Where the teacher is NaN
    the row has H(y, p(s)) alone.

    Args:
        logits: [B].
        labels: [B].
        teacher: [B] logits, or NaN.
        temperature: t.
        mix: Weight of the teacher's part.

    References:
        G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural
        Network", arXiv 1503.02531, section 2.
    """
    known = tf.logical_not(tf.math.is_nan(teacher))
    taught = tf.sigmoid(tf.where(known, teacher, 0.0) / temperature)
    soft = temperature**2 * binary_cross_entropy(logits / temperature, taught)
    hard = binary_cross_entropy(logits, labels)
    return tf.where(known, (1 - mix) * hard + mix * soft, hard)


def probability_to_logit(probability: Any) -> Any:
    """log(p / (1 - p)), with p at least 1e-7 away from 0 and 1; NaN stays NaN."""
    p = tf.clip_by_value(probability, 1e-7, 1 - 1e-7)
    return tf.math.log(p) - tf.math.log1p(-p)


def squared_error(predictions: Any, labels: Any) -> Any:
    """(s - y)^2 / 2, whose gradient is the error itself."""
    return 0.5 * tf.square(predictions - labels)


def huber(predictions: Any, labels: Any, delta: float) -> Any:
    """e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2).

    References:
        P. Huber, "Robust Estimation of a Location Parameter", 1964.
    """
    error = tf.abs(predictions - labels)
    inside = tf.minimum(error, delta)
    return 0.5 * tf.square(inside) + delta * (error - inside)


def weighted_logistic(logits: Any, labels: Any, negatives: str) -> Any:
    """y softplus(-s) + n softplus(s): a positive of weight y, a negative of weight n.

    With n = 1 in every row the odds e^s that fit best are E[y]. With n = 1 where y = 0
    and else 0, as in the source, they are E[y] / P(y = 0), near E[y] while positives
    are few.

    Args:
        logits: [B].
        labels: [B], what is expected, such as watch time; below 0 counts as 0.
        negatives: `all` or `zeros`.

    References:
        P. Covington, J. Adams and E. Sargin, "Deep Neural Networks for YouTube
        Recommendations", RecSys 2016, section 4.2.
    """
    value = tf.maximum(labels, 0.0)
    against = tf.nn.softplus(logits)
    if negatives == "zeros":
        against = tf.where(value > 0, 0.0, against)
    return value * tf.nn.softplus(-logits) + against


def softmax_cross_entropy(logits: Any, labels: Any, smoothing: float = 0.0) -> Any:
    """-log softmax(s)_y, or with smoothing e: -sum_c q_c log softmax(s)_c with
    q = (1 - e) onehot(y) + e / C.

    Args:
        logits: [B, C].
        labels: [B], class numbers as floats.
        smoothing: e.
    """
    classes = tf.cast(labels, tf.int32)
    rows = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    if not smoothing:
        return rows
    even = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=1)
    return (1 - smoothing) * rows + smoothing * even
