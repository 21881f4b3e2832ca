"""NDCG, MAP, HR at K and MRR over lists, exact where scores tie.

Rows that tie stand in a random order, and a metric is its expectation over all orders
of the ties, in closed form: neither the order of the input nor a seed enters. NDCG then
is scikit-learn's `ndcg_score`, which averages the gains of tied rows.

Sources: K. Järvelin and J. Kekäläinen, "Cumulated gain-based evaluation of IR
techniques", TOIS 2002 (NDCG); F. McSherry and M. Najork, "Computing information
retrieval performance measures efficiently in the presence of tied scores", ECIR 2008
(expectations over ties); X. Lin et al., "A Pareto-efficient algorithm for multiple
objective optimization in e-commerce recommendation", RecSys 2019 (gains with prices).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from tfmtl.errors import ConfigError
from tfmtl.metrics.arrays import Floats, Ints, binary_labels, sums_by_code, tie_runs
from tfmtl.metrics.lists import Gain, Lists, Places, find_places, gains, make_lists
from tfmtl.schema.evaluation import GRADED, METRICS, VALUED

Empty = Literal["skip", "zero"]


def per_list(
    lists: Lists,
    places: Places,
    metric: str,
    at: int | None = None,
    best: Floats | None = None,
) -> Floats:
    """A metric of each list.

    Args:
      lists: G lists.
      places: of their positives. NDCG reads `above` and `tied` only.
      metric: one of `METRICS`.
      at: K >= 1, of all metrics but `mrr`.
      best: `best_of` these lists, for one who asks more than once; or None.

    Returns:
      [G]; NaN where a list has no positive (none of any value, for `VALUED`).

    Raises:
      ConfigError: for another metric, a K below 1, or values that are not there.
    """
    if best is None:
        best = best_of(lists, metric, at)
    if metric == "mrr":
        return _reciprocal_rank(lists, places)
    assert at is not None
    if metric == "hr":
        return _hit(lists, places, at)
    total = _dcg if metric in GRADED else _precisions
    found = total(lists, places, _gain(lists, metric), at)
    out = np.full(lists.count, np.nan)
    np.divide(found, best, out=out, where=best > 0.0)
    return out


def best_of(lists: Lists, metric: str, at: int | None = None) -> Floats:
    """What the best order of each list is worth; arguments and errors as `per_list`.

    Returns:
      [G]: the greatest DCG, or the sum of the greatest gains; 1 for `hr` and `mrr`.
    """
    if metric not in METRICS or ((at is None or at < 1) and metric != "mrr"):
        raise ConfigError(
            f"`metric` must be one of {list(METRICS)}, `at` a number above 0, got "
            f"{metric!r} and {at!r}"
        )
    if metric in ("hr", "mrr") or at is None:
        return np.ones(lists.count)
    weight = np.diff(_discounts(at)) if metric in GRADED else np.ones(at)
    return _ideal(lists, _gain(lists, metric), weight)


def _gain(lists: Lists, metric: str) -> Floats:
    """What a metric adds up, [P]."""
    if metric in VALUED:
        if lists.value is None:
            raise ConfigError(f"`metric` {metric!r} needs the values of the rows")
        return lists.value
    return np.ones(len(lists.gain)) if metric == "map" else lists.gain


def mean_over_lists(values: Floats, empty: Empty = "skip") -> float:
    """Mean of a metric over lists.

    Args:
      values: [G], NaN for lists without a positive.
      empty: "skip" leaves those out, "zero" counts them as 0.

    Returns:
      The mean; NaN without a list to average.
    """
    used = np.nan_to_num(values, nan=0.0) if empty == "zero" else values
    used = used[~np.isnan(used)]
    return float(used.mean()) if len(used) else float("nan")


def ndcg(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    at: int = 10,
    *,
    gain: Gain = "linear",
    value: npt.ArrayLike | None = None,
    empty: Empty = "skip",
) -> float:
    """Mean NDCG@K: DCG = sum over the first K places i of gain / log2(i + 1).

    Args:
      labels: [N] >= 0.
      scores: [N].
      groups: [N] list of each row; lists of one row are left out.
      at: K.
      gain: y ("linear") or 2^y - 1 ("exponential").
      value: [N] multiplies the gains (G-NDCG), such as a price; or None.
      empty: what lists without a positive count: "skip" or "zero".

    Returns:
      A value in [0, 1]; NaN where no list counts.

    Raises:
      DataError: for NaN, unequal lengths, labels or values below 0.
      ConfigError: for a K below 1.
    """
    lists = make_lists(gains(labels, gain), groups, value)
    name = "ndcg" if value is None else "gndcg"
    return _mean(lists, scores, name, at, empty)


def mean_average_precision(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    at: int = 10,
    *,
    value: npt.ArrayLike | None = None,
    empty: Empty = "skip",
) -> float:
    """Mean AP@K: sum over the positives in the first K of the precision at their
    place, over min(P, K).

    With values (G-MAP) each positive's precision counts with its value, and the sum is
    divided by that of the min(P, K) greatest values; the paper names the metric, and
    this reading has the plain one as its case of equal values.

    Args:
      labels: [N] of 0 and 1.
      scores, groups, at, value, empty: as `ndcg`.

    Returns, raises: as `ndcg`.
    """
    lists = make_lists(binary_labels(labels).astype(np.float64), groups, value)
    name = "map" if value is None else "gmap"
    return _mean(lists, scores, name, at, empty)


def hit_rate(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    at: int = 10,
    *,
    empty: Empty = "skip",
) -> float:
    """Share of lists with a positive among the first K; arguments as `ndcg`."""
    lists = make_lists(binary_labels(labels).astype(np.float64), groups)
    return _mean(lists, scores, "hr", at, empty)


def mean_reciprocal_rank(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    empty: Empty = "skip",
) -> float:
    """Mean of 1 / place of the first positive; arguments as `ndcg`."""
    lists = make_lists(binary_labels(labels).astype(np.float64), groups)
    return _mean(lists, scores, "mrr", None, empty)


def _mean(
    lists: Lists, scores: npt.ArrayLike, metric: str, at: int | None, empty: Empty
) -> float:
    values = per_list(lists, find_places(lists, scores), metric, at)
    return mean_over_lists(values, empty)


def _discounts(at: int) -> Floats:
    """Sums of the first 0 .. K discounts, [K + 1]."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2.0, at + 2.0)))])


