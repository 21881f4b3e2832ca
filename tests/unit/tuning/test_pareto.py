"""The front of trials, and its hypervolume over time."""

import numpy as np
import pytest

from tfmtl.metrics.hypervolume import hypervolume
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.pareto import (
    best_record,
    front_hypervolume,
    hypervolume_over_time,
    keeping,
    measured,
    pareto_front,
    reference_point,
)

BOTH = Goal.parse(["click/auc", "like/auc"], [])


def names(records):
    return [r.trial for r in records]


def test_front_leaves_out_what_failed_is_worse_or_breaks_a_bound(pairs):
    trials = pairs((0.7, 0.6), (0.6, 0.7), None, (0.6, 0.65), (0.8, 0.5))
    assert names(pareto_front(trials, BOTH)) == ["0005", "0001", "0002"]
    bounded = Goal.parse(["click/auc", "like/auc"], ["like/auc >= 0.55"])
    assert names(pareto_front(trials, bounded)) == ["0001", "0002"]
    impossible = Goal.parse(["click/auc", "like/auc"], ["like/auc >= 0.9"])
    assert pareto_front(trials, impossible) == []
    assert pareto_front([], BOTH) == []


def test_small_losses_are_good(record):
    goal = Goal.parse(["click/auc", "click/logloss"], [])
    trials = [
        record(1, {"click/auc": 0.7, "click/logloss": 0.5}),
        record(2, {"click/auc": 0.6, "click/logloss": 0.4}),
        record(3, {"click/auc": 0.6, "click/logloss": 0.6}),
    ]
    assert names(pareto_front(trials, goal)) == ["0001", "0002"]
    np.testing.assert_allclose(reference_point(trials, goal), [0.6, -0.6])
    # From (0.6, -0.6): 0.1 x 0.1; the second point is no better than it in AUC.
    assert front_hypervolume(trials, goal) == pytest.approx(0.01)


def test_undefined_metrics_do_not_count(pairs, record):
    trials = [
        *pairs((0.7, 0.6)),
        record(8, {"click/auc": 0.9}),
        record(9, {"click/auc": 0.9, "like/auc": float("nan")}),
    ]
    assert names(measured(trials, BOTH)) == ["0001"]
    assert names(pareto_front(trials, BOTH)) == ["0001"]
    assert hypervolume_over_time(trials, BOTH, np.array([0.5, 0.5])) == pytest.approx(
        [0.02, 0.02, 0.02]
    )


def test_best_keeps_the_bounds_or_misses_least(pairs):
    goal = Goal.parse(["click/auc"], ["like/auc >= 0.6"])
    trials = pairs((0.9, 0.5), (0.7, 0.6), None, (0.7, 0.61))
    assert best_record(trials, goal).trial == "0002"
    assert names(keeping(trials, goal)) == ["0002", "0004"]
    assert best_record(pairs((0.9, 0.5), (0.7, 0.55)), goal).trial == "0002"
    assert best_record(pairs(None), goal) is None


def test_reference_is_the_worst_of_all_usable_trials(pairs):
    bounded = Goal.parse(["click/auc", "like/auc"], ["like/auc >= 0.55"])
    trials = pairs((0.7, 0.6), None, (0.8, 0.4))
    np.testing.assert_allclose(reference_point(trials, bounded), [0.7, 0.4])
    assert len(reference_point(pairs(None), BOTH)) == 0
    assert front_hypervolume(pairs(None), BOTH) == 0.0
    assert hypervolume_over_time(pairs(None, None), BOTH) == [0.0, 0.0]


def test_hypervolume_grows_trial_by_trial(record):
    draw = np.random.default_rng(0)
    for columns in (1, 2, 3, 4):
        goal = Goal.parse([f"t{c}/auc" for c in range(columns)], ["t0/auc <= 0.8"])
        values = draw.random((25, columns))
        trials = [
            record(i, {f"t{c}/auc": v for c, v in enumerate(row.tolist())})
            for i, row in enumerate(values)
        ]
        reference = reference_point(trials, goal)
        np.testing.assert_array_equal(reference, values.min(axis=0))
        found = hypervolume_over_time(trials, goal)
        kept = values[:, 0] <= 0.8
        wanted = [hypervolume(values[:n][kept[:n]], reference) for n in range(1, 26)]
        np.testing.assert_allclose(found, wanted, atol=1e-12)
        assert (np.diff(found) >= 0).all()
        assert found[-1] == pytest.approx(front_hypervolume(trials, goal))
        # The bound takes part: without it the volume is another.
        free = Goal.parse([f"t{c}/auc" for c in range(columns)], [])
        assert hypervolume_over_time(trials, free)[-1] > found[-1]
