"""Confidence intervals of AUC, GAUC and means over lists by resampling users.

Rows of one user are not independent, so resampling rows makes intervals too narrow:
whole users (clusters) are drawn with replacement. Drawing users is the same as giving
each user a multiplicity, so the rows are sorted once and every resample is a weighted
AUC on the sorted rows: one gather and one cumulative sum.

Source: Field and Welsh, "Bootstrapping clustered data", JRSS B 2007; percentile
intervals as in Efron and Tibshirani, 1993, chapter 13.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics.arrays import (
    Floats,
    binary_labels,
    group_codes,
    sums_by_code,
    vector,
    weight_vector,
)
from tfmtl.metrics.grouped import (
    GroupWeights,
    PerGroup,
    auc_per_group,
    group_weight,
)

# Below this share of resamples with both classes the interval says more about the
# rare class than about the model.
_MIN_DEFINED = 0.5


class Interval(NamedTuple):
    """A percentile interval.

    Attributes:
      low: lower end; NaN where undefined.
      high: upper end; NaN where undefined.
      standard_error: standard deviation of the resamples.
      resamples: number of resamples that had both classes.
    """

    low: float
    high: float
    standard_error: float
    resamples: int


_UNDEFINED = Interval(float("nan"), float("nan"), float("nan"), 0)


def _percentile_interval(values: Floats, level: float) -> Interval:
    """Summarises resampled values, leaving the undefined ones out."""
    defined = values[~np.isnan(values)]
    if len(defined) < max(2, _MIN_DEFINED * len(values)):
        return _UNDEFINED._replace(resamples=len(defined))
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Interval(float(low), float(high), float(defined.std(ddof=1)), len(defined))


def _check_arguments(resamples: int, level: float) -> None:
    """Raises ConfigError for arguments that define no interval."""
    if resamples < 2:
        raise ConfigError(f"`resamples` must be >= 2, got {resamples}")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"`level` must lie in (0, 1), got {level}")


def _multiplicities(generator: np.random.Generator, count: int) -> Floats:
    """Draws `count` users with replacement; returns how often each came, [count]."""
    drawn = generator.integers(0, count, size=count)
    return np.bincount(drawn, minlength=count).astype(np.float64)


def auc_interval(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    users: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    *,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of AUC from resampled users.

    Args:
      labels: [N] of 0 and 1.
      scores: [N].
      users: [N] cluster of each row, or None to resample rows; a row with the empty
        text is a cluster of its own.
      weights: [N] >= 0 sample weights, or None.
      resamples: number of resamples, >= 2.
      level: coverage in (0, 1).
      seed: of the resampling; equal seeds give equal intervals.

    Returns:
      The interval; NaN where there are fewer than two users, or where most resamples
      lack a class.

    Raises:
      DataError: as `exact.auc`, or for missing users.
      ConfigError: for `resamples` or `level` out of range.
    """
    _check_arguments(resamples, level)
    positive = binary_labels(labels)
    score = vector("scores", scores, len(positive))
    weight = weight_vector(weights, len(positive))
    code, count = (None, len(positive)) if users is None else group_codes(users)
    if code is not None and len(code) != len(positive):
        raise DataError(
            f"`users` must be as long as `labels` ({len(positive)} rows), "
            f"got {len(code)}"
        )
    if count < 2 or positive.all() or not positive.any():
        return _UNDEFINED
    order = np.argsort(score)
    sorted_positive = positive[order]
    above, below = order[sorted_positive], order[~sorted_positive]
    # Positions of each positive among the sorted negatives: `lower` of them score
    # less, those from `lower` to `upper` tie.
    negative_score = score[below]
    lower = np.searchsorted(negative_score, score[above], side="left")
    upper = np.searchsorted(negative_score, score[above], side="right")
    # A row that is its own cluster may be numbered by its place in the sorted rows:
    # slices instead of random gathers.
    above_code = slice(0, len(above)) if code is None else code[above]
    below_code = slice(len(above), None) if code is None else code[below]
    tied = bool(np.any(lower != upper))

    generator = np.random.default_rng(seed)
    values = np.full(resamples, np.nan)
    running = np.zeros(len(below) + 1)
    for index in range(resamples):
        multiplicity = _multiplicities(generator, count)
        positives = multiplicity[above_code]
        negatives = multiplicity[below_code]
        if weight is not None:
            positives = positives * weight[above]
            negatives = negatives * weight[below]
        np.cumsum(negatives, out=running[1:])
        total = float(positives.sum()) * float(running[-1])
        if total > 0.0:
            wins = float(positives @ running[lower])
            if tied:
                wins = 0.5 * (wins + float(positives @ running[upper]))
            values[index] = wins / total
    return _percentile_interval(values, level)


