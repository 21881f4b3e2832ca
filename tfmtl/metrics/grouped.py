"""AUC inside groups (users, sessions, requests) and its mean, GAUC.

Source: H. Zhu et al., "Optimized Cost per Click in Taobao Display Advertising",
KDD 2017 (impression-weighted user AUC).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics.arrays import (
    Floats,
    Ints,
    binary_labels,
    group_codes,
    sums_by_code,
    tie_runs,
    vector,
    weight_vector,
)

GroupWeights = Literal["impressions", "positives", "ones"]


class GroupedAuc(NamedTuple):
    """GAUC with what it covers: groups with one class only say nothing.

    Attributes:
      value: weighted mean of the groups' AUC; NaN where no group has both classes.
      groups_used: number of groups with both classes.
      group_coverage: their share of all groups, a row without a group counting as one.
      row_coverage: the share of all rows that lie in them.
    """

    value: float
    groups_used: int
    group_coverage: float
    row_coverage: float


class PerGroup(NamedTuple):
    """AUC and totals of each group.

    Attributes:
      auc: [G], NaN where a group has one class only.
      positives: [G] weight of the group's positives.
      total: [G] weight of all its rows.
      rows: [G] number of its rows.
    """

    auc: Floats
    positives: Floats
    total: Floats
    rows: Ints


def auc_per_group(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    codes: Ints,
    count: int,
    row_weights: npt.ArrayLike | None = None,
) -> PerGroup:
    """AUC inside each group by one lexicographic sort over (group, score).

    Args:
      labels: [N] of 0 and 1.
      scores: [N].
      codes: [N] group numbers in 0 .. count - 1, as `group_codes` gives them.
      count: number of groups G.
      row_weights: [N] >= 0, or None for 1 each.

    Returns:
      Arrays [G].

    Raises:
      DataError: as `auc`.
    """
    positive = binary_labels(labels)
    score = vector("scores", scores, len(positive))
    weight = weight_vector(row_weights, len(positive))
    if len(codes) != len(positive):
        raise DataError(
            f"`groups` must be as long as `labels` ({len(positive)} rows), "
            f"got {len(codes)}"
        )
    order = np.lexsort((score, codes))
    code, positive = codes[order], positive[order]
    mass = np.ones(len(code)) if weight is None else weight[order]
    rows = np.bincount(code, minlength=count)
    if not len(code):
        empty = np.zeros(count)
        return PerGroup(empty * np.nan, empty, empty, rows)
    _, start = tie_runs(code, score[order])
    positives = np.add.reduceat(np.where(positive, mass, 0.0), start)
    negatives = np.add.reduceat(np.where(positive, 0.0, mass), start)
    run_code = code[start]
    group_positives = sums_by_code(run_code, positives, count)
    group_negatives = sums_by_code(run_code, negatives, count)
    # Negatives of lower score in the same group: those of lower score in the sorted
    # whole, less everything that belongs to earlier groups.
    earlier = np.cumsum(group_negatives) - group_negatives
    below = np.cumsum(negatives) - negatives - earlier[run_code]
    wins = sums_by_code(run_code, positives * (below + 0.5 * negatives), count)
    pairs = group_positives * group_negatives
    value = np.divide(wins, pairs, out=np.full(count, np.nan), where=pairs > 0.0)
    return PerGroup(value, group_positives, group_positives + group_negatives, rows)


def group_weight(per_group: PerGroup, weights: GroupWeights) -> Floats:
    """The weight of each group in GAUC; 0 for groups with one class.

    Args:
      per_group: of G groups.
      weights: "impressions" (rows), "positives" (clicks) or "ones".

    Returns:
      [G] >= 0.

    Raises:
      ConfigError: for another name.
    """
    if weights == "impressions":
        value = per_group.total
    elif weights == "positives":
        value = per_group.positives
    elif weights == "ones":
        value = np.ones_like(per_group.total)
    else:
        raise ConfigError(
            f"`weights` must be 'impressions', 'positives' or 'ones', got {weights!r}"
        )
    return np.where(np.isnan(per_group.auc), 0.0, value)


def grouped_auc(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    weights: GroupWeights = "impressions",
    *,
    row_weights: npt.ArrayLike | None = None,
) -> GroupedAuc:
    """GAUC: the mean of the users' (or sessions') own AUC.

    GAUC = sum_u w_u AUC_u / sum_u w_u over groups that have both classes. Adding a
    constant to all scores of one user does not change it. Rows without a group (the
    empty text) are left out, and lower the coverage.

    Args:
      labels: [N] of 0 and 1.
      scores: [N].
      groups: [N] users, sessions or requests; integers, strings or bytes.
      weights: w_u: "impressions" (rows), "positives" or "ones".
      row_weights: [N] sample weights >= 0 inside the groups' AUC and w_u, or None.

    Returns:
      The value and its coverage.

    Raises:
      DataError: for NaN, unequal lengths or missing groups.
      ConfigError: for an unknown `weights`.
    """
    codes, count = group_codes(groups)
    per_group = auc_per_group(labels, scores, codes, count, row_weights)
    return summarise_groups(per_group, weights)


def summarise_groups(
    per_group: PerGroup, weights: GroupWeights = "impressions"
) -> GroupedAuc:
    """Averages the groups' AUC; see `grouped_auc`."""
    weight = group_weight(per_group, weights)
    used = ~np.isnan(per_group.auc)
    groups_used = int(used.sum())
    rows = int(per_group.rows.sum())
    total = float(weight.sum())
    if total == 0.0:
        value = float("nan")
    else:
        value = float(weight[used] @ per_group.auc[used]) / total
    return GroupedAuc(
        value=value,
        groups_used=groups_used,
        group_coverage=groups_used / len(used) if len(used) else 0.0,
        row_coverage=int(per_group.rows[used].sum()) / rows if rows else 0.0,
    )
