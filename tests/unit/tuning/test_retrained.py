"""Means over seeds, the winner, and gains seed by seed."""

import numpy as np
import pytest
from scipy import stats

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.retrained import Retrained, SeedRun, deviation, paired_gain, winner

GOAL = Goal.parse(["click/auc"], ["like/auc >= 0.6"])


def tuned(label, *points, kind="tuned", failed=None):
    runs = [
        SeedRun(seed, {"click/auc": x, "like/auc": y}, {"click/loss": x}, 1.0)
        for seed, (x, y) in enumerate(points)
    ]
    return Retrained(label, kind, None, runs, failed or {})


def test_winner_is_best_in_the_mean_not_with_one_seed():
    lucky = tuned("lucky", (0.80, 0.7), (0.70, 0.7))
    steady = tuned("steady", (0.76, 0.7), (0.76, 0.7))
    control = tuned("Equal", (0.9, 0.9), kind="control")
    assert winner([lucky, steady, control], GOAL) is steady
    assert winner([control], GOAL) is None and winner([], GOAL) is None


def test_bounds_count_on_means():
    # One seed misses the bound, the mean keeps it; of the other one it is the mean.
    keeps = tuned("keeps", (0.71, 0.59), (0.71, 0.63))
    misses = tuned("misses", (0.80, 0.58), (0.80, 0.61))
    assert winner([misses, keeps], GOAL) is keeps
    assert winner([misses, keeps], Goal.parse(["click/auc"], [])) is misses


def test_a_failed_seed_comes_last_and_an_undefined_metric_does_not_count():
    failing = tuned("failing", (0.9, 0.7), failed={1: "loss is not finite"})
    whole = tuned("whole", (0.7, 0.7), (0.7, 0.7))
    assert winner([failing, whole], GOAL) is whole
    assert winner([failing], GOAL) is failing
    partial = Retrained(
        "partial", "tuned", None, [*whole.runs, SeedRun(9, {"click/auc": 1.0}, {}, 1.0)]
    )
    assert "like/auc" not in partial.means() and winner([partial], GOAL) is None


def test_gain_is_that_of_a_paired_t_test():
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.7, 0.01, (2, 5))
    one, other = (tuned("x", *((v, 0.5) for v in values)) for values in (a, b))
    found = paired_gain(one, other, "click/auc")
    wanted = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx((a - b).mean()) and found.seeds == 5
    # Unpaired, the interval is another.
    apart = stats.ttest_ind(a, b).confidence_interval(0.95)
    assert found.low != pytest.approx(apart.low, rel=1e-3)


def test_gain_pairs_seeds_by_number_and_turns_losses_around():
    def runs(values):
        return Retrained(
            "x",
            "control",
            None,
            [SeedRun(s, {"a/logloss": v}, {}, 1.0) for s, v in values.items()],
        )

    one, other = runs({1: 0.3, 2: 0.5, 7: 9.0}), runs({2: 0.6, 1: 0.5, 8: 0.0})
    found = paired_gain(one, other, "a/logloss")
    assert found.seeds == 2 and found.mean == pytest.approx(0.15)
    single = paired_gain(one, runs({7: 9.5}), "a/logloss")
    assert (single.mean, single.low, single.high) == (pytest.approx(0.5), None, None)
    assert paired_gain(one, runs({4: 1.0}), "a/logloss") is None
    assert paired_gain(one, other, "a/logloss", "test") is None


def test_deviation_is_of_a_sample():
    assert deviation([1.0, 3.0]) == pytest.approx(np.sqrt(2.0))
    assert deviation([1.0]) is None
