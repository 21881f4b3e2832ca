"""AUC from counts of positives and negatives per score bin, with its error bound.

AUC = sum_b neg_b (pos_{>b} + pos_b / 2) / (P N): exact between bins, and pairs that
share a bin count as ties. Each such pair may truly be worth 0 or 1, hence the error is
at most 1/2 sum_b pos_b neg_b / (P N). Counts of disjoint rows add.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl.metrics.arrays import Floats


class HistogramAuc(NamedTuple):
    """AUC of each histogram with the bound of its error.

    Attributes:
      auc: [...], NaN where a class is empty.
      bound: [...], |auc - exact AUC| <= bound; NaN where `auc` is.
    """

    auc: Floats
    bound: Floats


def histogram_auc(
    negatives: npt.NDArray[Any], positives: npt.NDArray[Any]
) -> HistogramAuc:
    """Computes AUC along the last axis.

    Args:
      negatives: [..., K] counts (or weights) per bin of ascending score.
      positives: [..., K] likewise.

    Returns:
      Arrays [...].
    """
    negative = np.asarray(negatives, dtype=np.float64)
    positive = np.asarray(positives, dtype=np.float64)
    below = np.cumsum(negative, axis=-1) - negative
    shared = np.sum(positive * negative, axis=-1)
    wins = np.sum(positive * below, axis=-1) + 0.5 * shared
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    undefined = np.full(pairs.shape, np.nan)
    return HistogramAuc(
        np.divide(wins, pairs, out=undefined.copy(), where=pairs > 0.0),
        np.divide(0.5 * shared, pairs, out=undefined.copy(), where=pairs > 0.0),
    )