def grouped_auc_interval(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    weights: GroupWeights = "impressions",
    *,
    row_weights: npt.ArrayLike | None = None,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of GAUC from resampled groups; a group's own AUC is computed once.

    Args:
      labels: [N] of 0 and 1.
      scores: [N].
      groups: [N] users, sessions or requests.
      weights: as `grouped.grouped_auc`.
      row_weights: [N] >= 0 sample weights, or None.
      resamples: number of resamples, >= 2.
      level: coverage in (0, 1).
      seed: of the resampling.

    Returns:
      The interval; NaN where fewer than two groups have both classes.

    Raises:
      DataError, ConfigError: as `grouped.grouped_auc` and `auc_interval`.
    """
    codes, count = group_codes(groups)
    per_group = auc_per_group(labels, scores, codes, count, row_weights)
    return resample_groups(
        per_group, weights, resamples=resamples, level=level, seed=seed
    )


def resample_groups(
    per_group: PerGroup,
    weights: GroupWeights = "impressions",
    *,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of GAUC from the groups' AUC; see `grouped_auc_interval`."""
    _check_arguments(resamples, level)
    weight = group_weight(per_group, weights)
    used = weight > 0.0
    if int(used.sum()) < 2:
        return _UNDEFINED
    # Groups with one class take part in the draw: how many of the drawn groups count
    # is itself random.
    value = np.where(used, weight * np.where(used, per_group.auc, 0.0), 0.0)
    generator = np.random.default_rng(seed)
    values = np.full(resamples, np.nan)
    for index in range(resamples):
        multiplicity = _multiplicities(generator, len(weight))
        total = float(multiplicity @ weight)
        if total > 0.0:
            values[index] = float(multiplicity @ value) / total
    return _percentile_interval(values, level)


def mean_intervals(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Intervals of the means of several metrics over the same lists.

    Args:
      values: [G, M] a metric of each list; NaN where the list has none, such as NDCG
        without a positive.
      clusters: [G] user of each list, or None to resample lists.
      resamples: number of resamples, >= 2.
      level: coverage in (0, 1).
      seed: of the resampling; equal seeds give equal intervals.

    Returns:
      M intervals; NaN where fewer than two users have a list with a value.

    Raises:
      DataError: for missing users.
      ConfigError: for `resamples` or `level` out of range.
    """
    _check_arguments(resamples, level)
    table = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(table)
    totals, counts = np.where(defined, table, 0.0), defined.astype(np.float64)
    if clusters is not None:
        codes, count = group_codes(clusters)
        totals, counts = (
            np.stack([sums_by_code(codes, c, count) for c in part.T], axis=1)
            for part in (totals, counts)
        )
    generator = np.random.default_rng(seed)
    found = np.full((resamples, table.shape[1]), np.nan)
    for index in range(resamples if len(totals) else 0):
        multiplicity = _multiplicities(generator, len(totals))
        drawn = multiplicity @ counts
        np.divide(multiplicity @ totals, drawn, out=found[index], where=drawn > 0.0)
    enough = (counts > 0.0).sum(axis=0) >= 2
    return [
        _percentile_interval(column, level) if known else _UNDEFINED
        for column, known in zip(found.T, enough)
    ]
