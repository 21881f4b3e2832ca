"""The search finds what a grid finds, keeps bounds, and ignores common factors."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.errors import ConfigError
from tfmtl.fusion.criteria import Constraint, Criterion
from tfmtl.fusion.objective import Judge
from tfmtl.fusion.search import RANGE, Space, search
from tfmtl.schema.fusion import FusionSpec

CLICK, BUY = Criterion("click", "ndcg", 3), Criterion("buy", "ndcg", 3)


@pytest.fixture(scope="module")
def judge(make_experiment, table):
    fusion = FusionSpec(weights={"click": 1.0, "like": 1.0, "buy": 1.0})
    return Judge(table, make_experiment(), fusion, [BUY, CLICK])


START = np.array([1.0, 1.0, 1.0])


def test_reaches_the_best_of_a_grid(judge):
    space = Space(START, judge.spread)
    axis = np.linspace(-RANGE, RANGE, 15)
    grid = np.array(
        [judge(space.weights(np.array([a, b])))[0] for a in axis for b in axis]
    )
    found = search(judge, START, judge.spread, evaluations=250)
    assert len(found.values) <= 250
    assert found.values[found.best, 0] >= grid.max() - 1e-3
    assert found.values[found.best, 0] > found.values[0, 0] + 0.01
    np.testing.assert_array_equal(found.weights[0], START)
    again = search(judge, START, judge.spread, evaluations=250)
    np.testing.assert_array_equal(again.weights, found.weights)
    other = search(judge, START, judge.spread, evaluations=250, seed=1)
    assert not np.array_equal(other.weights, found.weights)


def test_keeps_a_bound_that_the_free_optimum_breaks(judge):
    free = search(judge, START, judge.spread, evaluations=150)
    bound = Constraint(CLICK, ">=", 0.0, relative=True)
    kept = search(judge, START, judge.spread, [(1, bound)], evaluations=150)
    baseline = kept.values[0, 1]
    assert free.values[free.best, 1] < baseline - 0.01
    assert kept.values[kept.best, 1] >= baseline
    assert kept.values[kept.best, 0] <= free.values[free.best, 0]
    # Impossible: the point that misses by least.
    hard = Constraint(CLICK, ">=", 0.999)
    near = search(judge, START, judge.spread, [(1, hard)], evaluations=150)
    assert near.values[near.best, 1] == near.values[:, 1].max()


def test_a_common_factor_changes_nothing(judge):
    found = search(judge, START, judge.spread, evaluations=64)
    scaled = search(judge, 8.0 * START, judge.spread, evaluations=64)
    np.testing.assert_allclose(scaled.weights, 8.0 * found.weights, rtol=1e-9)
    np.testing.assert_allclose(scaled.values, found.values, rtol=1e-9)


def test_signs_and_the_reference_stay(judge):
    start = np.array([2.0, -0.5, 1.0])
    found = search(judge, start, judge.spread, evaluations=64)
    assert (np.sign(found.weights) == np.sign(start)).all()
    np.testing.assert_allclose(found.weights[:, 0], 2.0)


def test_of_equal_points_the_closest_to_the_start():
    flat = search(lambda w: np.array([0.5]), START, np.ones(3), evaluations=40)
    assert flat.best == 0

    def step(weights):
        return np.array([0.5 + 0.1 * (weights[1] > 3.0)])

    found = search(step, START, np.ones(3), evaluations=100)
    good = found.weights[found.values[:, 0] > 0.5]
    away = np.abs(np.log(good[:, 1:])).sum(axis=1)
    np.testing.assert_array_equal(found.weights[found.best], good[away.argmin()])


def test_ratios_are_of_influence():
    space = Space(np.array([1.0, 4.0]), np.array([2.0, 0.5]))
    np.testing.assert_allclose(space.ratios(np.array([1.0, 4.0])), [0.0])
    np.testing.assert_allclose(space.weights(np.array([0.0])), [1.0, 4.0])
    np.testing.assert_allclose(
        space.weights(space.ratios(np.array([3.0, 6.0]))), [1, 2]
    )
    # A term that is the same everywhere moves nothing, and breaks nothing.
    assert np.isfinite(
        Space(np.ones(2), np.array([1.0, 0.0])).weights(np.ones(1))
    ).all()


def test_a_baseline_from_elsewhere_is_a_bound_and_no_candidate():
    def half(weights):
        return np.array([0.5, 0.5])

    other = np.array([0.9, 0.4])
    bound = Constraint(CLICK, ">=", 0.0, relative=True)
    ones = np.ones(3)
    found = search(half, START, ones, [(1, bound)], baseline=other, evaluations=16)
    np.testing.assert_array_equal(found.baseline, other)
    assert (found.values[found.best] == 0.5).all()
    # The same as the bound that it stands for, whatever the start reaches.
    fixed = search(half, START, ones, [(1, Constraint(CLICK, ">=", 0.4))])
    assert found.best == fixed.best == 0
    np.testing.assert_array_equal(fixed.baseline, [0.5, 0.5])


def test_too_little_to_search():
    with pytest.raises(ConfigError, match="two outputs with a weight"):
        search(lambda w: w, np.ones(1), np.ones(1))
    with pytest.raises(ConfigError, match="`evaluations` must be >= 16"):
        search(lambda w: w, np.ones(2), np.ones(2), evaluations=15)
