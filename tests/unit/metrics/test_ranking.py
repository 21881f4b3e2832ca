"""Ranking metrics against scikit-learn, a double loop, and all orders of ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics import ranking
from tfmtl.metrics.lists import find_places, gains, make_lists

NAMES = ("ndcg", "map", "hr", "mrr", "gndcg", "gmap")


def by_hand(name, labels, gain, value, order, at):
    """A metric of one list in a given order, by the book."""
    worth = gain * value if name in ("gndcg", "gmap") else gain
    if not (worth > 0).any():
        return math.nan
    if name in ("ndcg", "gndcg"):
        dcg = ideal = 0.0
        for place, row in enumerate(order[:at], start=1):
            dcg += worth[row] / math.log2(place + 1)
        for place, best in enumerate(sorted(worth, reverse=True)[:at], start=1):
            ideal += best / math.log2(place + 1)
        return dcg / ideal
    hits, total, first = 0, 0.0, None
    for place, row in enumerate(order, start=1):
        if labels[row] > 0:
            hits += 1
            first = first or place
            if place <= at:
                total += (worth[row] if name == "gmap" else 1.0) * hits / place
    if name == "mrr":
        return 1.0 / first
    if name == "hr":
        return float(first <= at)
    best = sorted(worth if name == "gmap" else labels > 0, reverse=True)
    return total / sum(best[:at])


def expected(name, labels, scores, groups, value, at, gain="linear"):
    """Mean over all orders of the ties, list by list."""
    result = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        if len(rows) < 2:
            continue
        y, s, v = labels[rows], scores[rows], value[rows]
        g = 2**y - 1 if gain == "exponential" else y
        blocks = [np.flatnonzero(s == t) for t in sorted(set(s), reverse=True)]
        orders = itertools.product(*(itertools.permutations(b) for b in blocks))
        values = [
            by_hand(name, y, g, v, list(itertools.chain(*order)), at)
            for order in orders
        ]
        result.append(np.mean(values))
    return np.array(result)


def data(seed, tied=True):
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 7, 40)
    scores = draw.integers(0, 3, 40).astype(float) if tied else draw.random(40)
    labels = (draw.random(40) < 0.3).astype(float)
    labels[groups == 3] = 0.0
    return labels, scores, groups, draw.integers(0, 4, 40).astype(float)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [1, 3, 10])
@pytest.mark.parametrize("tied", [True, False])
def test_each_list_is_the_mean_over_all_orders_of_ties(name, at, tied):
    labels, scores, groups, value = data(20 + at, tied)
    lists = make_lists(labels, groups, value)
    places = find_places(lists, scores)
    found = ranking.per_list(lists, places, name, None if name == "mrr" else at)
    wanted = expected(name, labels, scores, groups, value, at)
    assert np.isnan(wanted).sum() >= 1
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    if tied and (name, at) != ("hr", 10):
        # The order of the input would be another number.
        broken = expected(name, labels, scores - 1e-9 * labels, groups, value, at)
        assert np.nanmax(np.abs(broken - wanted)) > 1e-3


@pytest.mark.parametrize("gain", ["linear", "exponential"])
@pytest.mark.parametrize("tied", [True, False])
def test_ndcg_is_scikit_learns(gain, tied):
    draw = np.random.default_rng(2)
    labels = draw.integers(0, 4, (30, 12)).astype(float)
    scores = draw.random((30, 12)).round(1 if tied else 9)
    groups = np.repeat(np.arange(30), 12)
    worth = 2**labels - 1 if gain == "exponential" else labels
    for at in (1, 4, 12, 50):
        found = ranking.ndcg(labels.ravel(), scores.ravel(), groups, at, gain=gain)
        assert found == pytest.approx(ndcg_score(worth, scores, k=at), rel=1e-12)
    other = labels if gain == "exponential" else 2**labels - 1
    assert found != pytest.approx(ndcg_score(other, scores, k=at), rel=1e-6)


@pytest.mark.parametrize("tied", [1, 7, 40, 400])
def test_a_list_that_ties_as_a_whole_has_the_expectation_of_chance(tied):
    positives = (tied + 2) // 3
    labels = (np.arange(tied) < positives).astype(float)
    labels, scores = np.append(labels, 0.0), np.append(np.zeros(tied), -1.0)
    groups = np.zeros(tied + 1, int)
    draw = np.random.default_rng(0)
    first = [
        1 + np.argmax(labels[:tied][draw.permutation(tied)]) for _ in range(20_000)
    ]
    mrr = ranking.mean_reciprocal_rank(labels, scores, groups)
    assert mrr == pytest.approx(np.mean(1 / np.array(first)), abs=0.01)
    hit = ranking.hit_rate(labels, scores, groups, 2)
    assert hit == pytest.approx(np.mean(np.array(first) <= 2), abs=0.012)
    assert ranking.hit_rate(labels, scores, groups, tied) == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_input_does_not_enter(name):
    labels, scores, groups, value = data(5)
    at = None if name == "mrr" else 3

    def value_of(order):
        lists = make_lists(labels[order], groups[order], value[order])
        found = ranking.per_list(lists, find_places(lists, scores[order]), name, at)
        return ranking.mean_over_lists(found)

    by_label = np.argsort(labels)
    wanted = value_of(np.arange(40))
    assert value_of(by_label) == pytest.approx(wanted, rel=1e-12)
    assert value_of(by_label[::-1]) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_better_order_is_never_worse_and_the_best_is_one(name):
    labels, scores, groups, value = data(6, tied=False)
    lists = make_lists(labels, groups, value)
    at = None if name == "mrr" else 1

    def mean(found):
        values = ranking.per_list(lists, find_places(lists, found), name, at)
        return ranking.mean_over_lists(values)

    best = labels * (1 + value)
    assert mean(best) == pytest.approx(1.0)
    assert mean(-best) < mean(scores) < mean(best)
    # A monotone transformation inside each list, another for each, changes nothing.
    moved = np.exp(3 * scores) + 10.0 * groups
    assert mean(moved) == pytest.approx(mean(scores), rel=1e-12)


def test_lists_of_one_row_and_rows_without_a_list_are_left_out():
    labels = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    scores = np.array([0.1, 0.9, 0.5, 0.2, 0.1])
    groups = np.array([b"a", b"a", b"b", b"", b""], object)
    lists = make_lists(labels, groups)
    assert (lists.count, lists.singles) == (1, 3)
    assert ranking.mean_reciprocal_rank(labels, scores, groups) == 0.5
    assert math.isnan(ranking.ndcg(labels[2:], scores[2:], groups[2:]))


def test_lists_without_a_positive_are_skipped_or_zero():
    labels = np.array([1.0, 0.0, 0.0, 0.0])
    groups = np.array([0, 0, 1, 1])
    for metric in (ranking.ndcg, ranking.mean_average_precision, ranking.hit_rate):
        assert metric(labels, -np.arange(4), groups, 1) == 1.0
        assert metric(labels, -np.arange(4), groups, 1, empty="zero") == 0.5
    assert math.isnan(ranking.ndcg(np.zeros(4), np.arange(4), groups))
    assert ranking.ndcg(np.zeros(4), np.arange(4), groups, empty="zero") == 0.0


def test_gains_with_equal_values_are_the_plain_metrics():
    labels, scores, groups, _ = data(7)
    value = np.full(40, 3.0)
    for metric in (ranking.ndcg, ranking.mean_average_precision):
        plain = metric(labels, scores, groups, 3)
        assert metric(labels, scores, groups, 3, value=value) == pytest.approx(plain)
        value[0] = 30.0
        assert metric(labels, scores, groups, 3, value=value) != pytest.approx(plain)
        value[0] = 3.0


def test_a_row_without_a_value_is_worth_nothing():
    labels, scores, groups, value = data(8)
    missing = np.where(np.arange(40) % 3, value, np.nan)
    assert ranking.ndcg(labels, scores, groups, value=missing) == ranking.ndcg(
        labels, scores, groups, value=np.nan_to_num(missing)
    )


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: ranking.ndcg([1, 0], [1, 2], [0, 0], 0), ConfigError, "above 0"),
        (lambda: ranking.ndcg([-1, 0], [1, 2], [0, 0]), DataError, "must be >= 0"),
        (lambda: ranking.ndcg([1, 0], [1, 2], [0]), DataError, "as long as"),
        (lambda: ranking.ndcg([1, 0], [1, math.nan], [0, 0]), DataError, "NaN"),
        (lambda: ranking.hit_rate([2, 0], [1, 2], [0, 0]), DataError, "0 or 1"),
        (lambda: gains([900.0], "exponential"), DataError, "use the linear gain"),
        (
            lambda: ranking.ndcg([1, 0], [1, 2], [0, 0], value=[-1, 0]),
            DataError,
            "`value` must be finite",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_no_rows():
    lists = make_lists(np.zeros(0), np.zeros(0, int))
    places = find_places(lists, np.zeros(0))
    for name in ("ndcg", "map", "hr", "mrr"):
        values = ranking.per_list(lists, places, name, 5)
        assert math.isnan(ranking.mean_over_lists(values, "zero"))
