"""Rows in lists (requests, users), and where a score places the positives of each.

A ranking metric needs four counts of each positive row, and no order: how many rows of
its list score more, how many tie with it, and how many of these are positive. Counts
do not know in which order tied rows stood in the input, so neither does a metric.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl.errors import DataError
from tfmtl.metrics.arrays import Floats, Ints, group_codes, tie_runs, vector

Gain = Literal["linear", "exponential"]
_MAX_EXPONENT = 100.0


class Places(NamedTuple):
    """Where the positives stand, [P] each.

    Attributes:
      above: rows of the same list with a greater score.
      tied: rows of the same list with the same score, the positive itself among them.
      positives_above: the positives among `above`.
      positives_tied: the positives among `tied`, the row itself among them.
    """

    above: Ints
    tied: Ints
    positives_above: Ints
    positives_tied: Ints


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """G lists of at least two rows; the rows of those with a positive, list by list.

    Attributes:
      rows: [M] positions in the caller's arrays.
      of_row: [M] list of each, not falling.
      positive: [P] positions of the positives among the M rows.
      of: [P] list of each positive.
      gain: [P] > 0, of NDCG.
      value: [P] >= 0, gains of G-NDCG and G-MAP; None where there are none.
      first_row: [G] a row of each list in the caller's arrays.
      singles: number of lists of one row, which are in no other count.
    """

    rows: Ints
    of_row: Ints
    positive: Ints
    of: Ints
    gain: Floats
    value: Floats | None
    first_row: Ints
    singles: int

    @property
    def count(self) -> int:
        """G."""
        return len(self.first_row)

    @property
    def positives(self) -> Ints:
        """[G] positives of each list."""
        return np.bincount(self.of, minlength=self.count)


def gains(labels: npt.ArrayLike, gain: Gain = "linear") -> Floats:
    """Gain of each label: y, or 2^y - 1.

    Args:
      labels: [N] >= 0.
      gain: "linear" or "exponential".

    Returns:
      [N] >= 0.

    Raises:
      DataError: for labels below 0, NaN, or too great for a power of 2.
    """
    label = vector("labels", labels)
    if len(label) and label.min() < 0.0:
        raise DataError(
            f"`labels` must be >= 0 to have a gain, got a label of {label.min()}"
        )
    if gain == "linear":
        return label
    if len(label) and label.max() > _MAX_EXPONENT:
        raise DataError(
            f"the gain 2^y - 1 is for grades, got a label of {label.max()}; use the "
            "linear gain"
        )
    grades: Floats = np.expm1(label * np.log(2.0))
    return grades


def make_lists(
    gain: npt.ArrayLike, groups: npt.ArrayLike, value: npt.ArrayLike | None = None
) -> Lists:
    """Sorts rows into lists.

    A list of one row says nothing about an order and is left out; a row without a
    group, which is the empty text, is such a list.

    Args:
      gain: [N] >= 0; a row with a gain above 0 is a positive.
      groups: [N] requests or users; integers, strings or bytes.
      value: [N] >= 0 multiplies the gain in G-NDCG and G-MAP, such as a price; a row
        where it is NaN has the value 0. None where there is none.

    Raises:
      DataError: for unequal lengths, NaN, or values below 0.
    """
    worth = vector("gain", gain)
    codes, count = group_codes(groups)
    if len(codes) != len(worth):
        raise DataError(
            f"`groups` must be as long as `labels` ({len(worth)} rows), "
            f"got {len(codes)}"
        )
    size = np.bincount(codes, minlength=count)
    kept = size > 1
    number = np.cumsum(kept) - 1
    first = np.full(count, -1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    found = np.zeros(count, dtype=bool)
    found[codes[worth > 0.0]] = True
    rows = np.flatnonzero((kept & found)[codes])
    rows = rows[np.argsort(codes[rows], kind="stable")]
    of_row = number[codes[rows]]
    positive = np.flatnonzero(worth[rows] > 0.0)
    return Lists(
        rows=rows,
        of_row=of_row,
        positive=positive,
        of=of_row[positive],
        gain=worth[rows[positive]],
        value=None if value is None else _worth(value, worth)[rows[positive]],
        first_row=first[kept],
        singles=int((size == 1).sum()),
    )


def _worth(value: npt.ArrayLike, gain: Floats) -> Floats:
    """Gains times values [N], a missing value being 0."""
    raw = np.asarray(value, dtype=np.float64)
    filled = vector("value", np.where(np.isnan(raw), 0.0, raw), len(gain))
    if len(filled) and not (filled.min() >= 0.0 and np.isfinite(filled).all()):
        raise DataError(
            "`value` must be finite and >= 0, got values from "
            f"{filled.min()} to {filled.max()}"
        )
    return gain * filled


def find_places(lists: Lists, scores: npt.ArrayLike) -> Places:
    """Places the positives by one sort over (list, score).

    Args:
      lists: of N rows.
      scores: [N]; only rows of lists with a positive are read.

    Raises:
      DataError: for NaN among the scores that are read.
    """
    score = vector("scores", np.asarray(scores, dtype=np.float64)[lists.rows])
    if not len(score):
        nothing = np.zeros(0, dtype=np.int64)
        return Places(nothing, nothing, nothing, nothing)
    order = np.lexsort((-score, lists.of_row))
    # Sorting moves rows inside their list only: `of_row` stays as it is.
    run, start = tie_runs(lists.of_row, score[order])
    of_run = lists.of_row[start]
    _, begin = tie_runs(lists.of_row)
    list_begin = np.zeros(lists.count, dtype=np.int64)
    list_begin[lists.of_row[begin]] = begin
    positive = np.zeros(len(score), dtype=np.int64)
    positive[lists.positive] = 1
    in_run = np.add.reduceat(positive[order], start)
    earlier = np.cumsum(in_run) - in_run
    before_list = np.cumsum(lists.positives) - lists.positives
    run_of_row = np.empty(len(score), dtype=np.int64)
    run_of_row[order] = run
    mine = run_of_row[lists.positive]
    return Places(
        above=(start - list_begin[of_run])[mine],
        tied=np.diff(start, append=len(score))[mine],
        positives_above=(earlier - before_list[of_run])[mine],
        positives_tied=in_run[mine],
    )
