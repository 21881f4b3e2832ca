"""Errors of predicted values, from whole arrays in float64.

Rows without a label are the caller's to mask, as in `tfmtl.metrics.exact`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl.metrics.arrays import vector, weight_vector, weighted_mean


def rmse(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Root of the (weighted) mean squared error, in the label's unit.

    Args:
      labels: [N].
      predictions: [N].
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A value >= 0; NaN without rows.

    Raises:
      DataError: for NaN, unequal lengths or bad weights.
    """
    error = vector("labels", labels)
    error = vector("predictions", predictions, len(error)) - error
    return float(np.sqrt(weighted_mean(error**2, weight_vector(weights, len(error)))))


def mae(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """(Weighted) mean absolute error, in the label's unit; arguments as `rmse`."""
    error = vector("labels", labels)
    error = vector("predictions", predictions, len(error)) - error
    return weighted_mean(np.abs(error), weight_vector(weights, len(error)))


def r2(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Explained share of the labels' variance, 1 - SSE / SST.

    Args:
      labels: [N].
      predictions: [N].
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A value <= 1; NaN where the labels do not vary.

    Raises:
      DataError: as `rmse`.
    """
    label = vector("labels", labels)
    weight = weight_vector(weights, len(label))
    error = vector("predictions", predictions, len(label)) - label
    variance = weighted_mean((label - weighted_mean(label, weight)) ** 2, weight)
    if not variance > 0.0:
        return float("nan")
    return 1.0 - weighted_mean(error**2, weight) / variance
