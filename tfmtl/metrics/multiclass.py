"""Metrics of one label out of C classes, from whole arrays in float64.

Rows without a label are the caller's to mask, as in `tfmtl.metrics.exact`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl.errors import DataError
from tfmtl.metrics.arrays import PROBABILITY_FLOOR, Floats, Ints

# How far the probabilities of a row may be from summing to 1: softmax in bfloat16.
_SUM_TOLERANCE = 1e-2


def _checked(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None,
) -> tuple[Ints, Floats, Floats]:
    """Returns labels [N] as integers, probabilities [N, C] and weights [N]."""
    table = np.asarray(probabilities, dtype=np.float64)
    raw = np.asarray(labels, dtype=np.float64)
    if table.ndim != 2 or raw.ndim != 1 or len(raw) != len(table):
        raise DataError(
            "`probabilities` must have shape [N, C] and `labels` shape [N], got "
            f"{table.shape} and {raw.shape}"
        )
    if np.isnan(table).any() or np.isnan(raw).any():
        raise DataError(
            "`labels` and `probabilities` must not be NaN; leave rows without a label "
            "out first"
        )
    classes = table.shape[1]
    wrong = (raw != np.floor(raw)) | (raw < 0) | (raw >= classes)
    if wrong.any():
        raise DataError(
            f"`labels` must be whole numbers in 0 .. {classes - 1}, got "
            f"{raw[wrong][0]} in row {int(np.argmax(wrong))}"
        )
    if weights is None:
        return raw.astype(np.int64), table, np.ones(len(raw))
    weight = np.asarray(weights, dtype=np.float64)
    if weight.shape != raw.shape or not np.all(np.isfinite(weight) & (weight >= 0.0)):
        raise DataError(
            f"`weights` must be finite, >= 0 and of shape {raw.shape}, got shape "
            f"{weight.shape}"
        )
    return raw.astype(np.int64), table, weight


def accuracy(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Share of rows whose most probable class (the first of ties) is the label.

    Args:
      labels: [N] class numbers in 0 .. C - 1.
      probabilities: [N, C] probabilities or logits.
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A value in [0, 1]; NaN without rows.

    Raises:
      DataError: for NaN, shapes that do not fit, or labels that are no class.
    """
    label, table, weight = _checked(labels, probabilities, weights)
    total = float(weight.sum())
    if total == 0.0:
        return float("nan")
    return float(weight @ (table.argmax(axis=1) == label)) / total


def macro_f1(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN).

    Classes that neither a label nor a prediction names are left out, since their F1
    is 0/0; a class that is only predicted, or never, has F1 0.

    Args:
      labels: [N] class numbers in 0 .. C - 1.
      probabilities: [N, C] probabilities or logits.
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A value in [0, 1]; NaN without rows.

    Raises:
      DataError: as `accuracy`.
    """
    label, table, weight = _checked(labels, probabilities, weights)
    if not len(label):
        return float("nan")
    classes = table.shape[1]
    predicted = table.argmax(axis=1)
    hit = np.bincount(label, weight * (predicted == label), classes)
    seen = np.bincount(label, weight, classes) + np.bincount(predicted, weight, classes)
    used = seen > 0.0
    if not used.any():
        return float("nan")
    return float(np.mean(2.0 * hit[used] / seen[used]))


def multiclass_logloss(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Mean of -log of the label's probability, in nats.

    Args:
      labels: [N] class numbers in 0 .. C - 1.
      probabilities: [N, C], rows summing to 1; rows are normalised exactly first.
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A value >= 0; NaN without rows.

    Raises:
      DataError: as `accuracy`, and for rows that are not probabilities.
    """
    label, table, weight = _checked(labels, probabilities, weights)
    total = float(weight.sum())
    if total == 0.0:
        return float("nan")
    sums = table.sum(axis=1)
    if table.min() < 0.0 or np.abs(sums - 1.0).max() > _SUM_TOLERANCE:
        raise DataError(
            "`probabilities` must be >= 0 with rows summing to 1, got a minimum of "
            f"{table.min()} and sums from {sums.min()} to {sums.max()}; pass "
            "softmax(logits), not the logits"
        )
    likelihood = table[np.arange(len(label)), label] / sums
    return float(weight @ -np.log(np.maximum(likelihood, PROBABILITY_FLOOR))) / total