def _harmonic(last: int) -> Floats:
    """Sums of 1/k over the first 0 .. last places, [last + 1]."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1.0, last + 1.0))])


def _ideal(lists: Lists, gain: Floats, weight: Floats) -> Floats:
    """What the best order of each list is worth.

    Args:
      lists: G lists.
      gain: [P] of their positives.
      weight: [K] of the first K places.

    Returns:
      [G] sum over the places of weight x the gain of that place.
    """
    order = np.lexsort((-gain, lists.of))
    begin = np.cumsum(lists.positives) - lists.positives
    place = np.arange(len(gain)) - begin[lists.of]
    inside = place < len(weight)
    worth = gain[order][inside] * weight[place[inside]]
    return sums_by_code(lists.of[inside], worth, lists.count)


def _dcg(lists: Lists, places: Places, gain: Floats, at: int) -> Floats:
    sums = _discounts(at)
    end = np.minimum(places.above + places.tied, at)
    mean_discount = (sums[end] - sums[np.minimum(places.above, at)]) / places.tied
    return sums_by_code(lists.of, gain * mean_discount, lists.count)


def _precisions(lists: Lists, places: Places, gain: Floats, at: int) -> Floats:
    """A positive at place k of s + 1 .. s + n has, by expectation, the positives above
    its tie, itself, and (k - s - 1)(p - 1)/(n - 1) of the others in its tie before it.
    """
    above, tied = places.above, places.tied
    per_place = (places.positives_tied - 1) / np.maximum(tied - 1, 1)
    first = np.minimum(above, at)
    last = np.minimum(above + tied, at)
    sums = _harmonic(at)
    constant = places.positives_above + 1 - per_place * (above + 1)
    precision = constant * (sums[last] - sums[first]) + per_place * (last - first)
    return sums_by_code(lists.of, gain * precision / tied, lists.count)


def _first_ties(lists: Lists, places: Places) -> tuple[Ints, Ints, Ints, Ints]:
    """For each list with a positive: its number, the rows above its first positives,
    the rows that tie with them, the positives among those."""
    best = np.flatnonzero(places.positives_above == 0)
    _, start = tie_runs(lists.of[best])
    best = best[start]
    return (
        lists.of[best],
        places.above[best],
        places.tied[best],
        places.positives_tied[best],
    )


def _log_choose(n: npt.ArrayLike, k: npt.ArrayLike) -> Floats:
    high, low = np.asarray(n, dtype=np.float64), np.asarray(k, dtype=np.float64)
    result: Floats = gammaln(high + 1) - gammaln(low + 1) - gammaln(high - low + 1)
    return result


def _hit(lists: Lists, places: Places, at: int) -> Floats:
    """A tie of n rows with p positives, of which the first m are shown, shows none
    with the probability C(n - p, m) / C(n, m)."""
    out = np.full(lists.count, np.nan)
    number, above, tied, positives = _first_ties(lists, places)
    shown = np.clip(at - above, 0, tied)
    possible = shown <= tied - positives
    draws = np.where(possible, shown, 0)
    none = np.exp(_log_choose(tied - positives, draws) - _log_choose(tied, draws))
    out[number] = np.where(possible, 1.0 - none, 1.0)
    return out


def _reciprocal_rank(lists: Lists, places: Places) -> Floats:
    """The first of p positives in a tie of n rows is the j-th row with the probability
    C(n - j, p - 1) / C(n, p)."""
    out = np.full(lists.count, np.nan)
    number, above, tied, positives = _first_ties(lists, places)
    lengths = tied - positives + 1
    index = np.repeat(np.arange(len(number)), lengths)
    begin = np.cumsum(lengths) - lengths
    j = np.arange(len(index)) - begin[index] + 1
    n, p = tied[index], positives[index]
    chance = np.exp(_log_choose(n - j, p - 1) - _log_choose(n, p))
    out[number] = np.bincount(index, chance / (above[index] + j), minlength=len(number))
    return out
