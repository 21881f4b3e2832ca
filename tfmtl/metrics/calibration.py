"""Corrections fitted after training, on rows that the model was not trained on.

A constant added to the logits of one scenario matches its predicted to its observed
positives and leaves the ranking, hence the scenario's AUC, as it was. A regression
head trained on the logarithm predicts the geometric mean when transformed back;
`smearing_factor` makes it the mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl.metrics.arrays import binary_labels, vector, weight_vector

_STEPS = 200
_TOLERANCE = 1e-12


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logistic function, without overflow at either end."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def fit_bias(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Solves sum_i w_i sigmoid(s_i + b) = sum_i w_i y_i for b by guarded Newton steps.

    Args:
      labels: [N] of 0 and 1.
      logits: [N], finite.
      weights: [N] >= 0, or None for 1 each.

    Returns:
      b, to add to the logits; NaN where one class has no weight, since no finite b
      solves that.

    Raises:
      DataError: for NaN, unequal lengths or labels other than 0 and 1.
    """
    positive = binary_labels(labels)
    logit = vector("logits", logits, len(positive))
    weight = weight_vector(weights, len(positive))
    mass = np.ones(len(positive)) if weight is None else weight
    observed, total = float(mass[positive].sum()), float(mass.sum())
    if not 0.0 < observed < total:
        return float("nan")
    # The sum grows with b. With all logits at the largest (smallest) value the
    # equation has a closed solution, which brackets the root.
    used = logit[mass > 0.0]
    centre = float(np.log(observed / (total - observed)))
    low, high = centre - float(used.max()), centre - float(used.min())
    bias = 0.5 * (low + high)
    for _ in range(_STEPS):
        p = _sigmoid(logit + bias)
        excess = float(mass @ p) - observed
        if abs(excess) <= _TOLERANCE * observed:
            break
        low, high = (low, bias) if excess > 0.0 else (bias, high)
        slope = float(mass @ (p * (1.0 - p)))
        newton = bias - excess / slope if slope > 0.0 else low - 1.0
        bias = newton if low < newton < high else 0.5 * (low + high)
    return bias


def smearing_factor(
    transformed_labels: npt.ArrayLike,
    transformed_predictions: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Duan's smearing factor: the mean of exp(label - prediction) on the log scale.

    exp(prediction) estimates the geometric mean of the label; times this factor it
    estimates the mean. For log1p the estimate is factor * exp(prediction) - 1.

    Args:
      transformed_labels: [N] log (or log1p) of the labels.
      transformed_predictions: [N] on the same scale.
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A factor > 0; NaN without rows.

    Raises:
      DataError: for NaN, unequal lengths or bad weights.

    Source: N. Duan, "Smearing Estimate", JASA 1983.
    """
    label = vector("transformed_labels", transformed_labels)
    prediction = vector("transformed_predictions", transformed_predictions, len(label))
    weight = weight_vector(weights, len(label))
    mass = np.ones(len(label)) if weight is None else weight
    total = float(mass.sum())
    if total == 0.0:
        return float("nan")
    return float(mass @ np.exp(label - prediction)) / total
