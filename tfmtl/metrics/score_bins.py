"""Calibration in bins of predictions: the calibration error, and PCOC bin by bin.

Source: M. P. Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
Binning", AAAI 2015 (calibration error).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl.errors import ConfigError
from tfmtl.metrics.arrays import (
    Floats,
    Ints,
    binary_labels,
    probability_vector,
    tie_runs,
    weight_vector,
)


class ScoreBin(NamedTuple):
    """Rows of about the same prediction.

    Attributes:
      rows: how many.
      weight: of them; their number where rows have no weights.
      predicted: mean prediction.
      observed: share of positives.
      pcoc: predicted over observed positives; NaN without a positive.
    """

    rows: int
    weight: float
    predicted: float
    observed: float
    pcoc: float


def expected_calibration_error(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    bins: int = 100,
    method: Literal["mass", "width"] = "mass",
) -> float:
    """ECE = sum_b (n_b / n) |mean prediction - mean label| over bins of predictions.

    Equal-mass bins put a row at the middle of its ties' cumulative weight, so that
    tied predictions share a bin and the order of the rows is of no account: a constant
    prediction equal to the base rate has ECE 0.

    Args:
      labels: [N] of 0 and 1.
      probabilities: [N] in [0, 1].
      weights: [N] >= 0, or None for 1 each.
      bins: number of bins, >= 1.
      method: "mass" (as many rows in each bin as ties allow) or "width".

    Returns:
      A value in [0, 1]; NaN without rows.

    Raises:
      DataError: as `logloss`.
      ConfigError: for an unknown method or `bins` < 1.
    """
    p, positive, mass, index = _binned(labels, probabilities, weights, bins, method)
    total = float(mass.sum())
    if total == 0.0:
        return float("nan")
    gap = np.bincount(index, mass * (p - positive), bins)
    return float(np.abs(gap).sum()) / total


def pcoc_by_score(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    bins: int = 10,
    method: Literal["mass", "width"] = "mass",
) -> list[ScoreBin]:
    """PCOC in each bin of predictions, of the same bins as the calibration error's.

    Where one number says that a model is off, these say at which scores.

    Args:
      labels: [N] of 0 and 1.
      probabilities: [N] in [0, 1].
      weights: [N] >= 0, or None for 1 each.
      bins: number of bins, >= 1.
      method: as in `expected_calibration_error`.

    Returns:
      A bin for each that has weight, by rising prediction; its PCOC is NaN without a
      positive. The mean of `predicted` over that of `observed`, weighted by `weight`,
      is the PCOC of all rows.

    Raises:
      DataError: as `logloss`.
      ConfigError: for an unknown method or `bins` < 1.
    """
    p, positive, mass, index = _binned(labels, probabilities, weights, bins, method)
    rows = np.bincount(index, minlength=bins)
    weight = np.bincount(index, mass, bins)
    predicted = np.bincount(index, mass * p, bins)
    observed = np.bincount(index, mass * positive, bins)
    return [
        ScoreBin(
            rows=int(rows[b]),
            weight=float(weight[b]),
            predicted=float(predicted[b] / weight[b]),
            observed=float(observed[b] / weight[b]),
            pcoc=float(predicted[b] / observed[b]) if observed[b] else float("nan"),
        )
        for b in np.flatnonzero(weight > 0.0)
    ]


def _binned(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None,
    bins: int,
    method: str,
) -> tuple[Floats, npt.NDArray[np.bool_], Floats, Ints]:
    """Predictions, labels, weights and bins of the rows, [N] each, in one order."""
    if bins < 1:
        raise ConfigError(f"`bins` must be >= 1, got {bins}")
    if method not in ("mass", "width"):
        raise ConfigError(f"`method` must be 'mass' or 'width', got {method!r}")
    positive = binary_labels(labels)
    p = probability_vector("probabilities", probabilities, len(positive))
    weight = weight_vector(weights, len(positive))
    mass = np.ones(len(positive)) if weight is None else weight
    total = float(mass.sum())
    if method == "width":
        index = (bins * p).astype(np.int64)
    elif total == 0.0:
        index = np.zeros(len(p), dtype=np.int64)
    else:
        order = np.argsort(p)
        p, positive, mass = p[order], positive[order], mass[order]
        run, start = tie_runs(p)
        run_mass = np.add.reduceat(mass, start)
        middle = np.cumsum(run_mass) - 0.5 * run_mass
        index = (bins * middle / total).astype(np.int64)[run]
    return p, positive, mass, np.minimum(index, bins - 1)
