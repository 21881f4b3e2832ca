"""Metrics of one binary task from whole arrays in float64: AUC, log-loss, calibration.

Every function takes the rows of one task's population, see `arrays` for the rules on
missing values. A metric that the rows do not define (AUC with one class, PCOC without
a positive, anything of no rows) is NaN, never a neutral value.

Sources: Fawcett, "An introduction to ROC analysis", 2006 (AUC by ranks); X. He et al.,
ADKDD 2014 (normalised entropy).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl.metrics.arrays import (
    PROBABILITY_FLOOR,
    binary_labels,
    probability_vector,
    tie_runs,
    vector,
    weight_vector,
    weighted_mean,
)
from tfmtl.metrics.grouped import GroupedAuc, grouped_auc
from tfmtl.metrics.multiclass import accuracy, macro_f1, multiclass_logloss
from tfmtl.metrics.regression import mae, r2, rmse
from tfmtl.metrics.score_bins import (
    ScoreBin,
    expected_calibration_error,
    pcoc_by_score,
)

__all__ = [
    "GroupedAuc",
    "ScoreBin",
    "accuracy",
    "auc",
    "expected_calibration_error",
    "grouped_auc",
    "logloss",
    "macro_f1",
    "mae",
    "multiclass_logloss",
    "normalized_entropy",
    "pcoc",
    "pcoc_by_score",
    "r2",
    "relative_improvement",
    "rmse",
]


def auc(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Area under the ROC curve; tied scores count one half (mid-ranks).

    AUC = sum_{i in pos, j in neg} w_i w_j (1[s_i > s_j] + 1/2 1[s_i = s_j]) / (W_P W_N)
    by one sort and a cumulative sum of the negatives' weight.

    Args:
      labels: [N] of 0 and 1.
      scores: [N], any monotone function of the probability; infinities are legal.
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A value in [0, 1]; NaN where either class has no row (or no weight).

    Raises:
      DataError: for NaN, unequal lengths, labels other than 0 and 1, bad weights.
    """
    positive = binary_labels(labels)
    score = vector("scores", scores, len(positive))
    weight = weight_vector(weights, len(positive))
    order = np.argsort(score)
    _, start = tie_runs(score[order])
    positive = positive[order]
    if weight is None:
        positives = positive.astype(np.float64)
        negatives = 1.0 - positives
    else:
        weight = weight[order]
        positives = np.where(positive, weight, 0.0)
        negatives = np.where(positive, 0.0, weight)
    total = float(positives.sum()) * float(negatives.sum())
    if total == 0.0:
        return float("nan")
    run_positives = np.add.reduceat(positives, start)
    run_negatives = np.add.reduceat(negatives, start)
    below = np.cumsum(run_negatives) - run_negatives
    return float(run_positives @ (below + 0.5 * run_negatives)) / total


def relative_improvement(auc: float, baseline: float) -> float:
    """RelaImpr = (AUC - 0.5) / (AUC of the baseline - 0.5) - 1.

    AUC begins at 0.5, so that a gain of 0.01 is much over 0.55 and little over 0.9. A
    report on one model has no baseline, and so no such number: this is for two reports.

    Args:
      auc: of the model.
      baseline: of what it is compared with, on the same rows.

    Returns:
      0 where both are equal, 0.1 for a tenth more; NaN where the baseline is no better
      than chance, or undefined.

    Source: L. Yan et al., "Coupled Group Lasso for Web-Scale CTR Prediction in Display
    Advertising", ICML 2014.
    """
    if not baseline > 0.5:
        return float("nan")
    return (auc - 0.5) / (baseline - 0.5) - 1.0


def logloss(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Mean binary cross-entropy in nats: sum_i w_i l_i / sum_i w_i.

    Args:
      labels: [N] of 0 and 1.
      probabilities: [N] in [0, 1], clipped to `PROBABILITY_FLOOR` from either end.
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A value >= 0; NaN without rows.

    Raises:
      DataError: for NaN, unequal lengths or values outside their range.
    """
    positive = binary_labels(labels)
    p = probability_vector("probabilities", probabilities, len(positive))
    likelihood = np.where(positive, p, 1.0 - p)
    loss = -np.log(np.clip(likelihood, PROBABILITY_FLOOR, 1.0))
    return weighted_mean(loss, weight_vector(weights, len(positive)))


def normalized_entropy(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Log-loss over the entropy of the base rate: 1 for the constant base rate.

    Args:
      labels: [N] of 0 and 1.
      probabilities: [N] in [0, 1].
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A value >= 0, smaller is better; NaN where only one class has rows.

    Raises:
      DataError: as `logloss`.
    """
    positive = binary_labels(labels)
    loss = logloss(labels, probabilities, weights)
    rate = weighted_mean(
        positive.astype(np.float64), weight_vector(weights, len(positive))
    )
    if not 0.0 < rate < 1.0:
        return float("nan")
    entropy = -(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate))
    return float(loss / entropy)


def pcoc(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Predicted over observed positives, sum(w p) / sum(w y); 1 is ideal.

    Args:
      labels: [N] of 0 and 1.
      probabilities: [N] in [0, 1].
      weights: [N] >= 0, or None for 1 each.

    Returns:
      A ratio >= 0; NaN without a positive.

    Raises:
      DataError: as `logloss`.
    """
    positive = binary_labels(labels)
    p = probability_vector("probabilities", probabilities, len(positive))
    weight = weight_vector(weights, len(positive))
    mass = np.ones(len(positive)) if weight is None else weight
    observed = float(mass[positive].sum())
    return float(mass @ p) / observed if observed > 0.0 else float("nan")
